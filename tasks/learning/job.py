"""What a retraining is asked for, and what each of its processes does about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tasks.batches import Batch
from tasks.object_store import ObjectStore, ObjectUri

if TYPE_CHECKING:  # torch is loaded only where something is trained
    from tasks.encoders.model import EncoderModel
    from tasks.learning.contrastive import TrainingPlan, TrainingRecord
    from tasks.learning.pairs import PairSource
    from tasks.learning.search import Search


@dataclass(frozen=True)
class Job:
    """The batches to learn from together, all of one encoder.

    :param propose: leave the promotion to a person.
    :param checkpoint_seconds: between two checkpoints: the work that an interruption costs at most.
    """

    batches: tuple[Batch, ...]
    propose: bool = False
    checkpoint_seconds: float = 30.0

    @property
    def unfinished(self) -> ObjectUri:
        """What is kept until the result is published: checkpoints, and the outcome of a search."""
        return self.batches[0].results / "retraining" / "checkpoints"

    def run(
        self,
        *,
        report: Callable[[str], None],
        progress: Callable[[dict[str, Any]], None] | None = None,
        search: Search | None = None,
    ) -> dict[str, Any] | None:
        """Retrain from where an interrupted run left off; see :func:`tasks.learning.retrain.retrain`.

        :param search: whose best plan takes the place of the usual one.
        :returns: the summary, or None in all but the first of several workers, which have nothing left to do.
        """
        from tasks.learning.checkpoints import Checkpoints
        from tasks.learning.contrastive import train
        from tasks.learning.retrain import retrain
        from tasks.learning.workers import Workers

        store, workers = ObjectStore(), Workers.present()
        checkpoints = Checkpoints(store, self.unfinished, every_seconds=self.checkpoint_seconds)

        def training(
            model: EncoderModel, pairs: PairSource, plan: TrainingPlan, *, report: Callable[[str], None]
        ) -> TrainingRecord:
            if search is not None:
                plan = search.best(plan)
            record = train(model, pairs, plan, report=report, progress=progress, checkpoints=checkpoints)
            if workers.rank > 0:
                raise _Trained
            return replace(record, search=search)

        try:
            summary = retrain(store, self.batches, propose=self.propose, training=training, report=report)
        except _Trained:
            return None
        checkpoints.clear()
        return summary


class _Trained(Exception):
    """Ends a worker that is not the first: what follows a training is done once."""
