"""Submitting at most once. The commands run for real, in front of a toy of a Slurm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from strandloop.errors import ConnectionBroken, InvalidJob, StateUnknown, SubmitRefused
from strandloop.hooks.slurm import Completed
from strandloop.slurm_commands import Command
from strandloop.slurm_state import JobState, Resolution
from strandloop.slurm_submission import Remembered
from strandloop.slurm_submitter import Submitter
from tests.plugins.strandloop.toy_slurm import NAME, Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def broken(when: str, words: str) -> Callable[[str, str], None]:
    """Break the connection once, before or after the first command with these words."""
    left = [1]

    def breaks(now: str, command: str) -> None:
        if left and now == when and words in command:
            left.clear()
            raise ConnectionBroken("cut")

    return breaks


def test_submits_held_looks_and_releases(cluster: Cluster) -> None:
    record = cluster.ensure()
    assert (record.id, record.name, record.attempt, record.state) == ("1", NAME, 1, "PENDING")
    assert record.cluster == "toy@2026-11-21T10:03:42"
    assert cluster.states() == ["RUNNING"]
    assert Path(str(record.job_dir), "script.sbatch").read_text() == "echo hello\n"
    assert f"--parsable --hold --job-name={NAME}" in (cluster.root / "1.options").read_text()
    assert json.loads(Path(str(record.job_dir), "submitted.json").read_text())["job_id"] == "1"


def test_attaches_to_a_job_that_lives(cluster: Cluster) -> None:
    assert cluster.ensure() == cluster.ensure()
    assert cluster.states() == ["RUNNING"]


def test_takes_a_job_that_succeeded(cluster: Cluster) -> None:
    first = cluster.ensure()
    cluster.report(first)
    cluster.end(first)
    (cluster.root / "down").touch()
    taken = cluster.ensure()
    assert (taken.id, taken.state, taken.nodes) == ("1", "SUCCEEDED", 1)
    assert taken.ended_at == "2026-11-21T10:05:00Z"


def test_submits_the_next_attempt_of_a_job_that_failed(cluster: Cluster) -> None:
    first = cluster.ensure()
    cluster.end(first, Resolution(JobState.NODE_FAILED, "scontrol says NODE_FAIL"))
    second = cluster.ensure()
    assert (second.id, second.attempt) == ("2", 2)
    assert second.job_dir != first.job_dir


def test_submits_nothing_beside_a_job_of_which_nobody_knows(cluster: Cluster) -> None:
    cluster.end(cluster.ensure())
    with pytest.raises(StateUnknown, match="Invalid job id specified"):
        cluster.ensure()
    assert cluster.states() == ["GONE"]


def test_a_connection_cut_after_sbatch_ran_leaves_one_job(cluster: Cluster) -> None:
    cluster.breaks = broken("after", "sbatch --")
    record = cluster.ensure(patience=5)
    assert record.id == "1" and cluster.states() == ["RUNNING"]


def test_a_worker_that_died_after_sbatch_leaves_a_held_job_that_is_found(cluster: Cluster) -> None:
    cluster.breaks = broken("after", "sbatch --")
    with pytest.raises(ConnectionBroken):
        cluster.ensure(patience=-1)
    assert cluster.states() == ["PENDING"]
    assert cluster.ensure().id == "1" and cluster.states() == ["RUNNING"]


def test_a_worker_that_died_before_sbatch_is_succeeded_after_several_looks(cluster: Cluster) -> None:
    cluster.breaks = broken("before", "sbatch --")
    with pytest.raises(ConnectionBroken):
        cluster.ensure(patience=-1)
    record = cluster.ensure(patience=5)
    assert (record.id, record.attempt) == ("1", 1)
    assert sum("no job of it is known" in said for said in cluster.said) >= 2


def test_of_two_submitted_at_once_the_later_goes(cluster: Cluster) -> None:
    def other_worker(when: str, words: str) -> None:
        if when == "before" and "sbatch --" in words:
            cluster.breaks = lambda when, words: None
            (cluster.root / "jobs" / "1").write_text(f"{NAME}|PENDING|JobHeldUser\n")

    cluster.breaks = other_worker
    record = cluster.ensure()
    assert record.id == "1" and cluster.states() == ["RUNNING", "GONE"]


def test_a_forgotten_held_twin_is_cancelled(cluster: Cluster) -> None:
    cluster.ensure()
    (cluster.root / "jobs" / "2").write_text(f"{NAME}|PENDING|JobHeldUser\n")
    assert cluster.ensure().id == "1" and cluster.states() == ["RUNNING", "GONE"]


def test_a_job_that_a_person_holds_stays_held(cluster: Cluster) -> None:
    cluster.ensure()
    (cluster.root / "jobs" / "1").write_text(f"{NAME}|PENDING|JobHeldUser\n")
    assert cluster.ensure().id == "1" and cluster.states() == ["PENDING"]


def test_a_refusal_is_told_in_sbatch_s_words(cluster: Cluster) -> None:
    (cluster.root / "refuse").touch()
    with pytest.raises(SubmitRefused, match="Invalid partition name specified"):
        cluster.ensure()


def test_a_controller_that_is_down_is_waited_for(cluster: Cluster) -> None:
    (cluster.root / "down").touch()
    with pytest.raises(ConnectionBroken, match="Unable to contact"):
        cluster.ensure()
    assert cluster.states() == []


@pytest.mark.parametrize("job_root", ["fsx/jobs", "/fsx/%u/jobs"])
def test_a_job_root_that_slurm_would_read_otherwise_is_refused(cluster: Cluster, job_root: str) -> None:
    with pytest.raises(InvalidJob, match="job_root"):
        cluster.submission(job_root=job_root)


def test_an_array_is_one_job_with_a_log_for_each_element(cluster: Cluster) -> None:
    record = cluster.ensure(array="0-9%2")
    assert (record.id, record.array) == ("1", "0-9%2")
    options = (cluster.root / "1.options").read_text()
    assert "--array=0-9%2" in options and f"--output={record.job_dir}/job.%a.log" in options
    assert cluster.ensure(array="0-9%2") == record
    assert cluster.states() == ["RUNNING"]


def test_the_next_attempt_of_an_array_runs_what_did_not_succeed(cluster: Cluster) -> None:
    first = cluster.ensure(array="0-3%2")
    for index, code in {0: 0, 1: 4, 2: 0}.items():
        cluster.report(first, code, index=index)
    cluster.end(first, Resolution(JobState.FAILED, "2 of 4 elements did not succeed"))
    second = cluster.ensure(array="0-3%2")
    assert (second.id, second.attempt, second.array) == ("2", 2, "1,3%2")
    cluster.report(second, index=1)
    cluster.end(second, Resolution(JobState.FAILED, "1 of 2 elements did not succeed"))
    third = cluster.ensure(array="0-3%2")
    assert (third.attempt, third.array) == (3, "3%2")
    cluster.report(third, index=3)
    cluster.end(third)
    taken = cluster.ensure(array="0-3%2")
    assert (taken.id, taken.state, taken.array) == ("3", "SUCCEEDED", "3%2")


def test_nothing_is_submitted_beside_an_array_of_which_an_element_is_unknown(cluster: Cluster) -> None:
    first = cluster.ensure(array="0-1")
    cluster.report(first, 4, index=0)
    cluster.end(first)
    with pytest.raises(StateUnknown, match=r"1 FAILED, 1 UNKNOWN|1 UNKNOWN, 1 FAILED"):
        cluster.ensure(array="0-1")


def test_an_attempt_counts_from_its_script_on(cluster: Cluster) -> None:
    """Its submitter stopped after it had written down which elements it meant."""
    first = cluster.ensure(array="0-1")
    cluster.report(first, 0, index=0)
    cluster.report(first, 4, index=1)
    cluster.end(first, Resolution(JobState.FAILED, "1 of 2 elements did not succeed"))
    cluster.breaks = broken("before", "/2/script.sbatch")
    with pytest.raises(ConnectionBroken):
        cluster.ensure(patience=-1, array="0-1")
    assert (cluster.root / "fsx" / NAME / "2" / "array").exists()
    assert (second := cluster.ensure(array="0-1")).array == "1" and second.attempt == 2


@pytest.mark.parametrize("array", ["0-", "9-1", "a"])
def test_an_array_that_sbatch_would_not_understand_is_refused(cluster: Cluster, array: str) -> None:
    with pytest.raises(InvalidJob, match="array"):
        cluster.submission(array=array)


def test_without_durability_a_retry_cancels_what_lives_first(cluster: Cluster) -> None:
    first = cluster.ensure(durable=False)
    second = cluster.ensure(patience=5, durable=False)
    assert (first.id, second.id, second.attempt) == ("1", "2", 2)
    assert cluster.states() == ["GONE", "RUNNING"]


def test_without_durability_a_result_is_not_taken_and_an_array_runs_whole(cluster: Cluster) -> None:
    first = cluster.ensure(durable=False, array="0-1")
    cluster.report(first, index=0)
    cluster.report(first, index=1)
    cluster.end(first)
    second = cluster.ensure(patience=5, durable=False, array="0-1")
    assert (second.id, second.attempt, second.array) == ("2", 2, "0-1")


def test_without_durability_a_cut_after_sbatch_still_leaves_one_job(cluster: Cluster) -> None:
    cluster.ensure(durable=False)
    cluster.breaks = broken("after", "sbatch --")
    record = cluster.ensure(patience=5, durable=False)
    assert (record.id, record.attempt) == ("2", 2) and cluster.states() == ["GONE", "RUNNING"]


def test_without_durability_nothing_is_submitted_while_the_controller_is_down(cluster: Cluster) -> None:
    cluster.ensure()
    (cluster.root / "down").touch()
    with pytest.raises(ConnectionBroken, match="Unable to contact"):
        cluster.ensure(durable=False)
    (cluster.root / "down").unlink()
    assert cluster.states() == ["RUNNING"]


def test_what_was_submitted_and_left_no_trace_is_not_submitted_again(cluster: Cluster) -> None:
    """The file system was wiped, or the connection leads elsewhere: a memory apart knows better."""
    remembered = Remembered(1, "41", "toy@2026-11-21T10:03:42")
    with pytest.raises(StateUnknown, match=r"job 41 is neither.*Clear the task"):
        cluster.ensure(remembered=remembered)
    assert cluster.states() == []
    first = cluster.ensure()
    cluster.end(first, Resolution(JobState.FAILED, "x"))
    with pytest.raises(StateUnknown, match="attempt 2"):
        cluster.ensure(remembered=Remembered(2, "41", None))


def test_a_job_whose_directory_was_wiped_is_found_in_the_queue(cluster: Cluster) -> None:
    (cluster.root / "jobs" / "1").write_text(f"{NAME}|RUNNING|None\n")
    record = cluster.ensure(remembered=Remembered(3, "1", None), array="0-1")
    assert (record.id, record.attempt, record.array) == ("1", 3, "0-1")


@pytest.mark.parametrize("durable", [True, False])
def test_another_cluster_behind_the_connection_is_noticed(cluster: Cluster, durable: bool) -> None:
    """By name: a controller that was started again is the same one."""
    first = cluster.ensure()
    note = Path(str(first.job_dir), "submitted.json")
    note.write_text(note.read_text().replace("10:03:42", "09:00:00"))
    assert cluster.ensure().id == "1"
    note.write_text(note.read_text().replace("toy@", "big@"))
    with pytest.raises(StateUnknown, match=r"cluster 'big', and the connection leads to cluster 'toy'"):
        cluster.ensure(durable=durable)
    assert cluster.states() == ["RUNNING"]


def test_a_queue_that_hides_the_new_job_is_not_believed(cluster: Cluster) -> None:
    """squeue answers empty once, right after sbatch: the job stays held until it is seen."""
    original, hidden = cluster.run, [1]

    def run(command: Command) -> Completed:
        if hidden and "squeue" in command.args:
            hidden.clear()
            return Completed(0, b"", b"")
        return original(command)

    submitter = Submitter(run, cluster.said.append, patience=5, look_interval=0.01)
    assert submitter.ensure(cluster.submission()).id == "1"
    assert cluster.states() == ["RUNNING"] and any("does not list job 1" in said for said in cluster.said)
