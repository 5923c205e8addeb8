from __future__ import annotations

import uuid
from itertools import product
from types import SimpleNamespace

from strandloop.job_identity import earlier_identities_of, generation_of, identity_of, job_identity


def task_instance(*, max_tries: int, retries: int = 2, map_index: int = -1) -> SimpleNamespace:
    return SimpleNamespace(
        dag_id="genomics_batch",
        run_id="manual__2026-11-20",
        task_id="similarity",
        map_index=map_index,
        max_tries=max_tries,
        task=SimpleNamespace(retries=retries),
    )


def test_is_a_uuid5_that_does_not_change_between_versions() -> None:
    name = job_identity("genomics_batch", run_id="r", task_id="t", map_index=-1, generation=0)
    assert uuid.UUID(name).version == 5
    assert name == "861aca63-d1e7-56dd-a7cf-ee866e50896d"


def test_every_part_counts_and_parts_do_not_run_together() -> None:
    names = {
        job_identity(dag, run_id=run, task_id=task, map_index=index, generation=generation)
        for dag, run, task, index, generation in product(["a", "ab"], ["b", ""], ["c", "bc"], [-1, 0], [0, 1])
    }
    assert len(names) == 32


def test_a_retry_keeps_the_identity_and_a_clear_changes_it() -> None:
    first_run = task_instance(max_tries=2)
    # Airflow leaves max_tries alone on a retry; clearing sets it to try_number + retries.
    cleared_after_the_first_try = task_instance(max_tries=1 + 2)
    assert identity_of(first_run) == identity_of(task_instance(max_tries=2))
    assert identity_of(first_run) != identity_of(cleared_after_the_first_try)
    assert generation_of(max_tries=3, retries=2) == 1
    assert earlier_identities_of(cleared_after_the_first_try) == [identity_of(first_run)]
    assert earlier_identities_of(first_run) == []


def test_mapped_tasks_have_identities_of_their_own() -> None:
    assert identity_of(task_instance(max_tries=2, map_index=0)) != identity_of(task_instance(max_tries=2))
