"""What was asked about one Slurm job and what answered: the raw texts, and readers for each of them.

Written for the text of Slurm 22.05 to 25.11. ``--json`` is not used: its shape changed in between. An
element of a job array goes by the number of its array and its index.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What one command said: exit status, standard output and error together."""

    rc: int
    text: str


@dataclass(frozen=True)
class Evidence:
    """Everything that was asked about one job. ``None`` means: was not asked, or is not there.

    :param exit_file: text of ``exit.json`` in the job's directory.
    :param verdict: text of ``verdict.json``, the end that an earlier look has concluded.
    :param index: of the element of a job array that this is about; ``None`` for a single job.
    :param began: a line ``<job> <index or -> <restarts>`` for each script that was seen to begin.
    """

    job_id: str
    name: str
    exit_file: str | None = None
    scontrol: Answer | None = None
    squeue: Answer | None = None
    sacct: Answer | None = None
    verdict: str | None = None
    index: int | None = None
    began: str = ""

    @property
    def forgotten(self) -> bool:
        """The controller answered, and does not know the job (any more)."""
        answer = self.scontrol
        if answer is None or answer.rc != 0:
            return answer is not None and "Invalid job id" in answer.text
        # The number may be another job's by now; what is no answer at all says nothing.
        return re.match(r"JobId=\d+ ", answer.text) is not None and read_scontrol(self) is None

    def has_begun(self, restarts: int | None) -> bool:
        """Whether the job's script left word that it began, in the run after so many restarts."""
        place = "-" if self.index is None else str(self.index)
        runs = [line.split() for line in self.began.splitlines()]
        return any(
            run[:2] == [self.job_id, place] and (restarts is None or run[2:] == [str(restarts)])
            for run in runs
        )

    def describe(self) -> str:
        """Say in one line what was asked and what answered."""
        if not self.exit_file:
            begun = "it began" if self.has_begun(None) else "no word that its script began"
            parts = [f"exit file: none, {begun}"]
        elif read_exit_file(self) is None:
            parts = [f"exit file: damaged or of another job ({_short(self.exit_file)})"]
        else:
            parts = [f"exit file: {_short(self.exit_file)}"]
        for who, answer in (("scontrol", self.scontrol), ("squeue", self.squeue), ("sacct", self.sacct)):
            if answer is not None:
                parts.append(f"{who}: exit status {answer.rc}, {_short(answer.text) or 'no text'}")
        return "; ".join(parts)


@dataclass(frozen=True)
class Account:
    """One witness's account of the job. Times are ISO 8601 UTC.

    :param source: who says so: ``exit file``, ``scontrol``, ``squeue`` or ``sacct``.
    :param code: Slurm's state code; of an exit file ``COMPLETED`` or ``FAILED``.
    :param why: Slurm's reason for the state, empty if there is none.
    :param signal: that ended the job, or that its wrapper was sent from outside; empty or ``0`` if none.
    :param nodes: names as Slurm writes them, for example ``n[1-2]``.
    :param restarts: how often Slurm had started the job again; ``None`` where the witness does not know.
    :param queued_at: when it was submitted, or last put back into the queue.
    :param oom_kills: processes of it that the kernel killed for their memory; only an exit file tells.
    """

    source: str
    code: str
    why: str = ""
    exit_code: int | None = None
    signal: str = ""
    nodes: str = ""
    node_count: int = 0
    started_at: str | None = None
    ended_at: str | None = None
    restarts: int | None = None
    queued_at: str | None = None
    oom_kills: int = 0


def read_exit_file(evidence: Evidence) -> Account | None:
    """Read the report of the job's own wrapper; ``None`` if it is not whole or about another job."""
    if not evidence.exit_file:
        return None
    try:
        value = json.loads(evidence.exit_file)
        if (str(value["job_id"]), value.get("index")) != (evidence.job_id, evidence.index):
            return None
        exit_code = int(value["exit_code"])
        return Account(
            "exit file",
            "FAILED" if exit_code else "COMPLETED",
            exit_code=exit_code,
            signal=str(value["told"]),
            nodes=str(value["hosts"]),
            node_count=int(value["nodes"]),
            started_at=str(value["started_at"]),
            ended_at=str(value["ended_at"]),
            restarts=int(value["restart_count"]),
            oom_kills=int(value.get("oom_kills", 0)),  # jobs that were submitted before it was counted
        )
    except (ValueError, KeyError, TypeError):
        return None


def read_scheduler(evidence: Evidence) -> Account | None:
    """Return the account of the first of scontrol, squeue and sacct that knows the job."""
    return read_scontrol(evidence) or read_squeue(evidence) or read_sacct(evidence)


def read_scontrol(evidence: Evidence) -> Account | None:
    """Find the job in ``scontrol show job --oneliner``, by number and name.

    A rebuilt controller counts from 1 again: the number alone does not make it our job.
    """
    if evidence.scontrol is None or evidence.scontrol.rc != 0:
        return None
    for line in evidence.scontrol.text.splitlines():
        fields = scontrol_fields(line)
        number = fields.get("JobId" if evidence.index is None else "ArrayJobId")
        of_array = "ArrayTaskId" in fields
        if (number, fields.get("JobName")) != (evidence.job_id, evidence.name):
            continue
        if of_array is (evidence.index is None):
            continue
        exit_code, signal = _exit_pair(fields.get("ExitCode", ""))
        restarts = fields.get("Restarts", "")
        return Account(
            "scontrol",
            fields.get("JobState", ""),
            why=_unless(fields.get("Reason", ""), "None"),
            exit_code=exit_code,
            signal=signal,
            nodes=_unless(fields.get("NodeList", ""), "(null)"),
            node_count=_count(fields.get("NumNodes", "")),
            started_at=_time(fields.get("StartTime")),
            ended_at=_time(fields.get("EndTime")),
            restarts=int(restarts) if restarts.isdigit() else None,
            queued_at=_time(fields.get("SubmitTime")),
        )
    return None


def read_squeue(evidence: Evidence) -> Account | None:
    """Find the job in ``squeue --format=%F|%K|%j|%T|%r|%D|%N``."""
    if evidence.squeue is None or evidence.squeue.rc != 0:
        return None
    for line in evidence.squeue.text.splitlines():
        cells = line.split("|")
        if len(cells) != 7 or (cells[0], cells[2]) != (evidence.job_id, evidence.name):
            continue
        if (cells[1] == "N/A") is (evidence.index is None):
            return Account(
                "squeue", cells[3], why=_unless(cells[4], "None"), node_count=_count(cells[5]), nodes=cells[6]
            )
    return None


def read_sacct(evidence: Evidence) -> Account | None:
    """Find the job's last run in ``sacct -X --duplicates``, which lists every run, oldest first.

    Its ``JobID`` of an array's element is ``<array>_<index>``.
    """
    if evidence.sacct is None or evidence.sacct.rc != 0:
        return None
    rows = [line.split("|") for line in evidence.sacct.text.splitlines()]
    rows = [r for r in rows if len(r) == 8 and r[1] == evidence.name and _is_job(r[0], evidence)]
    if not rows:
        return None
    _, _, state, exit_text, start, end, node_count, nodes = rows[-1]
    code, _, why = state.partition(" ")  # "CANCELLED by 1000"
    exit_code, signal = _exit_pair(exit_text)
    return Account(
        "sacct",
        code.rstrip("+"),
        why=why,
        exit_code=exit_code,
        signal=signal,
        nodes=_unless(nodes, "None assigned"),
        node_count=_count(node_count),
        started_at=_time(start),
        ended_at=_time(end),
        restarts=len(rows) - 1,
    )


def _is_job(number: str, evidence: Evidence) -> bool:
    job_id, of_array, _ = number.partition("_")
    return job_id == evidence.job_id and bool(of_array) is (evidence.index is not None)


_FIELD = re.compile(r"[A-Z][\w/:]*")


def scontrol_fields(line: str) -> dict[str, str]:
    """Read one line of ``scontrol show job --oneliner``; of a key that comes twice, the first counts.

    Free text of the user (the comment) stands behind the fields that matter, so it cannot forge them.
    """
    fields: dict[str, str] = {}
    key = ""
    for word in line.split(" "):
        name, equals, value = word.partition("=")
        if equals and _FIELD.fullmatch(name):
            key = "" if name in fields else name
            if key:
                fields[key] = value
        elif key:
            fields[key] += f" {word}"
    return {key: value.strip() for key, value in fields.items()}


def _exit_pair(text: str) -> tuple[int | None, str]:
    """Read Slurm's ``<exit code>:<signal>``."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    return (int(match[1]), _unless(match[2], "0")) if match else (None, "")


def _count(text: str) -> int:
    """Read ``NumNodes``; a waiting job may show a range such as ``1-4``, of which the lower end counts."""
    match = re.match(r"\d+", text)
    return int(match[0]) if match else 0


def _time(text: str | None) -> str | None:
    """Read Slurm's time, which was asked for with TZ=UTC; ``Unknown`` and ``N/A`` are none."""
    return f"{text}Z" if text and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", text) else None


def _unless(text: str, nothing: str) -> str:
    return "" if text == nothing else text


def _short(text: str) -> str:
    line = " / ".join(text.split("\n")).strip(" /")
    return line if len(line) <= 300 else line[:300] + " ..."
