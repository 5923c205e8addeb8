"""Waiting, played through with recorded answers and a clock of our own."""

from __future__ import annotations

import pytest

from strandloop.errors import JobFailed, JobTimeout, StateUnknown, SubmitRefused
from strandloop.hooks.slurm import Completed
from strandloop.job_record import JobRecord, iso_utc
from strandloop.slurm_commands import Command
from strandloop.slurm_waiting import settle
from strandloop.slurm_watch import LOG_PIECE, Outcome, SlurmWatch, WatchPlan

NAME = "c68145c3-3aba-4e10-971b-e4b6047cb1cf"
RECORD = JobRecord("slurm", "7", NAME, "PENDING", iso_utc(1000), 1, cluster="c@t", job_dir="/fsx/j/1")
FORGOTTEN = b"\n@scontrol 1\nslurm_load_jobs error: Invalid job id specified\n"


def answer(
    state: str = "", *, log: bytes = b"", offset: int = 0, reason: str = "None", start: str = "Unknown"
) -> bytes:
    job = (
        f"JobId=7 JobName={NAME} JobState={state} Reason={reason} Restarts=0 ExitCode=0:0 "
        f"StartTime={start} EndTime=Unknown NodeList=n1 NumNodes=1"
    )
    scontrol = f"\n@scontrol 0\n{job}\n".encode() if state else FORGOTTEN
    return scontrol + b"\n@log %d\n" % offset + log + b"\n@end 0\n"


def watch(said: list[str], **limits: float) -> SlurmWatch:
    return SlurmWatch(WatchPlan(RECORD.to_xcom(), reader="r", **limits), log=said.append)  # type: ignore[arg-type]


def asked_offset(command: Command) -> str:
    return command.args[7]


def test_passes_the_log_on_once_and_ends_with_the_record() -> None:
    said: list[str] = []
    waiting = watch(said)
    assert asked_offset(waiting.command()) == ""
    assert waiting.observe(answer("PENDING", reason="Resources"), now=1001) is None
    assert waiting.observe(answer("RUNNING", log=b"one\ntw"), now=1002) is None
    assert asked_offset(waiting.command()) == "4"
    outcome = waiting.observe(
        answer("COMPLETED", log=b"two", offset=4, start="1970-01-01T00:16:42"), now=1003
    )
    assert outcome is not None and outcome.state == "SUCCEEDED"
    assert outcome.record["started_at"] == "1970-01-01T00:16:42Z" and outcome.record["nodes"] == 1
    assert [line for line in said if "Slurm job" not in line] == ["one", "two"]
    assert said[0] == "Slurm job 7 is PENDING: scontrol says PENDING (Resources), on n1"


def test_reads_a_long_log_to_its_end_before_it_ends() -> None:
    waiting = watch([])
    assert waiting.observe(answer("COMPLETED", log=b"x\n" * (LOG_PIECE // 2)), now=1) is None
    assert waiting.pause() == 0.0
    assert waiting.observe(answer("COMPLETED", offset=LOG_PIECE), now=2) is not None


def test_another_process_goes_on_where_the_cluster_says() -> None:
    said: list[str] = []
    waiting = watch(said)
    waiting.observe(answer("RUNNING", log=b"three\n", offset=8), now=1)
    assert said[0] == "three" and asked_offset(waiting.command()) == "14"


def test_unknown_is_waited_out_and_says_what_was_asked() -> None:
    waiting = watch([], unknown_timeout_seconds=60)
    assert waiting.observe(answer(), now=100) is None
    assert waiting.unanswered("connection refused", now=130) is None
    assert waiting.observe(answer("RUNNING"), now=159) is None
    for now in (200, 259):
        assert waiting.observe(answer(), now=now) is None
    outcome = waiting.observe(answer(), now=261)
    assert outcome is not None and outcome.state == "UNKNOWN"
    assert "61 s (3 looks)" in outcome.reason and "Invalid job id" in outcome.reason


def test_one_long_gap_is_not_enough_to_call_a_job_unknown() -> None:
    waiting = watch([], unknown_timeout_seconds=60)
    assert waiting.observe(answer(), now=100) is None
    assert waiting.observe(answer(), now=1000) is None


def test_an_answer_that_was_cut_is_no_answer() -> None:
    waiting = watch([], unknown_timeout_seconds=0)
    for _ in range(2):
        assert waiting.observe(b"\n@scontrol 0\nJobId=7 JobNa", now=1) is None
    outcome = waiting.observe(b"", now=2)
    assert outcome is not None and "cut answer" in outcome.reason


def test_limits_count_from_what_slurm_and_the_record_say() -> None:
    queue = watch([], queue_timeout_seconds=60, run_timeout_seconds=30)
    assert queue.observe(answer("PENDING"), now=1059) is None
    outcome = queue.observe(answer("PENDING"), now=1061)
    assert (
        outcome is not None and outcome.limit == "queue" and "waited in the queue for 61 s" in outcome.reason
    )
    # Started at 1065 s: the time in the queue does not count.
    run = watch([], queue_timeout_seconds=60, run_timeout_seconds=30)
    assert run.observe(answer("RUNNING", start="1970-01-01T00:17:45"), now=1094) is None
    outcome = run.observe(answer("RUNNING", start="1970-01-01T00:17:45"), now=1095)
    assert outcome is not None and outcome.limit == "run"


def test_a_job_that_slurm_will_never_start_is_not_waited_for() -> None:
    outcome = watch([]).observe(answer("PENDING", reason="BadConstraints"), now=1001)
    assert outcome is not None and outcome.limit == "never"
    with pytest.raises(SubmitRefused, match=r"no node of the partition can satisfy.*it was cancelled"):
        settle(nothing, outcome)


def outcome_of(state: str, **fields: object) -> Outcome:
    return Outcome(RECORD.to_xcom(), state, "because", **fields)  # type: ignore[arg-type]


def test_an_outcome_comes_back_from_the_event_as_it_went() -> None:
    outcome = outcome_of("FAILED", exit_code=3, nodes="n1", last_lines=("a", "b"))
    assert Outcome.from_event(outcome.to_event()) == outcome


def nothing(command: Command) -> Completed:
    """A login node where nothing lives, nothing is known, and a log is shown."""
    words = " ".join(command.args)
    if "squeue --noheader --states=all" in words:
        return Completed(0, FORGOTTEN + b"\n@log 0\n\n@end 0\n", b"")
    return Completed(0, b"" if "squeue" in command.args else b"last\nwords\n", b"")


def test_settling_gives_the_record_or_says_why_not() -> None:
    assert settle(nothing, outcome_of("SUCCEEDED")) == RECORD.to_xcom()
    with pytest.raises(JobFailed, match=r"OUT_OF_MEMORY: because; exit code 137; on n1(.|\n)*\| a") as failed:
        settle(nothing, outcome_of("OUT_OF_MEMORY", exit_code=137, nodes="n1", last_lines=("a",)))
    assert failed.value.exit_code == 137
    with pytest.raises(StateUnknown, match="because"):
        settle(nothing, outcome_of("UNKNOWN"))


def test_at_a_limit_the_job_is_cancelled() -> None:
    ran: list[tuple[str, ...]] = []

    def run(command: Command) -> Completed:
        ran.append(command.args)
        return nothing(command)

    with pytest.raises(JobTimeout, match=r"because; it was cancelled(.|\n)*\| words"):
        settle(run, outcome_of("RUNNING", limit="run"))
    assert ran[0][-2:] == ("scancel", f"--name={NAME}")
