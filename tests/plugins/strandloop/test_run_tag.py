from __future__ import annotations

import re

from jinja2 import Template

from strandloop.run_tag import JOB_COMMENT, TAG, RunTag

RUN = RunTag("genomics_batch", "manual__2026-11-25T03:00:00+00:00")


def test_tag_and_comment_name_the_run() -> None:
    assert RunTag.of_tags({TAG: RUN.value, "Name": "Compute"}) == RUN
    assert RunTag.of_comment(RUN.comment) == RUN
    assert Template(JOB_COMMENT).render(dag={"dag_id": RUN.dag_id}, run_id=RUN.run_id) == RUN.comment


def test_what_others_write_is_not_ours() -> None:
    assert RunTag.of_tags({"Name": "Compute"}) is None
    assert RunTag.of_tags({TAG: "by hand"}) is None
    for comment in ("", "(null)", "strandloop", "notes of a run"):
        assert RunTag.of_comment(comment) is None


def test_a_run_s_cluster_has_a_name_that_parallelcluster_takes() -> None:
    assert re.fullmatch("[a-z][a-z0-9-]{1,39}", RUN.cluster_name)
    assert RunTag("genomics_batch", "manual__2").cluster_name != RUN.cluster_name
