from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa
import pytest

from tasks.batches import Batch
from tasks.errors import InvalidInput
from tasks.learning import search as module
from tasks.learning.contrastive import TrainingPlan
from tasks.learning.held_out import split_reads
from tasks.learning.job import Job
from tasks.learning.pairs import templates_of
from tasks.learning.search import Search, Trial, search_plan, validation_split
from tasks.object_store import ObjectStore

USUAL = TrainingPlan(steps=600, pairs_per_step=512, learning_rate=1e-3, seed=1)
TRIALS = tuple(
    Trial(rate, 0.1, 300, "recall@10", before=0.5, after=after, seconds=30.0, usd=0.003)
    for rate, after in ((1e-3, 0.6), (2e-3, 0.7), (3e-3, 0.7))
)
SEARCH = Search(TRIALS, trials_asked=4, budget_usd=1.0, usd=0.01, instance_type="c7i.2xlarge")


def test_the_best_plan_is_the_first_of_the_best_trials() -> None:
    best = SEARCH.best(USUAL)
    assert (best.learning_rate, best.temperature, best.steps) == (2e-3, 0.1, 300)
    assert (best.pairs_per_step, best.seed) == (512, 1)
    assert replace(SEARCH, trials=()).best(USUAL) == USUAL


@pytest.mark.parametrize("paired", [True, False])
def test_validation_templates_are_neither_trained_on_nor_held_out(
    paired: bool, reads_of: Callable[..., pa.Table]
) -> None:
    reads = reads_of(600, paired=paired)
    gate, validation = split_reads(reads), validation_split(reads)

    def templates(rows: Any) -> set[str]:
        return set(templates_of(reads["read_id"].take(pa.array(rows))).to_pylist())

    assert templates(validation.training) < templates(gate.training)
    left_out = templates(gate.training) - templates(validation.training)
    assert validation.templates == len(left_out) and 30 < len(left_out) < 80
    asked = set(validation.left.to_arrow().to_pylist())
    assert not asked & set(gate.left.to_arrow().to_pylist())


def test_an_outcome_that_is_kept_is_not_sought_again(
    store: ObjectStore, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job((batch,))
    store.put_json(job.unfinished / "search.json", asdict(SEARCH))
    monkeypatch.setattr(module, "_tried", lambda *arguments: pytest.fail("sought again"))
    found = search_plan(
        job, trials=4, budget_usd=1.0, instance_type="c7i.2xlarge", resources={"CPU": 1, "GPU": 0}
    )
    assert found == SEARCH


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"trials": 0}, "needs trials and a budget"),
        ({"budget_usd": 0}, "needs trials and a budget"),
        ({"instance_type": "abacus"}, "no instance type 'abacus'"),
    ],
)
def test_what_cannot_be_searched_for_is_refused(wrong: dict[str, Any], said: str, batch: Batch) -> None:
    asked: dict[str, Any] = {"trials": 4, "budget_usd": 1.0, "instance_type": "c7i.2xlarge"}
    with pytest.raises(InvalidInput, match=said):
        search_plan(Job((batch,)), **{**asked, **wrong}, resources={"CPU": 1, "GPU": 0})
