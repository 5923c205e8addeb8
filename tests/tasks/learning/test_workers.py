"""Two processes that train one encoder together, over gloo."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import distributed, multiprocessing

from tasks.encoders.kmer import KmerMlp
from tasks.encoders.sequences import Sequences
from tasks.learning.checkpoints import Checkpoints
from tasks.learning.contrastive import TrainingPlan, train
from tasks.learning.pairs import ReadWindows
from tasks.learning.workers import Workers
from tasks.object_store import ObjectStore, ObjectUri
from tests.tasks.learning.test_checkpoints import Interrupted, Interrupting

PLAN = TrainingPlan(steps=6, pairs_per_step=16, learning_rate=1e-3, temperature=0.1, seed=1)


def work(rank: int, directory: Path, sequences: Sequences, prefix: ObjectUri) -> None:
    """What each of the two does; here, because a process that trains takes seconds to start."""
    torch.set_num_threads(1)
    place = f"file://{directory}/meeting"
    distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=2)
    agree(rank)
    np.save(
        directory / f"{rank}.npy", np.stack(weights_of_a_whole_and_an_interrupted_training(sequences, prefix))
    )
    distributed.destroy_process_group()


def agree(rank: int) -> None:
    workers, model = Workers.present(), torch.nn.Linear(2, 1)
    assert workers == Workers(rank, 2)
    model.weight.grad = torch.tensor([[1.0, 2.0]]) * (1 + 2 * rank)
    workers.average_gradients(model)
    assert model.weight.grad.tolist() == [[2.0, 4.0]]
    assert workers.from_first(f"of {rank}") == "of 0"
    assert workers.from_all(rank) == [0, 1]


def weights_of_a_whole_and_an_interrupted_training(
    sequences: Sequences, prefix: ObjectUri
) -> list[np.ndarray]:
    pairs = ReadWindows(sequences)
    whole, first, second = (KmerMlp.untrained(sequences, seed=1) for _ in range(3))
    assert train(whole, pairs, PLAN).workers == 2
    checkpoints = Checkpoints(ObjectStore(), prefix, every_seconds=0)
    with contextlib.suppress(Interrupted):
        train(first, Interrupting(pairs, 5), PLAN, checkpoints=checkpoints)
    assert train(second, pairs, PLAN, checkpoints=checkpoints).resumed_at == 4
    return [model.layers[0].weight.detach().numpy() for model in (whole, second)]


def test_a_process_alone_is_the_first_of_one() -> None:
    workers, model = Workers.present(), torch.nn.Linear(2, 1)
    assert workers == Workers(0, 1)
    model.weight.grad = torch.ones(1, 2)
    workers.average_gradients(model)
    assert model.weight.grad.tolist() == [[1.0, 1.0]]
    assert (workers.from_first("this"), workers.from_all("this")) == ("this", ["this"])


def test_two_workers_end_with_the_same_weights_also_where_they_were_interrupted(
    tmp_path: Path, s3_root: str, reads_of: Callable[..., pa.Table]
) -> None:
    sequences = Sequences.from_arrow(reads_of(50)["sequence"])
    prefix = ObjectUri.parse(s3_root) / "checkpoints"
    multiprocessing.spawn(work, (tmp_path, sequences, prefix), nprocs=2)  # raises what one of them raises
    first, second = (np.load(tmp_path / f"{rank}.npy") for rank in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first[0], first[1])

    alone = KmerMlp.untrained(sequences, seed=1)
    train(alone, ReadWindows(sequences), PLAN)
    assert not np.allclose(alone.layers[0].weight.detach().numpy(), first[0])
