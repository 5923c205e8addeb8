"""What state a Slurm job is in, concluded from evidence and never guessed.

:func:`resolve` is a pure function of everything that was asked about one job: the exit file that the
job's wrapper wrote on the shared file system, the answers of ``scontrol``, ``squeue`` and (where
accounting exists) ``sacct``, and the verdict that an earlier look has recorded. Nothing counts as
success that was not seen to succeed; what nobody can tell is UNKNOWN.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from strandloop.job_record import JobRecord
from strandloop.slurm_evidence import Account, Evidence, read_exit_file, read_scheduler


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


#: Reasons for which a waiting job stays in the queue until somebody changes it. ``sbatch --hold``, which
#: the twin check needs, accepts jobs that no node can hold; without it sbatch refuses them.
NEVER_STARTS = {
    "BadConstraints": "no node of the partition can satisfy what it asks for",
    "DependencyNeverSatisfied": "the job that it depends on did not end as it should",
}


@dataclass(frozen=True)
class Resolution:
    """The state that the evidence supports, why, and what is known of the run. Times are ISO 8601 UTC.

    :param nodes: names as Slurm writes them, for example ``n[1-2]``.
    :param restarts: how often Slurm has started the job again.
    :param stuck: why Slurm will never start this waiting job; empty if it may.
    :param queued_at: since when a job waits that Slurm has put back into the queue.
    :param unfinished: elements of a job array that were not seen to succeed.
    :param witness: who says so: ``exit file``, ``scontrol``, ``squeue``, ``sacct`` or ``verdict``.
    """

    state: JobState
    reason: str
    exit_code: int | None = None
    nodes: str = ""
    node_count: int = 0
    started_at: str | None = None
    ended_at: str | None = None
    restarts: int = 0
    stuck: str = ""
    queued_at: str | None = None
    unfinished: tuple[int, ...] = ()
    witness: str = ""

    @property
    def fleeting(self) -> bool:
        """An end of which only the scheduler knows, and it forgets."""
        ended = self.state.failed or self.state is JobState.SUCCEEDED
        return ended and self.witness in ("scontrol", "squeue", "sacct")

    def applied_to(self, record: JobRecord) -> JobRecord:
        """Return a job's record with what is known of its run."""
        return replace(
            record,
            state=str(self.state),
            nodes=self.node_count if self.started_at else 0,
            started_at=self.started_at,
            ended_at=self.ended_at,
        )

    def to_verdict(self, job_id: str, *, index: int | None = None) -> str:
        """Write the conclusion down for later looks, when the scheduler has forgotten the job.

        :param index: of the element of a job array that it is about.
        """
        return json.dumps({"job_id": job_id, "index": index, **asdict(self)}) + "\n"


def resolve(evidence: Evidence) -> Resolution:
    """Conclude the state of a job from the evidence. Never raises; what cannot be told is UNKNOWN.

    A job that the scheduler holds alive outranks an exit file, because a requeued job leaves the file
    of its earlier run behind. Of a job that has ended, the exit file tells whether its script
    succeeded, and the scheduler why it did not. A failed job, and one whose script was signalled from
    outside, may be about to start again: without the scheduler's word the exit file of such a job counts
    only once the scheduler answers without knowing it.
    """
    report = read_exit_file(evidence)
    account = read_scheduler(evidence)
    if account is not None:
        stale = report is not None and (report.restarts or 0) < (account.restarts or 0)
        resolution = _weigh(account, None if stale else report, evidence)
        if resolution.state is not JobState.UNKNOWN and _final(account, resolution, evidence):
            return resolution
    if (verdict := _verdict(evidence)) is not None:
        return verdict
    if report is not None and (_unhurt(report) or evidence.forgotten):
        return _from_report(report, seen_completed=_unhurt(report))
    return _conclude(JobState.UNKNOWN, account, evidence.describe())


def _weigh(account: Account, report: Account | None, evidence: Evidence) -> Resolution:
    """Weigh the scheduler's account of a run against the wrapper's report of the same run."""
    state = SLURM_STATES.get(account.code, JobState.UNKNOWN)
    if state.alive:
        # Between its script's end and its own a job is COMPLETING, with slow epilogs for minutes. Success need
        # not wait for that; a failure does, for it may yet be requeued. Before it, while the job is still
        # RUNNING, the scheduler has not said whether a process of it was killed for its memory.
        if report is not None and _unhurt(report) and _completing_well(account):
            return _from_report(report)
        if state is JobState.PENDING and account.restarts:
            state = JobState.REQUEUED
        return _conclude(state, account)
    if report is not None:
        # Out of memory with exit code 0: a process of the job was killed and its script did not notice.
        if _unhurt(report) and state is not JobState.OUT_OF_MEMORY:
            return _from_report(report)
        if state is JobState.SUCCEEDED or (account.code == "FAILED" and report.exit_code):
            return replace(_from_report(report), witness=account.source)
        return _conclude(state, account, exit_code=report.exit_code)
    if state is JobState.SUCCEEDED and (account.exit_code != 0 or account.signal):
        # squeue shows COMPLETED without an exit code: seen to end, not seen to succeed.
        state = JobState.UNKNOWN if account.exit_code is None else JobState.FAILED
    elif state is JobState.SUCCEEDED and not evidence.has_begun(account.restarts):
        state = JobState.UNKNOWN  # COMPLETED with 0:0 is also a job whose script Slurm failed to start
    return _conclude(state, account)


def _final(account: Account, resolution: Resolution, evidence: Evidence) -> bool:
    """Whether the scheduler's word can be taken as it is; accounting's only of an end.

    It shows jobs running, or waiting to start again, that a controller lost: for ever. And it does not know
    what a controller that is down will do with a job whose node failed.
    """
    if account.source != "sacct" or resolution.state is JobState.SUCCEEDED:
        return True
    return resolution.state.failed and evidence.forgotten


def _completing_well(account: Account) -> bool:
    """The scheduler has taken note of the script's end, and of nothing bad (out of memory is signal 125)."""
    known = account.restarts is not None  # squeue does not tell which run it speaks of
    return account.code == "COMPLETING" and known and not account.exit_code and not account.signal


def _unhurt(report: Account) -> bool:
    """The script ended with 0, was not signalled from outside, and lost no process for its memory.

    One that was signalled may end with 0 because it has saved its state, to go on when it is started again.
    """
    return report.exit_code == 0 and not report.signal and not report.oom_kills


def _from_report(report: Account, *, seen_completed: bool = True) -> Resolution:
    """Conclude from the wrapper's report.

    :param seen_completed: whether exit code 0 means that the job came to its own end.
    """
    code = report.exit_code or 0
    if code == 0 and seen_completed and not report.oom_kills:
        return _conclude(JobState.SUCCEEDED, report, "its script ended with 0")
    words = f"was ended by signal {code - 128}" if 128 < code <= 192 else f"ended with {code}"
    words += " (often: out of memory)" if code == 137 else ""
    told = f", after SIG{report.signal} from outside" if report.signal else ""
    if report.oom_kills:
        words = f"lost {report.oom_kills} process(es) for their memory and {words}"
    state = JobState.OUT_OF_MEMORY if report.oom_kills else JobState.FAILED
    return _conclude(state, report, f"its script {words}{told}")


def _conclude(
    state: JobState, account: Account | None, reason: str = "", *, exit_code: int | None = None
) -> Resolution:
    if account is None:
        return Resolution(state, reason)
    if not reason:
        reason = f"{account.source} says {account.code}"
        reason += f" ({account.why})" if account.why else ""
        reason += f", signal {account.signal}" if account.signal else ""
    ended = not state.alive and state is not JobState.UNKNOWN
    code = exit_code if exit_code is not None else account.exit_code
    # Slurm writes 0:0 for a job that never came to an exit: cancelled, timed out, its node lost.
    known = ended and not (state.failed and code == 0)
    return Resolution(
        state,
        reason,
        exit_code=code if known else None,
        nodes=account.nodes,
        node_count=account.node_count,
        # Of a job that waits, Slurm shows when it expects to start it.
        started_at=account.started_at if state not in (JobState.PENDING, JobState.REQUEUED) else None,
        ended_at=account.ended_at if ended else None,
        restarts=account.restarts or 0,
        stuck=NEVER_STARTS.get(account.why, "") if state is JobState.PENDING else "",
        queued_at=account.queued_at if state is JobState.REQUEUED else None,
        witness=account.source,
    )


def _verdict(evidence: Evidence) -> Resolution | None:
    """Read what :meth:`Resolution.to_verdict` wrote about this job."""
    if not evidence.verdict:
        return None
    try:
        value = json.loads(evidence.verdict)
        if str(value.pop("job_id")) != evidence.job_id:
            return None
        value.pop("index", None)  # a verdict without one is about the whole array
        value |= {"unfinished": tuple(value.get("unfinished", ())), "witness": "verdict"}
        return Resolution(JobState(value.pop("state")), value.pop("reason"), **value)
    except (ValueError, KeyError, TypeError):
        return None
