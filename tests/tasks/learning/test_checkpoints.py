from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from tasks.batches import Batch
from tasks.encoders.kmer import KmerMlp
from tasks.encoders.model import EncoderModel
from tasks.encoders.sequences import Sequences
from tasks.encoders.transformer import DnaTransformer
from tasks.learning.checkpoints import Checkpoints
from tasks.learning.contrastive import TrainingPlan, TrainingRecord, train
from tasks.learning.pairs import Drawn, PairSource, ReadWindows
from tasks.object_store import ObjectStore, ObjectUri

PLAN = TrainingPlan(steps=12, pairs_per_step=16, learning_rate=1e-3, temperature=0.1, seed=1)


class Interrupted(Exception):
    pass


@dataclass
class Interrupting:
    """The same pairs, until so many draws were made."""

    source: PairSource
    draws: int

    @property
    def names(self) -> tuple[str, ...]:
        return self.source.names

    def __len__(self) -> int:
        return len(self.source)

    def draw(self, random: np.random.Generator, count: int) -> Drawn:
        if self.draws == 0:
            raise Interrupted
        self.draws -= 1
        return self.source.draw(random, count)


@pytest.fixture
def checkpoints(store: ObjectStore, batch: Batch) -> Checkpoints:
    """That save every step."""
    return Checkpoints(store, batch.results / "retraining" / "checkpoints", every_seconds=0)


@pytest.fixture
def sequences(reads_of: Callable[..., pa.Table]) -> Sequences:
    return Sequences.from_arrow(reads_of(50)["sequence"])


def trained(
    pairs: PairSource, model: EncoderModel, plan: TrainingPlan = PLAN, checkpoints: Checkpoints | None = None
) -> TrainingRecord:
    return train(model, pairs, plan, report=lambda line: None, checkpoints=checkpoints)


@pytest.mark.parametrize("architecture", [KmerMlp, DnaTransformer])  # the latter forgets at random (dropout)
def test_an_interrupted_training_ends_with_the_same_weights(
    architecture: type[EncoderModel], checkpoints: Checkpoints, sequences: Sequences
) -> None:
    pairs = ReadWindows(sequences)
    undisturbed, disturbed, again = (architecture.untrained(sequences, seed=1) for _ in range(3))
    whole = trained(pairs, undisturbed)
    with pytest.raises(Interrupted):
        trained(Interrupting(pairs, 8), disturbed, checkpoints=checkpoints)  # one draw names the training
    rest = trained(pairs, again, checkpoints=checkpoints)

    assert (whole.resumed_at, rest.resumed_at) == (0, 7)
    assert (rest.first_loss, rest.last_loss) == (whole.first_loss, whole.last_loss)
    weights = undisturbed.state_dict()
    assert all(torch.equal(weights[name], other) for name, other in again.state_dict().items())
    assert not all(torch.equal(weights[name], other) for name, other in disturbed.state_dict().items())


def test_a_training_that_was_finished_is_not_repeated(checkpoints: Checkpoints, sequences: Sequences) -> None:
    pairs = ReadWindows(sequences)
    first, second = (KmerMlp.untrained(sequences, seed=1) for _ in range(2))
    trained(pairs, first, checkpoints=checkpoints)
    assert trained(Interrupting(pairs, 1), second, checkpoints=checkpoints).resumed_at == PLAN.steps
    assert torch.equal(first.layers[0].weight, second.layers[0].weight)
    assert not second.training


def test_a_checkpoint_of_another_training_is_not_taken(
    checkpoints: Checkpoints, sequences: Sequences
) -> None:
    pairs = ReadWindows(sequences)

    def resumed_at(pairs: PairSource = pairs, seed: int = 1, **changes: float) -> int:
        model = KmerMlp.untrained(sequences, seed=seed)
        return trained(pairs, model, replace(PLAN, steps=2, **changes), checkpoints).resumed_at

    assert resumed_at() == 0
    assert resumed_at(learning_rate=2e-3) == 0
    assert resumed_at(seed=2) == 0
    assert resumed_at(ReadWindows(sequences.reverse_complement())) == 0
    assert resumed_at(ReadWindows(sequences, ("pieces of one read",))) == 0
    assert resumed_at() == 2


def test_clearing_leaves_nothing(
    store: ObjectStore, batch: Batch, checkpoints: Checkpoints, sequences: Sequences
) -> None:
    store.put_json(batch.results / "retraining" / "manifest.json", {})
    trained(ReadWindows(sequences), KmerMlp.untrained(sequences, seed=1), checkpoints=checkpoints)
    assert len(list(store.list(batch.results / "retraining"))) == 2
    checkpoints.clear()
    assert [info.uri.name for info in store.list(batch.results / "retraining")] == ["manifest.json"]


def test_a_store_that_fails_does_not_end_the_training(
    store: ObjectStore, sequences: Sequences, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = Checkpoints(store, ObjectUri("no-such-bucket", "checkpoints"), every_seconds=0)
    pairs, model = ReadWindows(sequences), KmerMlp.untrained(sequences, seed=1)
    assert trained(pairs, model, replace(PLAN, steps=2), nowhere).steps == 2
    assert "goes on, but its checkpoint cannot be stored: the object store failed" in capsys.readouterr().out
