"""What state a Slurm job is in, concluded from evidence and never guessed.

:func:`resolve` is a pure function of everything that was asked about one job: the exit file that the
job's wrapper wrote on the shared file system, the answers of ``scontrol``, ``squeue`` and (where
accounting exists) ``sacct``, and the verdict that an earlier look has recorded. Nothing counts as
success that was not seen to succeed; what nobody can tell is UNKNOWN.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum


class JobState(StrEnum):
    """State of one submitted Slurm job."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    REQUEUED = "REQUEUED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMEOUT = "TIMEOUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    NODE_FAILED = "NODE_FAILED"
    UNKNOWN = "UNKNOWN"

    @property
    def alive(self) -> bool:
        """The scheduler holds the job, waiting or running."""
        return self in (JobState.PENDING, JobState.RUNNING, JobState.REQUEUED)

    @property
    def failed(self) -> bool:
        """The job was seen to end, and not with success."""
        return not self.alive and self not in (JobState.SUCCEEDED, JobState.UNKNOWN)


#: Every job state of Slurm 22.05 to 25.11 (slurm/slurm.h, ``man squeue``). COMPLETED needs its exit code.
SLURM_STATES: dict[str, JobState] = {
    "PENDING": JobState.PENDING,
    "CONFIGURING": JobState.PENDING,
    "RESV_DEL_HOLD": JobState.PENDING,
    "POWER_UP_NODE": JobState.PENDING,
    "EXPEDITING": JobState.PENDING,
    "RUNNING": JobState.RUNNING,
    "COMPLETING": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "STAGE_OUT": JobState.RUNNING,
    "STOPPED": JobState.RUNNING,
    "SUSPENDED": JobState.RUNNING,
    "REQUEUED": JobState.REQUEUED,
    "REQUEUE_FED": JobState.REQUEUED,
    "REQUEUE_HOLD": JobState.REQUEUED,
    "SPECIAL_EXIT": JobState.REQUEUED,
    "COMPLETED": JobState.SUCCEEDED,
    "FAILED": JobState.FAILED,
    "LAUNCH_FAILED": JobState.FAILED,
    "RECONFIG_FAIL": JobState.FAILED,
    "PREEMPTED": JobState.FAILED,
    "CANCELLED": JobState.CANCELLED,
    "TIMEOUT": JobState.TIMEOUT,
    "DEADLINE": JobState.TIMEOUT,
    "OUT_OF_MEMORY": JobState.OUT_OF_MEMORY,
    "NODE_FAIL": JobState.NODE_FAILED,
    "BOOT_FAIL": JobState.NODE_FAILED,
    # A federated sibling was started on another cluster: this controller cannot say how that one does.
    "REVOKED": JobState.UNKNOWN,
}


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
    """

    job_id: str
    name: str
    exit_file: str | None = None
    scontrol: Answer | None = None
    squeue: Answer | None = None
    sacct: Answer | None = None
    verdict: str | None = None


@dataclass(frozen=True)
class Resolution:
    """The state that the evidence supports, why, and what is known of the run. Times are ISO 8601 UTC.

    :param nodes: names as Slurm writes them, for example ``n[1-2]``.
    :param restarts: how often Slurm has started the job again.
    """

    state: JobState
    reason: str
    exit_code: int | None = None
    nodes: str = ""
    node_count: int = 0
    started_at: str | None = None
    ended_at: str | None = None
    restarts: int = 0


def resolve(evidence: Evidence) -> Resolution:
    """Conclude the state of a job from the evidence. Never raises; what cannot be told is UNKNOWN.

    A living job in the scheduler outranks an exit file, because a requeued job leaves the file of its
    earlier run behind. Once the job has ended, the exit file tells more than the scheduler does.
    """
    exit_file = ExitFile.read(evidence)
    view = _scontrol(evidence) or _squeue(evidence) or _sacct(evidence)
    if view is not None and view.state is not JobState.UNKNOWN:
        return _with_scheduler(view, exit_file)
    if (verdict := _verdict(evidence)) is not None:
        return verdict
    if exit_file is not None and (exit_file.exit_code == 0 or not exit_file.told or _forgotten(evidence)):
        return exit_file.resolution()
    return Resolution(JobState.UNKNOWN, describe(evidence))


def describe(evidence: Evidence) -> str:
    """Say in one line what was asked and what answered."""
    parts = ["exit file: " + ("there" if evidence.exit_file else "none")]
    if evidence.exit_file and ExitFile.read(evidence) is None:
        parts[0] = f"exit file: not of this job or damaged ({_short(evidence.exit_file)})"
    for who in ("scontrol", "squeue", "sacct"):
        answer: Answer | None = getattr(evidence, who)
        if answer is not None:
            parts.append(f"{who}: exit status {answer.rc}, {_short(answer.text) or 'no text'}")
    return "; ".join(parts)


@dataclass(frozen=True)
class ExitFile:
    """The report of the job's own wrapper about one run.

    :param told: name of the signal that the wrapper was sent from outside, empty if none was.
    """

    exit_code: int
    told: str
    started_at: str
    ended_at: str
    nodes: str
    node_count: int
    restarts: int

    @classmethod
    def read(cls, evidence: Evidence) -> ExitFile | None:
        """Return the report if it is whole and about this job, else ``None``."""
        if not evidence.exit_file:
            return None
        try:
            value = json.loads(evidence.exit_file)
            if str(value["job_id"]) != evidence.job_id:
                return None
            return cls(
                exit_code=int(value["exit_code"]),
                told=str(value["told"]),
                started_at=str(value["started_at"]),
                ended_at=str(value["ended_at"]),
                nodes=str(value["hosts"]),
                node_count=int(value["nodes"]),
                restarts=int(value["restart_count"]),
            )
        except (ValueError, KeyError, TypeError):
            return None

    def resolution(self) -> Resolution:
        """Conclude from this file alone."""
        if self.exit_code == 0:
            state, reason = JobState.SUCCEEDED, "its script ended with 0"
        else:
            state, reason = JobState.FAILED, _ended_badly(self.exit_code)
            if self.told:
                reason += f", after it was sent SIG{self.told} from outside"
        return Resolution(
            state,
            reason,
            exit_code=self.exit_code,
            nodes=self.nodes,
            node_count=self.node_count,
            started_at=self.started_at,
            ended_at=self.ended_at,
            restarts=self.restarts,
        )


@dataclass(frozen=True)
class _View:
    """The scheduler's or the accounting's account of the job."""

    source: str
    code: str
    why: str = ""
    exit_code: int | None = None
    signal: int = 0
    nodes: str = ""
    node_count: int = 0
    started_at: str | None = None
    ended_at: str | None = None
    restarts: int | None = None

    @property
    def state(self) -> JobState:
        return SLURM_STATES.get(self.code, JobState.UNKNOWN)


def _with_scheduler(view: _View, exit_file: ExitFile | None) -> Resolution:
    """Weigh the scheduler's account against the exit file of the same run."""
    of_this_run = exit_file is not None and (view.restarts is None or exit_file.restarts >= view.restarts)
    own = exit_file.resolution() if exit_file is not None and of_this_run else None
    state = view.state
    reason = f"{view.source} says {view.code}" + (f" ({view.why})" if view.why else "")
    if state.alive:
        # Between the wrapper's last line and the scheduler's own end there are seconds, with slow
        # epilogs minutes. A failure waits for the scheduler, which may yet requeue the job.
        succeeded = state is JobState.RUNNING and view.restarts is not None and own is not None
        if succeeded and own is not None and own.state is JobState.SUCCEEDED:
            return own
        if state is JobState.PENDING and view.restarts:
            state = JobState.REQUEUED
    elif own is not None and own.state is JobState.SUCCEEDED and state is not JobState.OUT_OF_MEMORY:
        return own
    elif state is JobState.SUCCEEDED:
        if own is not None:
            return own
        if view.exit_code is None or view.exit_code or view.signal:
            state, reason = JobState.FAILED, f"{reason} with exit code {view.exit_code}:{view.signal}"
    elif own is not None and state is JobState.FAILED:
        return own
    exit_code = view.exit_code if state.failed or state is JobState.SUCCEEDED else None
    if state.failed and view.signal:
        reason += f", signal {view.signal}"
    if own is not None and state.failed:
        exit_code = own.exit_code
    return Resolution(
        state,
        reason,
        exit_code=exit_code,
        nodes=view.nodes,
        node_count=view.node_count,
        started_at=view.started_at if state is not JobState.PENDING else None,
        ended_at=view.ended_at if not state.alive else None,
        restarts=view.restarts or 0,
    )


def scontrol_fields(line: str) -> dict[str, str]:
    """Read one line of ``scontrol show job --oneliner``; of a key that comes twice, the first counts.

    Free text of the user (the comment) stands behind the fields that matter, so it cannot forge them.
    """
    fields: dict[str, str] = {}
    for match in re.finditer(r"(?:^|\s)([A-Z][\w/:]*)=(.*?)(?=\s+[A-Z][\w/:]*=|\s*$)", line):
        fields.setdefault(match[1], match[2].strip())
    return fields


def _scontrol(evidence: Evidence) -> _View | None:
    if evidence.scontrol is None or evidence.scontrol.rc != 0:
        return None
    for line in evidence.scontrol.text.splitlines():
        fields = scontrol_fields(line)
        # A rebuilt controller counts from 1 again: the number alone does not make it our job.
        if fields.get("JobId") != evidence.job_id or fields.get("JobName") != evidence.name:
            continue
        exit_code, signal = _exit_pair(fields.get("ExitCode", ""))
        why = fields.get("Reason", "None")
        return _View(
            "scontrol",
            fields.get("JobState", ""),
            why="" if why == "None" else why,
            exit_code=exit_code,
            signal=signal,
            nodes="" if fields.get("NodeList") in (None, "(null)") else fields["NodeList"],
            node_count=_count(fields.get("NumNodes", "")),
            started_at=_time(fields.get("StartTime")),
            ended_at=_time(fields.get("EndTime")),
            restarts=int(fields["Restarts"]) if fields.get("Restarts", "").isdigit() else None,
        )
    return None


def _squeue(evidence: Evidence) -> _View | None:
    if evidence.squeue is None or evidence.squeue.rc != 0:
        return None
    for line in evidence.squeue.text.splitlines():
        cells = line.split("|")
        if len(cells) == 6 and cells[0] == evidence.job_id and cells[1] == evidence.name:
            # squeue has no exit code: an end that it shows is not enough to call the job good or bad.
            view = _View("squeue", cells[2], why=cells[3], node_count=_count(cells[4]), nodes=cells[5])
            return view if view.state.alive else None
    return None


def _sacct(evidence: Evidence) -> _View | None:
    """Take the last row: ``sacct -D`` lists every run of a requeued job, oldest first."""
    if evidence.sacct is None or evidence.sacct.rc != 0:
        return None
    rows = [line.split("|") for line in evidence.sacct.text.splitlines()]
    rows = [r for r in rows if len(r) == 8 and r[0] == evidence.job_id and r[1] == evidence.name]
    if not rows:
        return None
    _, _, state, exit_text, start, end, node_count, nodes = rows[-1]
    words = state.split()
    exit_code, signal = _exit_pair(exit_text)
    return _View(
        "sacct",
        words[0].rstrip("+") if words else "",
        why=" ".join(words[1:]),
        exit_code=exit_code,
        signal=signal,
        nodes="" if nodes == "None assigned" else nodes,
        node_count=_count(node_count),
        started_at=_time(start),
        ended_at=_time(end),
        restarts=len(rows) - 1,
    )


def _verdict(evidence: Evidence) -> Resolution | None:
    if not evidence.verdict:
        return None
    try:
        value = json.loads(evidence.verdict)
        if str(value["job_id"]) != evidence.job_id:
            return None
        return Resolution(
            JobState(value["state"]),
            str(value["reason"]),
            exit_code=value["exit_code"],
            nodes=str(value["nodes"]),
            node_count=int(value["node_count"]),
            started_at=value["started_at"],
            ended_at=value["ended_at"],
            restarts=int(value["restarts"]),
        )
    except (ValueError, KeyError, TypeError):
        return None


def _forgotten(evidence: Evidence) -> bool:
    """The controller answered, and does not know the job."""
    answer = evidence.scontrol
    return answer is not None and answer.rc != 0 and "Invalid job id" in answer.text


def _ended_badly(exit_code: int) -> str:
    if 128 < exit_code <= 192:
        return f"its script was ended by signal {exit_code - 128}"
    return f"its script ended with {exit_code}"


def _exit_pair(text: str) -> tuple[int | None, int]:
    match = re.fullmatch(r"(\d+):(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (None, 0)


def _count(text: str) -> int:
    """Read ``NumNodes``; a waiting job may show a range such as ``1-4``, of which the lower end counts."""
    match = re.match(r"\d+", text)
    return int(match[0]) if match else 0


def _time(text: str | None) -> str | None:
    """Slurm's own time, asked for with TZ=UTC."""
    return f"{text}Z" if text and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", text) else None


def _short(text: str) -> str:
    line = " / ".join(text.split("\n")).strip(" /")
    return line if len(line) <= 300 else line[:300] + " ..."
