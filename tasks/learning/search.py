"""A search for a better training plan with Ray Tune: small, and with a budget in trials and dollars.

A trial trains the encoder as the retraining will, but on nine tenths of its training reads, and is asked for the
rest: the reads that the gate holds out are not looked at. Trials run one after the other, on one worker, so that
the budget is also a time.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from ray import tune
from ray.tune.search.basic_variant import BasicVariantGenerator

from tasks.cost.prices import current_prices
from tasks.errors import InvalidInput
from tasks.learning.contrastive import TrainingPlan, train
from tasks.learning.evaluation import retrieval
from tasks.learning.held_out import Split, split_reads
from tasks.learning.job import Job
from tasks.learning.lessons import encoder_of, held_out_templates, load_parent, pairs_of, read_lessons
from tasks.learning.plans import retraining_plan
from tasks.learning.promotion import decide
from tasks.object_store import ObjectStore
from tasks.progress import PROGRESS_MARK

SPACE = {"learning_rate": (0.25, 4.0), "temperature": (0.5, 2.0)}
"""Multiples of what the usual plan has, on a logarithmic scale."""
STEPS = (0.5, 1.0, 1.5)
"""Of the usual ones; twice as many were worse wherever it was measured."""
SEED = 1
MAX_LOST = 2


@dataclass(frozen=True)
class Trial:
    """One plan that was tried.

    :param measure: recall@10 of the validation templates, or recall@1 where the encoder has that already.
    :param before, after: what the encoder and the trained one reach.
    :param usd: what a worker costs in ``seconds``, which include reading the batch.
    """

    learning_rate: float
    temperature: float
    steps: int
    measure: str
    before: float
    after: float
    seconds: float
    usd: float


@dataclass(frozen=True)
class Search:
    """What a search found: the trials that came to their end, the usual plan first, and what all of it cost.

    :param trials_asked: there are fewer where the budget ran out or a trial failed.
    :param usd: of the whole search, with waiting and unfinished trials.
    """

    trials: tuple[Trial, ...]
    trials_asked: int
    budget_usd: float
    usd: float
    instance_type: str

    def best(self, usual: TrainingPlan) -> TrainingPlan:
        """The plan of the best trial, of equal ones the first; ``usual`` where none came to its end."""
        if not self.trials:
            return usual
        best = max(self.trials, key=lambda trial: trial.after)
        return replace(
            usual, learning_rate=best.learning_rate, temperature=best.temperature, steps=best.steps
        )


def search_plan(
    job: Job,
    *,
    trials: int,
    budget_usd: float,
    instance_type: str,
    resources: Mapping[str, float],
) -> Search:
    """Try plans on the Ray cluster that this process is connected to; an outcome that is kept is not sought again.

    :param trials: how many plans, the usual one among them.
    :param budget_usd: the search ends where it has cost so much, counting all its time on one worker.
    :param instance_type: of the workers, at the on-demand price of :mod:`tasks.cost.prices`.
    :param resources: what a trial asks for, ``CPU`` and ``GPU``.
    :raises InvalidInput: the price of the workers is not known, or the batches cannot be learnt from.
    """
    if trials < 1 or budget_usd <= 0:
        raise InvalidInput(f"a search needs trials and a budget, not {trials} trials and {budget_usd} USD")
    usd_per_second = current_prices().price(instance_type).on_demand / 3600
    store, kept = ObjectStore(), job.unfinished / "search.json"
    try:
        return _from_json(store.get_json(kept))
    except FileNotFoundError:
        pass
    started = time.monotonic()
    found = _tried(job, trials, usd_per_second, budget_usd / usd_per_second, resources)
    usd = round((time.monotonic() - started) * usd_per_second, 4)
    search = Search(found, trials, budget_usd, usd, instance_type)
    store.put_json(kept, asdict(search))
    return search


def _tried(
    job: Job, trials: int, usd_per_second: float, seconds: float, resources: Mapping[str, float]
) -> tuple[Trial, ...]:
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # a record of its own is kept of every trial
    factors: dict[str, Any] = {name: tune.loguniform(*limits) for name, limits in SPACE.items()}
    usual = dict.fromkeys((*SPACE, "steps"), 1.0)
    with tempfile.TemporaryDirectory(prefix="strandloop-search-") as directory:
        tuner = tune.Tuner(
            tune.with_resources(functools.partial(_try, job=job), dict(resources)),
            param_space={**factors, "steps": tune.choice(STEPS)},
            tune_config=tune.TuneConfig(
                search_alg=BasicVariantGenerator(
                    points_to_evaluate=[usual], max_concurrent=1, random_state=SEED
                ),
                num_samples=trials,
                time_budget_s=seconds,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=directory,
                failure_config=tune.FailureConfig(max_failures=MAX_LOST),
                callbacks=[_Told(trials)],
                verbose=0,
            ),
        )
        outcome = tuner.fit()
    metrics = [outcome[number].metrics or {} for number in range(len(outcome))]
    for each in metrics:
        if "refused" in each:
            raise InvalidInput(each["refused"])
    names = {field.name for field in fields(Trial)} - {"usd"}
    return tuple(
        Trial(**{name: each[name] for name in names}, usd=round(each["seconds"] * usd_per_second, 4))
        for each in metrics
        if names <= each.keys()
    )


def _try(factors: dict[str, float], *, job: Job) -> dict[str, Any]:
    """One trial, on a worker: the fields of :class:`Trial` but the last, or why there can be none."""
    started = time.monotonic()
    store = ObjectStore()
    try:
        address = encoder_of(store, job.batches)
        lessons = read_lessons(store, job.batches, split=validation_split)
    except InvalidInput as error:
        return {"refused": str(error)}
    parent = load_parent(store, job.batches, address)
    if parent is None:
        return {"untrained": str(address)}  # the retraining says so, and leaves it as it is

    usual = retraining_plan(type(parent.model))
    plan = replace(
        usual,
        learning_rate=usual.learning_rate * factors["learning_rate"],
        temperature=usual.temperature * factors["temperature"],
        steps=round(usual.steps * factors["steps"]),
    )
    candidate = copy.deepcopy(parent.model)
    train(candidate, pairs_of(lessons, parent), plan, report=lambda line: None)
    templates = held_out_templates(lessons)
    before, after = (retrieval(encoder, *templates) for encoder in (parent.model, candidate))
    k = decide(before, after).k
    return {
        "learning_rate": plan.learning_rate,
        "temperature": plan.temperature,
        "steps": plan.steps,
        "measure": f"recall@{k}",
        "before": round(before.recall(k), 4),
        "after": round(after.recall(k), 4),
        "seconds": round(time.monotonic() - started, 1),
    }


def validation_split(reads: pa.Table) -> Split:
    """Hold out a tenth of the templates that the retraining trains on; those that it holds out are in no part."""
    rows = split_reads(reads).training
    known = reads.take(pa.array(rows))
    # Under another name a template falls on another side.
    renamed = pc.binary_join_element_wise("validation", known["read_id"].combine_chunks(), ":")
    split = split_reads(pa.table({"read_id": renamed, "sequence": known["sequence"]}))
    return replace(split, training=rows[split.training])


class _Told(tune.Callback):
    """Prints the outcome of each trial in the job's log, and how far the search is."""

    def __init__(self, trials: int) -> None:
        self._trials = trials
        self._done = 0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See :class:`ray.tune.Callback`."""
        self._done += 1
        result = trial.last_result
        if "after" in result:
            print(
                f"trial {self._done} of {self._trials}: learning rate {result['learning_rate']:.2g}, temperature "
                f"{result['temperature']:.2g}, {result['steps']} steps: {result['measure']} {result['before']} "
                f"before, {result['after']} after, {result['seconds']:.0f} s",
                flush=True,
            )
        print(PROGRESS_MARK + json.dumps({"percent": round(100 * self._done / self._trials, 1)}), flush=True)


def _from_json(fields: dict[str, Any]) -> Search:
    return Search(**{**fields, "trials": tuple(Trial(**trial) for trial in fields["trials"])})
