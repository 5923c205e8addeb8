"""The code for accelerators, on torch's "cpu" device: what differs on a GPU is the rounding of products."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hpc_jobs.mpi_dna_seq.device import DeviceError
from hpc_jobs.mpi_dna_seq.tiles import Best, Block, Metric, comparison

Reference = Callable[..., tuple[np.ndarray, np.ndarray]]


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_a_device_gives_the_answer_of_brute_force(metric: Metric, reference: Reference) -> None:
    rng = np.random.default_rng(9)
    vectors = rng.normal(size=(400, 33)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    if metric != "cosine":
        vectors = vectors * rng.lognormal(size=(400, 1)).astype(np.float32) + 1
    vectors[100:150] = vectors[3]
    expected_ids, expected_scores = reference(vectors, 7, metric)
    for tile in (23, 100):
        lists = Best.empty(400, 7)
        blocks = [
            Block(
                first,
                vectors[first:stop],
                Best(lists.scores[first:stop], lists.ids[first:stop], lists.thresholds[first:stop]),
            )
            for first, stop in ((0, 130), (130, 400))
        ]
        compare = comparison(metric=metric, dim=33, tile=tile, device="cpu")
        compare.within(blocks[0])
        compare.within(blocks[1])
        compare.across(blocks[1], blocks[0])
        np.testing.assert_array_equal(lists.ids, expected_ids)
        np.testing.assert_array_equal(lists.scores, expected_scores)
        assert compare.pairs == 400 * 399 // 2


def test_few_pairs_come_back_to_be_scored() -> None:
    vectors = np.random.default_rng(10).normal(size=(3000, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    compare = comparison(dim=64, tile=256, device="cpu")
    compare.within(Block(0, vectors, Best.empty(3000, 8)))
    assert compare.pairs_scored < 3000 * 120


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(DeviceError, match="'meteor'"):
        comparison(dim=8, device="meteor")
    with pytest.raises(ValueError, match="fp32"):
        comparison(dim=8, device="cpu", precision="int8-exact")
