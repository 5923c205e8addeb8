"""Waiting, played through with recorded answers and a clock of our own."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from strandloop.errors import ConnectionBroken, JobFailed, JobTimeout, StateUnknown, SubmitRefused
from strandloop.hooks.slurm import Completed
from strandloop.job_record import JobRecord, iso_utc
from strandloop.slurm_commands import Command
from strandloop.slurm_outcome import Outcome
from strandloop.slurm_waiting import cancel, settle
from strandloop.slurm_watch import LOG_PIECE, SlurmWatch, WatchPlan

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
    return scontrol + b"\n@began 0\n7 - 0\n\n@log %d\n" % offset + log + b"\n@end 0\n"


ARRAY = replace(RECORD, array="0-2%2")


def element(index: int | str, state: str, *, code: str = "0:0", start: str = "Unknown") -> str:
    return (
        f"JobId=9 ArrayJobId=7 ArrayTaskId={index} JobName={NAME} JobState={state} Reason=None Restarts=0 "
        f"ExitCode={code} StartTime={start} EndTime=Unknown NodeList=n1 NumNodes=1\n"
    )


def elements(*lines: str, verdicts: str = "") -> bytes:
    text = "".join(lines)
    files = f"\n@exit 0\n\n@began 0\n7 0 0\n7 1 0\n7 2 0\n\n@verdict 0\n{verdicts}\n@log 0\n"
    return f"\n@scontrol 0\n{text}{files}\n@end 0\n".encode()


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


def test_the_cluster_is_told_how_far_the_log_was_passed_on() -> None:
    waiting = watch([])
    assert waiting.bookmark() is None
    waiting.observe(answer("RUNNING", log=b"one\ntw"), now=1)
    told = waiting.bookmark()
    assert told is not None and told.args[4:] == ("/fsx/j/1/read.r",) and told.stdin == b"4"
    assert waiting.bookmark() is None
    waiting.observe(answer("RUNNING", offset=4), now=2)
    assert waiting.bookmark() is None


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


def test_a_job_that_was_put_back_has_its_own_time_in_the_queue() -> None:
    waiting = watch([], queue_timeout_seconds=60)
    put_back = answer("PENDING").replace(b"Restarts=0", b"Restarts=1 SubmitTime=1970-01-01T01:00:00")
    assert waiting.observe(put_back, now=3659) is None
    outcome = waiting.observe(put_back, now=3661)
    assert outcome is not None and outcome.limit == "queue" and "for 61 s" in outcome.reason


def test_another_cluster_that_answers_is_no_answer() -> None:
    waiting = watch([], unknown_timeout_seconds=0)
    other = answer("COMPLETED").replace(b"\n@log", b"\n@config 0\nClusterName = d\n\n@log")
    assert "cluster" in waiting.command().args[9]
    assert waiting.observe(other, now=1) is None and waiting.observe(other, now=2) is None
    outcome = waiting.observe(other, now=3)
    assert outcome is not None and outcome.state == "UNKNOWN"
    assert "submitted to cluster 'c', and the connection leads to cluster 'd'" in outcome.reason
    same = answer("RUNNING").replace(b"\n@log", b"\n@config 0\nClusterName = c\nBOOT_TIME = later\n\n@log")
    assert waiting.observe(same, now=4) is None
    assert "cluster" not in waiting.command().args[9]


def test_witnesses_are_asked_after_a_look_that_found_nothing_out() -> None:
    waiting = watch([])
    assert "doubt" not in waiting.command().args[9]
    waiting.observe(answer(), now=1)
    assert "doubt" in waiting.command().args[9]


def test_a_file_system_that_hangs_ends_no_job_that_lives_and_no_wait_for_one_that_does_not() -> None:
    waiting = watch([], unknown_timeout_seconds=0)
    hangs = answer("RUNNING").replace(b"@end 0", b"@end 137")
    assert [waiting.observe(hangs, now=now) for now in range(5)] == [None] * 5
    ended = answer("COMPLETED").replace(b"@end 0", b"@end 137")
    outcomes = [waiting.observe(ended, now=now) for now in range(5, 8)]
    assert outcomes[:2] == [None, None] and outcomes[2] is not None
    assert "COMPLETED" not in outcomes[2].state and "file system does not answer" in outcomes[2].reason


def test_a_log_that_was_cut_is_told_and_read_again() -> None:
    said: list[str] = []
    waiting = watch(said)
    waiting.observe(answer("RUNNING", log=b"one\ntwo\n"), now=1)
    waiting.observe(answer("RUNNING", log=b"new\n", offset=0), now=2)
    assert said[-2:] == ["the log of the job was cut or replaced; it is read from its start again", "new"]
    assert asked_offset(waiting.command()) == "4"


def test_progress_is_shown_at_a_pace() -> None:
    said: list[str] = []
    waiting = watch(said)
    for now, percent in ((1, 1), (2, 2), (3, 50)):
        progress = b'\n@progress 0\n{"percent": %d} \n@log' % percent
        waiting.observe(answer("RUNNING").replace(b"\n@log", progress), now=now)
    assert [line for line in said if line.startswith("progress")] == [
        "progress: 1.0 % done", "progress: 50.0 % done",
    ]  # fmt: skip


def test_a_connection_that_broke_in_the_middle_of_a_long_log_is_not_hammered() -> None:
    waiting = watch([])
    waiting.observe(answer("RUNNING", log=b"x\n" * (LOG_PIECE // 2)), now=1)
    assert waiting.pause() == 0.0 and waiting.behind
    waiting.unanswered("connection refused", now=2)
    assert waiting.pause() > 0.0 and not waiting.behind


def array_watch(said: list[str], **limits: float) -> SlurmWatch:
    return SlurmWatch(WatchPlan(ARRAY.to_xcom(), reader="r", **limits), log=said.append)  # type: ignore[arg-type]


def test_an_array_is_followed_by_its_elements() -> None:
    said: list[str] = []
    waiting = array_watch(said)
    waiting.observe(elements(element("0-2%2", "PENDING")), now=1)
    failed = element(0, "FAILED", code="4:0")
    waiting.observe(elements(element(2, "PENDING"), element(1, "RUNNING"), failed), now=2)
    waiting.observe(elements(element(2, "PENDING"), element(1, "RUNNING"), failed), now=3)
    outcome = waiting.observe(elements(element(2, "COMPLETED"), element(1, "COMPLETED"), failed), now=4)
    assert said == [
        "Slurm job 7 is PENDING: 3 PENDING",
        "Slurm job array 7, elements 0 FAILED: scontrol says FAILED, exit code 4, on n1",
        "Slurm job 7 is RUNNING: 1 FAILED, 1 RUNNING, 1 PENDING",
        "Slurm job 7 is FAILED: 1 of 3 elements did not succeed: 0 FAILED: scontrol says FAILED, exit code 4, "
        "on n1",
    ]
    # The ends of 1 and 2, which left no exit file, are kept before the wait ends.
    assert outcome is None and waiting.pause() == 0.0
    kept = waiting.command().stdin.decode()
    outcome = waiting.observe(elements(element(2, "COMPLETED"), failed, verdicts=kept), now=5)
    assert outcome is not None and (outcome.state, outcome.unfinished) == ("FAILED", (0,))
    assert Outcome.from_event(outcome.to_event()) == outcome
    assert waiting.closing(outcome).args[-1] == "job.0.log"


def test_the_end_of_an_element_is_kept_before_slurm_forgets_it() -> None:
    first = array_watch([])
    first.observe(elements(element("1-2", "PENDING"), element(0, "NODE_FAIL")), now=1)
    assert first.pause() == 0.0
    kept = first.command().stdin.decode()
    # Another process, after Slurm has forgotten the element.
    said: list[str] = []
    second = array_watch(said)
    second.observe(elements(element("1-2", "PENDING"), verdicts=kept), now=2)
    assert said[0] == "Slurm job array 7, elements 0 NODE_FAILED: scontrol says NODE_FAIL, on n1"
    assert second.command().stdin == b""


def test_a_verdict_that_cannot_be_written_does_not_keep_the_wait_from_ending() -> None:
    waiting = array_watch([])
    ended = elements(element("0-2", "CANCELLED"))
    assert waiting.observe(ended, now=1) is None
    waiting.command()
    assert waiting.observe(ended, now=2) is not None


def test_an_array_without_one_of_its_elements_is_never_green() -> None:
    waiting = array_watch([], unknown_timeout_seconds=0)
    waiting.observe(elements(element(0, "COMPLETED"), element(1, "COMPLETED")), now=1)
    waiting.command()
    outcome = None
    for now in range(2, 5):
        outcome = waiting.observe(elements(element(0, "COMPLETED"), element(1, "COMPLETED")), now=now)
    assert outcome is not None and outcome.state == "UNKNOWN" and "2 UNKNOWN" in outcome.reason


def test_limits_of_an_array() -> None:
    """In the queue until the first element starts; running, each element from its own start."""
    waiting = array_watch([], queue_timeout_seconds=60, run_timeout_seconds=30)
    assert waiting.observe(elements(element("0-2", "PENDING")), now=1059) is None
    late = element(0, "RUNNING", start="1970-01-01T00:33:20")  # 2000 s
    assert waiting.observe(elements(element("1-2", "PENDING"), late), now=2029) is None
    outcome = waiting.observe(elements(element("1-2", "PENDING"), late), now=2030)
    assert (
        outcome is not None and outcome.limit == "run" and "one of its elements was running" in outcome.reason
    )
    queue = array_watch([], queue_timeout_seconds=60)
    outcome = queue.observe(elements(element("0-2", "PENDING")), now=1060)
    assert outcome is not None and outcome.limit == "queue"


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


def test_events_of_other_versions_are_accepted() -> None:
    event = outcome_of("FAILED", exit_code=3, last_lines=("a",)).to_event()
    old = {name: value for name, value in event.items() if name != "unfinished"}
    assert Outcome.from_event({**old, "of a later version": 1}) == outcome_of(
        "FAILED", exit_code=3, last_lines=("a",)
    )


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


def test_a_job_that_succeeded_as_it_was_cancelled_has_succeeded() -> None:
    report = {
        "job_id": "7", "index": None, "exit_code": 0, "signal": None, "told": "", "hosts": "n1", "nodes": 1,
        "started_at": "a", "ended_at": "b", "restart_count": 0,
    }  # fmt: skip

    def run(command: Command) -> Completed:
        if "strandloop" in command.args and "/fsx/j/1" in command.args and "settle" in command.args:
            return Completed(
                0, FORGOTTEN + f"\n@exit 0\n{json.dumps(report)}\n\n@log 0\n\n@end 0\n".encode(), b""
            )
        return nothing(command)

    record = settle(run, outcome_of("RUNNING", limit="run"))
    assert (record["state"], record["ended_at"]) == ("SUCCEEDED", "b")


def test_one_empty_answer_of_the_queue_does_not_make_a_job_gone() -> None:
    answers = [b"", b"7|RUNNING|None\n", b"", ConnectionBroken("cut"), b"", b"", b""]
    cancelled: list[str] = []

    def run(command: Command) -> Completed:
        if "scancel" in command.args:
            cancelled.append(command.args[-1])
            return Completed(0, b"", b"")
        found = answers.pop(0)
        if isinstance(found, ConnectionBroken):
            raise found
        return Completed(0, found, b"")

    assert cancel(run, "one", "two", patience=60)
    assert answers == [] and cancelled == ["--name=one", "--name=two"] * 7
