"""Readers of what the commands of :mod:`strandloop.slurm_commands` print. All pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from strandloop.slurm_evidence import Answer, Evidence


@dataclass(frozen=True)
class QueuedJob:
    """One job of ``squeue``; a job array is one, whatever the number of its rows."""

    job_id: str
    code: str
    why: str

    @property
    def held_by_us(self) -> bool:
        """Submitted, and not yet released."""
        return self.code == "PENDING" and self.why == "JobHeldUser"


@dataclass(frozen=True)
class Attempt:
    """What stands in the directory of one attempt."""

    number: int
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def submitted(self) -> dict[str, str]:
        """What was noted after the submission; empty if nothing was."""
        try:
            return dict(json.loads(self.files.get("submitted.json", "{}")))
        except ValueError:
            return {}

    @property
    def array(self) -> str | None:
        """The elements that it submits or submitted; ``None`` if it is no job array."""
        return self.files.get("array", "").strip() or None

    @property
    def job_id(self) -> str | None:
        """The job of this attempt: the one that started first, else the one that was noted."""
        owner = self.files.get("owner", "").strip()
        return owner or self.submitted.get("job_id")


@dataclass(frozen=True)
class Lookup:
    """Answer to ``slurm_commands.look_up``.

    :param jobs: living jobs of this identity, oldest number first.
    :param controller_error: what squeue said instead of an answer; empty if it answered.
    """

    attempts: tuple[Attempt, ...]
    jobs: tuple[QueuedJob, ...]
    cluster: str
    controller_error: str


def parse_lookup(output: bytes) -> Lookup:
    """Read what ``slurm_commands.look_up`` prints."""
    attempts: list[Attempt] = []
    jobs: tuple[QueuedJob, ...] = ()
    cluster, error = "", "no answer"
    for name, value, text in _sections(output.decode("utf-8", "replace")):
        if name == "attempt" and value.isdigit():
            attempts.append(Attempt(int(value), {}))
        elif name == "file" and attempts:
            last = attempts.pop()
            attempts.append(Attempt(last.number, {**last.files, value: text}))
        elif name == "squeue":
            error = "" if value == "0" else f"squeue: exit status {value}, {text.strip()}"
            jobs = parse_queued(text) if not error else ()
        elif name == "config" and value == "0":
            cluster = parse_cluster(text)
    return Lookup(tuple(sorted(attempts, key=lambda a: a.number)), jobs, cluster, error)


def parse_queued(text: str) -> tuple[QueuedJob, ...]:
    """Read ``squeue --format=%F|%T|%r``, oldest number first. An array is held only if all of it is."""
    cells = [line.strip().split("|") for line in text.splitlines()]
    rows = [QueuedJob(*row) for row in cells if len(row) == 3 and row[0].isdigit()]
    jobs = {job.job_id: job for job in sorted(rows, key=lambda job: not job.held_by_us)}
    return tuple(sorted(jobs.values(), key=lambda job: int(job.job_id)))


def parse_cluster(text: str) -> str:
    """Name the controller: ``ClusterName`` and when it started, from ``scontrol show config``."""
    found = dict(re.findall(r"^(ClusterName|BOOT_TIME)\s*=\s*(\S+)", text, re.MULTILINE))
    return f"{found.get('ClusterName', '?')}@{found.get('BOOT_TIME', '?')}"


def cluster_name(text: str) -> str:
    """Read ``ClusterName`` from ``scontrol show config``."""
    return parse_cluster(text).partition("@")[0]


def other_cluster(cluster: str | None, answering: str | None) -> str:
    """Say that not the cluster of a job has answered; empty if it has, or nobody can tell.

    Only the names are compared: a controller that was restarted is the same one.

    :param cluster: where the job was submitted, as :func:`parse_cluster` names it.
    :param answering: who answers now.
    """
    old, new = ((name or "?").partition("@")[0] for name in (cluster, answering))
    if "?" in (old, new) or old == new:
        return ""
    return f"the job was submitted to cluster {old!r}, and the connection leads to cluster {new!r}"


@dataclass(frozen=True)
class Node:
    """One row of ``sinfo``; its state may carry a mark such as ``*`` (does not respond)."""

    state: str

    @property
    def usable(self) -> bool:
        """Runs jobs, or is powered down and will be started for one."""
        return self.state.lower().rstrip("~#") in _USABLE


# ParallelCluster keeps nodes powered down (idle~) until a job wants them, and then powers them up (#).
_USABLE = {"idle", "mixed", "allocated", "completing", "planned", "reserved"}


def parse_nodes(text: str) -> dict[str, Node]:
    """Read ``sinfo --Node --format=%N|%T``: each node once, whatever the number of its partitions."""
    rows = [line.strip().split("|") for line in text.splitlines()]
    return {row[0]: Node(row[1]) for row in rows if len(row) == 2}


def parse_job_id(text: str) -> str | None:
    """Read ``sbatch --parsable``: a number, on some clusters followed by ``;cluster``."""
    match = re.search(r"^(\d+)(;\S*)?\s*$", text, re.MULTILINE)
    return match[1] if match else None


@dataclass(frozen=True)
class Poll:
    """Answer to ``slurm_commands.poll`` and ``poll_array``.

    :param files_read: whether the shared file system answered; if not, exit file, verdict, progress and log
        are missing for that reason.
    :param offset: bytes of the log before ``log``.
    :param progress: text of the job's ``progress.json``, at most 4 kB; empty if it has none.
    :param cluster: who answered, if that was asked for.
    """

    evidence: Evidence
    files_read: bool
    offset: int
    log: bytes
    progress: str = ""
    cluster: str | None = None


def parse_poll(output: bytes, *, job_id: str, name: str) -> Poll:
    """Read what ``slurm_commands.poll`` and ``poll_array`` print.

    :raises ValueError: if the answer was cut.
    """
    body, _, end = output.rpartition(b"\n@end ")
    if re.fullmatch(rb"\d+\n", end) is None:
        raise ValueError(f"cut answer from the login node: {output[-300:]!r}")
    head, mark, rest = body.partition(b"\n@log ")
    place, _, log = rest.partition(b"\n")
    texts: dict[str, str] = {}
    answers: dict[str, Answer] = {}
    for section, value, text in _sections(head.decode("utf-8", "replace")):
        texts[section] = text
        answers[section] = Answer(int(value), text.strip())
    evidence = Evidence(
        job_id=job_id,
        name=name,
        exit_file=texts.get("exit"),
        verdict=texts.get("verdict"),
        began=texts.get("began", ""),
        scontrol=answers.get("scontrol"),
        squeue=answers.get("squeue"),
        sacct=answers.get("sacct"),
    )
    return Poll(
        evidence,
        files_read=int(end) == 0 and bool(mark),
        offset=int(place) if place.isdigit() else 0,
        log=log,
        progress=texts.get("progress", ""),
        cluster=parse_cluster(texts["config"]) if "config" in answers and not answers["config"].rc else None,
    )


def _sections(text: str) -> list[tuple[str, str, str]]:
    """Split at the lines ``@<name> <value>`` that the shell scripts print between answers."""
    names = "attempt|file|squeue|scontrol|sacct|config|exit|verdict|began|progress"
    parts = re.split(rf"^@({names}) (\S+)\n", text, flags=re.M)
    return list(zip(parts[1::3], parts[2::3], parts[3::3], strict=True))
