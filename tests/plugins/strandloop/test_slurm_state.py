"""Table tests of the resolver. ``scontrol`` and ``sacct`` texts are recorded from Slurm 22.05.8."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from strandloop.slurm_evidence import Answer, Evidence
from strandloop.slurm_state import SLURM_STATES, JobState, resolve

NAME = "c68145c3-3aba-4e10-971b-e4b6047cb1cf"
FORGOTTEN = Answer(1, "slurm_load_jobs error: Invalid job id specified")
DOWN = Answer(1, "slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
NO_ACCOUNTING = Answer(1, "Slurm accounting storage is disabled")


def scontrol(state: str, *, restarts: int = 0, exit_code: str = "0:0", name: str = NAME) -> Answer:
    return Answer(
        0,
        f"JobId=7 JobName={name} UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=4294901759 Nice=0 "
        f"Account=(null) QOS=(null) JobState={state} Reason=None Dependency=(null) Requeue=1 "
        f"Restarts={restarts} BatchFlag=1 Reboot=0 ExitCode={exit_code} RunTime=00:00:01 "
        "TimeLimit=UNLIMITED SubmitTime=2026-11-21T10:04:08 StartTime=2026-11-21T10:04:09 EndTime=Unknown "
        "Partition=main NodeList=n[1-2] BatchHost=n1 NumNodes=2 NumCPUs=2 Comment=JobState=COMPLETED x  "
        "StdErr=/fsx/job.log StdIn=/dev/null StdOut=/fsx/job.log Power= ",
    )


def exit_file(code: int, *, told: str = "", restarts: int = 0, job_id: str = "7", oom_kills: int = 0) -> str:
    value = {"job_id": job_id, "exit_code": code, "signal": None, "told": told, "restart_count": restarts}
    value["oom_kills"] = oom_kills
    times = {"started_at": "2026-11-21T10:04:09Z", "ended_at": "2026-11-21T10:05:00Z"}
    return json.dumps({**value, **times, "hosts": "n[1-2]", "nodes": 2}) + "\n"


def state(**evidence: object) -> JobState:
    evidence = {"began": "7 - 0\n7 - 1\n", **evidence}
    return resolve(Evidence("7", NAME, **evidence)).state  # type: ignore[arg-type]


def test_every_state_code_of_slurm_has_its_meaning() -> None:
    seen = {code: state(scontrol=scontrol(code)) for code in SLURM_STATES}
    assert seen == SLURM_STATES
    assert {code for code, meaning in seen.items() if meaning is JobState.SUCCEEDED} == {"COMPLETED"}


def test_a_state_code_that_nobody_knows_is_unknown() -> None:
    assert state(scontrol=scontrol("HIBERNATING")) is JobState.UNKNOWN


@pytest.mark.parametrize(
    ("expected", "evidence"),
    [
        # A script may fail to notice that a process of it was killed, and so may a controller that forgot.
        (JobState.OUT_OF_MEMORY, {"exit_file": exit_file(0, oom_kills=1), "scontrol": FORGOTTEN}),
        (JobState.OUT_OF_MEMORY, {"exit_file": exit_file(0, oom_kills=1), "scontrol": scontrol("COMPLETED")}),
        (JobState.OUT_OF_MEMORY, {"exit_file": exit_file(1, oom_kills=1), "scontrol": FORGOTTEN}),
        # Nothing was seen: never success.
        (JobState.UNKNOWN, {}),
        (JobState.UNKNOWN, {"scontrol": FORGOTTEN, "squeue": Answer(0, ""), "sacct": NO_ACCOUNTING}),
        (JobState.UNKNOWN, {"scontrol": DOWN, "squeue": DOWN, "sacct": NO_ACCOUNTING}),
        (JobState.UNKNOWN, {"scontrol": Answer(0, "")}),
        (JobState.UNKNOWN, {"scontrol": Answer(0, "\x00garbage JobState=COMPLETED")}),
        (JobState.UNKNOWN, {"scontrol": Answer(124, "")}),
        (JobState.UNKNOWN, {"exit_file": '{"job_id": "7", "exit_co', "scontrol": FORGOTTEN}),
        # The number belongs to another job: the controller was rebuilt and counts from 1 again.
        (JobState.UNKNOWN, {"scontrol": scontrol("COMPLETED", name="another")}),
        (JobState.UNKNOWN, {"exit_file": exit_file(0, job_id="8"), "scontrol": FORGOTTEN}),
        (JobState.SUCCEEDED, {"exit_file": exit_file(0), "scontrol": scontrol("FAILED", name="another")}),
        # The exit file speaks for a job that is over.
        (JobState.SUCCEEDED, {"exit_file": exit_file(0), "scontrol": FORGOTTEN}),
        (JobState.SUCCEEDED, {"exit_file": exit_file(0), "scontrol": DOWN}),
        (JobState.SUCCEEDED, {"exit_file": exit_file(0), "scontrol": scontrol("COMPLETING")}),
        # Cancelled, or its node lost, between the script's own end and the wrapper's.
        (JobState.SUCCEEDED, {"exit_file": exit_file(0), "scontrol": scontrol("CANCELLED")}),
        (JobState.SUCCEEDED, {"exit_file": exit_file(0), "scontrol": scontrol("NODE_FAIL")}),
        (JobState.FAILED, {"exit_file": exit_file(3), "scontrol": FORGOTTEN}),
        (JobState.FAILED, {"exit_file": exit_file(3), "scontrol": scontrol("FAILED", exit_code="3:0")}),
        (JobState.FAILED, {"exit_file": exit_file(3), "scontrol": scontrol("COMPLETED")}),
        (JobState.OUT_OF_MEMORY, {"exit_file": exit_file(0), "scontrol": scontrol("OUT_OF_MEMORY")}),
        # A failure waits for the scheduler, which may start the job again.
        (JobState.RUNNING, {"exit_file": exit_file(143, told="TERM"), "scontrol": scontrol("COMPLETING")}),
        (JobState.RUNNING, {"exit_file": exit_file(3), "scontrol": scontrol("COMPLETING")}),
        (JobState.UNKNOWN, {"exit_file": exit_file(3), "scontrol": DOWN}),
        (JobState.UNKNOWN, {"exit_file": exit_file(3), "scontrol": Answer(0, "garbage")}),
        (JobState.UNKNOWN, {"exit_file": exit_file(3), "scontrol": Answer(124, "JobId=7 JobSt")}),
        (JobState.UNKNOWN, {"exit_file": exit_file(143, told="TERM"), "scontrol": DOWN}),
        (JobState.FAILED, {"exit_file": exit_file(143, told="TERM"), "scontrol": FORGOTTEN}),
        (JobState.CANCELLED, {"exit_file": exit_file(143, told="TERM"), "scontrol": scontrol("CANCELLED")}),
        (JobState.TIMEOUT, {"exit_file": exit_file(143, told="TERM"), "scontrol": scontrol("TIMEOUT")}),
        # A script that was signalled and ended with 0 has saved its state, and is not done.
        (JobState.CANCELLED, {"exit_file": exit_file(0, told="TERM"), "scontrol": scontrol("CANCELLED")}),
        (JobState.TIMEOUT, {"exit_file": exit_file(0, told="TERM"), "scontrol": scontrol("TIMEOUT")}),
        (JobState.NODE_FAILED, {"exit_file": exit_file(0, told="TERM"), "scontrol": scontrol("NODE_FAIL")}),
        (JobState.FAILED, {"exit_file": exit_file(0, told="TERM"), "scontrol": scontrol("PREEMPTED")}),
        (JobState.RUNNING, {"exit_file": exit_file(0, told="USR1"), "scontrol": scontrol("COMPLETING")}),
        (JobState.UNKNOWN, {"exit_file": exit_file(0, told="USR1"), "scontrol": DOWN}),
        (JobState.FAILED, {"exit_file": exit_file(0, told="USR1"), "scontrol": FORGOTTEN}),
        (JobState.SUCCEEDED, {"exit_file": exit_file(0, told="USR1"), "scontrol": scontrol("COMPLETED")}),
        (
            JobState.REQUEUED,
            {"exit_file": exit_file(0, told="USR1"), "scontrol": scontrol("PENDING", restarts=1)},
        ),
        # What Slurm knows of the failure outranks the exit code that it left.
        (JobState.OUT_OF_MEMORY, {"exit_file": exit_file(137), "scontrol": scontrol("OUT_OF_MEMORY")}),
        (JobState.NODE_FAILED, {"exit_file": exit_file(1), "scontrol": scontrol("NODE_FAIL")}),
        (JobState.CANCELLED, {"exit_file": exit_file(1), "scontrol": scontrol("CANCELLED")}),
        (JobState.TIMEOUT, {"exit_file": exit_file(1), "scontrol": scontrol("DEADLINE")}),
        # A requeued job leaves the exit file of its earlier run behind.
        (JobState.REQUEUED, {"exit_file": exit_file(1), "scontrol": scontrol("PENDING", restarts=1)}),
        (JobState.REQUEUED, {"exit_file": exit_file(0), "scontrol": scontrol("PENDING", restarts=1)}),
        (JobState.RUNNING, {"exit_file": exit_file(0), "scontrol": scontrol("RUNNING", restarts=1)}),
        (
            JobState.SUCCEEDED,
            {"exit_file": exit_file(0, restarts=1), "scontrol": scontrol("COMPLETING", restarts=1)},
        ),
        # A script may not notice that one of its processes was killed for its memory; Slurm does.
        (JobState.RUNNING, {"exit_file": exit_file(0), "scontrol": scontrol("RUNNING")}),
        (
            JobState.RUNNING,
            {"exit_file": exit_file(0), "scontrol": scontrol("COMPLETING", exit_code="0:125")},
        ),
        (JobState.NODE_FAILED, {"exit_file": exit_file(0), "scontrol": scontrol("NODE_FAIL", restarts=1)}),
        # Without an exit file the scheduler speaks alone.
        (JobState.SUCCEEDED, {"scontrol": scontrol("COMPLETED")}),
        # Slurm says the same of a job whose script it could not start.
        (JobState.UNKNOWN, {"scontrol": scontrol("COMPLETED"), "began": ""}),
        (JobState.UNKNOWN, {"scontrol": scontrol("COMPLETED"), "began": "6 - 0\n7 3 0\n"}),
        (JobState.UNKNOWN, {"scontrol": scontrol("COMPLETED", restarts=1), "began": "7 - 0\n"}),
        (JobState.FAILED, {"scontrol": scontrol("COMPLETED", exit_code="0:15")}),
        (JobState.FAILED, {"scontrol": scontrol("FAILED", exit_code="1:0")}),
        # squeue shows that a job lives; that it ended is no proof of how.
        (JobState.RUNNING, {"scontrol": DOWN, "squeue": Answer(0, f"7|N/A|{NAME}|RUNNING|None|2|n[1-2]")}),
        (JobState.UNKNOWN, {"scontrol": DOWN, "squeue": Answer(0, f"7|N/A|{NAME}|COMPLETED|None|2|n[1-2]")}),
        (JobState.UNKNOWN, {"scontrol": DOWN, "squeue": Answer(0, "7|N/A|another|RUNNING|None|2|n[1-2]")}),
    ],
)
def test_evidence_is_weighed(expected: JobState, evidence: dict[str, object]) -> None:
    assert state(**evidence) is expected


@pytest.mark.parametrize(
    ("expected", "rows"),
    [
        (JobState.SUCCEEDED, ["COMPLETED|0:0"]),
        (JobState.SUCCEEDED, ["NODE_FAIL|0:0", "COMPLETED|0:0"]),
        (JobState.CANCELLED, ["CANCELLED by 1000|0:0"]),
        (JobState.CANCELLED, ["CANCELLED+|0:0"]),
        (JobState.FAILED, ["COMPLETED|0:0", "FAILED|2:0"]),
        # What the controller has lost runs, or waits to start again, in accounting for ever.
        (JobState.UNKNOWN, ["NODE_FAIL|0:0", "RUNNING|0:0"]),
        (JobState.UNKNOWN, ["REQUEUED|0:0"]),
        (JobState.UNKNOWN, []),
    ],
)
def test_accounting_speaks_of_the_last_run_when_the_controller_has_forgotten(
    expected: JobState, rows: list[str]
) -> None:
    times = "2026-11-21T10:04:09|2026-11-21T10:05:00|2|n[1-2]"
    text = "\n".join(f"7|{NAME}|{row}|{times}" for row in rows)
    assert state(scontrol=FORGOTTEN, squeue=FORGOTTEN, sacct=Answer(0, text)) is expected


@pytest.mark.parametrize(
    ("expected", "state_and_reason", "exit_code", "reports"),
    [
        (JobState.CANCELLED, "CANCELLED Reason=None", "0:15", [None, (143, "TERM"), (0, "TERM")]),
        (JobState.TIMEOUT, "TIMEOUT Reason=TimeLimit", "0:0", [None, (143, "TERM"), (0, "TERM"), (1, "")]),
        (JobState.OUT_OF_MEMORY, "OUT_OF_MEMORY Reason=OutOfMemory", "0:125", [None, (137, ""), (0, "")]),
        (JobState.NODE_FAILED, "NODE_FAIL Reason=NodeDown", "0:0", [None, (143, "TERM"), (0, "TERM")]),
        (JobState.FAILED, "PREEMPTED Reason=None", "0:0", [None, (143, "TERM"), (0, "TERM")]),
        (JobState.TIMEOUT, "DEADLINE Reason=DeadLine", "0:0", [None, (143, "TERM")]),
        (JobState.NODE_FAILED, "BOOT_FAIL Reason=None", "0:0", [None]),
    ],
)
@pytest.mark.parametrize("fields", ["", "StepMgrEnabled=Yes "], ids=["22.05", "25.11"])
def test_endings_are_red_for_the_right_reason_whatever_the_exit_file_says(
    expected: JobState,
    state_and_reason: str,
    exit_code: str,
    reports: list[tuple[int, str] | None],
    fields: str,
) -> None:
    """Without accounting: scontrol and the exit file are all there is."""
    said = Answer(
        0,
        f"JobId=7 JobName={NAME} UserId=ec2-user(1000) GroupId=ec2-user(1000) MCS_label=N/A Priority=1 Nice=0 "
        f"Account=(null) QOS=normal JobState={state_and_reason} Dependency=(null) Requeue=1 Restarts=0 "
        f"BatchFlag=1 Reboot=0 ExitCode={exit_code} RunTime=00:01:00 TimeLimit=00:01:00 TimeMin=N/A "
        "SubmitTime=2026-11-21T10:04:08 StartTime=2026-11-21T10:04:09 EndTime=2026-11-21T10:05:09 "
        f"NodeList=compute-st-[1-2] BatchHost=compute-st-1 {fields}NumNodes=2",
    )
    for report in reports:
        left = None if report is None else exit_file(report[0], told=report[1])
        assert state(scontrol=said, exit_file=left) is expected


def test_accounting_alone_cannot_say_that_a_job_will_not_start_again() -> None:
    """A controller that is down may put a job back whose node failed."""
    row = Answer(0, f"7|{NAME}|NODE_FAIL|0:0|2026-11-21T10:04:09|2026-11-21T10:05:00|2|n[1-2]")
    assert state(scontrol=DOWN, squeue=DOWN, sacct=row) is JobState.UNKNOWN
    assert state(scontrol=FORGOTTEN, squeue=FORGOTTEN, sacct=row) is JobState.NODE_FAILED


def test_of_a_requeued_job_it_is_known_since_when_it_waits() -> None:
    waiting = resolve(Evidence("7", NAME, scontrol=scontrol("PENDING", restarts=1)))
    assert (waiting.state, waiting.queued_at) == (JobState.REQUEUED, "2026-11-21T10:04:08Z")


def test_an_element_of_an_array_is_never_taken_for_a_job() -> None:
    line = f"JobId=7 ArrayJobId=7 ArrayTaskId=3 JobName={NAME} JobState=COMPLETED ExitCode=0:0"
    assert state(scontrol=Answer(0, line)) is JobState.UNKNOWN
    assert state(scontrol=DOWN, squeue=Answer(0, f"7|3|{NAME}|RUNNING|None|1|n1")) is JobState.UNKNOWN
    times = "2026-11-21T10:04:09|2026-11-21T10:05:00|2|n1"
    assert state(scontrol=FORGOTTEN, sacct=Answer(0, f"7_3|{NAME}|COMPLETED|0:0|{times}")) is JobState.UNKNOWN


def test_a_verdict_speaks_for_a_job_that_everybody_else_has_forgotten() -> None:
    seen = resolve(Evidence("7", NAME, scontrol=scontrol("NODE_FAIL", exit_code="0:0")))
    later = Evidence("7", NAME, scontrol=FORGOTTEN, verdict=seen.to_verdict("7"))
    assert resolve(later) == replace(seen, witness="verdict")
    assert resolve(Evidence("8", NAME, scontrol=FORGOTTEN, verdict=seen.to_verdict("7"))).state == "UNKNOWN"


def test_what_is_known_of_the_run_comes_along() -> None:
    run = resolve(Evidence("7", NAME, exit_file=exit_file(3), scontrol=scontrol("FAILED", exit_code="3:0")))
    assert (run.exit_code, run.nodes, run.node_count) == (3, "n[1-2]", 2)
    assert (run.started_at, run.ended_at) == ("2026-11-21T10:04:09Z", "2026-11-21T10:05:00Z")
    assert resolve(Evidence("7", NAME, scontrol=scontrol("PENDING"))).started_at is None


def test_unknown_says_what_was_asked_and_what_answered() -> None:
    reason = resolve(
        Evidence("7", NAME, scontrol=FORGOTTEN, squeue=Answer(0, ""), sacct=NO_ACCOUNTING)
    ).reason
    assert "exit file: none" in reason
    assert "scontrol: exit status 1, slurm_load_jobs error: Invalid job id specified" in reason
    assert "squeue: exit status 0, no text" in reason
    assert "sacct: exit status 1, Slurm accounting storage is disabled" in reason
