from __future__ import annotations

import pytest

from strandloop.slurm_answers import parse_cluster, parse_job_id, parse_lookup, parse_nodes, parse_queued
from strandloop.slurm_evidence import scontrol_fields

LOOKUP = b"""
@attempt 10

@file submitted.json
{"job_id": "43", "cluster": "trial@t", "submitted_at": "2026-11-21T10:04:08Z"}

@attempt 2

@file owner
42

@file verdict.json
{"job_id": "42"}

@squeue 0
45|PENDING|JobHeldUser
44|RUNNING|None

@config 0
Configuration data as of 2026-11-21T10:04:14
BOOT_TIME               = 2026-11-21T10:03:42
ClusterName             = trial
SlurmctldHost[0]        = localhost(127.0.0.1)
"""


def test_a_look_up_tells_attempts_in_order_jobs_and_the_controller() -> None:
    lookup = parse_lookup(LOOKUP)
    assert [(attempt.number, attempt.job_id) for attempt in lookup.attempts] == [(2, "42"), (10, "43")]
    assert [(job.job_id, job.held_by_us) for job in lookup.jobs] == [("44", False), ("45", True)]
    assert (lookup.cluster, lookup.controller_error) == ("trial@2026-11-21T10:03:42", "")


@pytest.mark.parametrize("output", [b"", b"\n@squeue 1\nslurm_load_jobs error: Unable to contact\n"])
def test_no_answer_of_the_controller_is_not_an_empty_queue(output: bytes) -> None:
    assert parse_lookup(output).controller_error


def test_queue_rows_that_are_garbage_are_no_jobs() -> None:
    assert parse_queued("slurm_load_jobs error: x\n\n|\n7|RUNNING\n") == ()


@pytest.mark.parametrize(
    ("text", "job_id"),
    [("42\n", "42"), ("42;trial\n", "42"), ("sbatch: warning: x\n42\n", "42"), ("", None), ("no 42", None)],
)
def test_job_number_of_sbatch(text: str, job_id: str | None) -> None:
    assert parse_job_id(text) == job_id


def test_the_first_of_two_equal_fields_counts() -> None:
    line = "JobId=1 JobState=RUNNING Reason=None CPUs/Task=1 Comment=JobState=COMPLETED x=y  StdErr=/a b.log "
    fields = scontrol_fields(line)
    assert (fields["JobState"], fields["CPUs/Task"], fields["StdErr"]) == ("RUNNING", "1", "/a b.log")


def test_nodes_that_can_run_a_job() -> None:
    nodes = parse_nodes("n1|idle\nn1|idle\nn2|idle~\nn3|down*\nn4|idle*\nn5|drained\nn6|allocated#\n")
    assert [name for name, node in nodes.items() if node.usable] == ["n1", "n2", "n6"]


def test_a_controller_without_a_name() -> None:
    assert parse_cluster("") == "?@?"
