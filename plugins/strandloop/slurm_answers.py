"""Readers of what the commands of :mod:`strandloop.slurm_commands` print. All pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from strandloop.slurm_evidence import Answer, Evidence


@dataclass(frozen=True)
class QueuedJob:
    """One row of ``squeue``."""

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
    """Read ``squeue --format=%A|%T|%r``, oldest number first."""
    rows = [line.strip().split("|") for line in text.splitlines()]
    jobs = {QueuedJob(*row) for row in rows if len(row) == 3 and row[0].isdigit()}
    return tuple(sorted(jobs, key=lambda job: int(job.job_id)))


def parse_cluster(text: str) -> str:
    """Name the controller: ``ClusterName`` and when it started, from ``scontrol show config``."""
    found = dict(re.findall(r"^(ClusterName|BOOT_TIME)\s*=\s*(\S+)", text, re.MULTILINE))
    return f"{found.get('ClusterName', '?')}@{found.get('BOOT_TIME', '?')}"


def cluster_name(text: str) -> str:
    """Read ``ClusterName`` from ``scontrol show config``."""
    return parse_cluster(text).partition("@")[0]


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


def parse_poll(output: bytes, *, job_id: str, name: str) -> tuple[Evidence, int, bytes]:
    """Read what ``slurm_commands.poll`` prints: evidence, log offset, and the log's bytes from there.

    :raises ValueError: if the answer was cut before the log began.
    """
    head, mark, rest = output.partition(b"\n@log ")
    if not mark or b"\n" not in rest:
        raise ValueError(f"cut answer from the login node: {output[-300:]!r}")
    offset, _, log = rest.partition(b"\n")
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
        scontrol=answers.get("scontrol"),
        squeue=answers.get("squeue"),
        sacct=answers.get("sacct"),
    )
    return evidence, int(offset), log


def _sections(text: str) -> list[tuple[str, str, str]]:
    """Split at the lines ``@<name> <value>`` that the shell scripts print between answers."""
    parts = re.split(r"^@(attempt|file|squeue|scontrol|sacct|config|exit|verdict) (\S+)\n", text, flags=re.M)
    return list(zip(parts[1::3], parts[2::3], parts[3::3], strict=True))
