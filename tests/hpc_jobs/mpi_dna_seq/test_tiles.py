from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hpc_jobs.mpi_dna_seq.tiles import Best, Block, Comparison, margin

Reference = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def unit_vectors(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def neighbours(vectors: np.ndarray, k: int, *, tile: int) -> tuple[np.ndarray, np.ndarray, Comparison]:
    block = Block(0, vectors, Best.empty(len(vectors), min(k, len(vectors) - 1)))
    comparison = Comparison(vectors.shape[1], tile=tile, between=lambda pairs: None)
    comparison.within(block)
    return block.best.ids, block.best.scores, comparison


@pytest.mark.parametrize("seed", range(12))
def test_any_shape_and_tile_gives_the_neighbours_of_brute_force(seed: int, reference: Reference) -> None:
    rng = np.random.default_rng(seed)
    rows, dim, k = int(rng.integers(2, 300)), int(rng.integers(1, 70)), int(rng.integers(1, 40))
    vectors = unit_vectors(rows, dim, seed)
    for tile in (1 + seed, 16, 64, 512):
        ids, scores, comparison = neighbours(vectors, k, tile=tile)
        expected_ids, expected_scores = reference(vectors, k)
        np.testing.assert_array_equal(ids, expected_ids)
        np.testing.assert_array_equal(scores, expected_scores)
        assert comparison.pairs == rows * (rows - 1) // 2


def test_of_many_equal_rows_the_lowest_are_the_neighbours(reference: Reference) -> None:
    vectors = unit_vectors(400, 32)
    vectors[np.random.default_rng(1).permutation(400)[:250]] = vectors[7]
    ids, _, _ = neighbours(vectors, 5, tile=64)
    np.testing.assert_array_equal(ids, reference(vectors, 5)[0])


def test_neighbours_that_differ_in_the_last_bit_are_told_apart(reference: Reference) -> None:
    """Scores closer to each other than the rounding of the matrix product that proposes them."""
    rng = np.random.default_rng(2)
    vectors = unit_vectors(1, 128) + rng.normal(scale=2e-5, size=(300, 128)).astype(np.float32)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    expected = reference(vectors, 10)
    for tile in (37, 512):
        ids, scores, _ = neighbours(vectors, 10, tile=tile)
        np.testing.assert_array_equal(ids, expected[0])
        np.testing.assert_array_equal(scores, expected[1])


def test_zero_vectors_are_similar_to_nothing(reference: Reference) -> None:
    vectors = unit_vectors(50, 8)
    vectors[[3, 20, 21]] = 0
    ids, scores, _ = neighbours(vectors, 4, tile=16)
    np.testing.assert_array_equal(ids[20], [0, 1, 2, 3])
    assert not scores[20].any()
    np.testing.assert_array_equal(ids, reference(vectors, 4)[0])


def test_almost_no_pair_passes_the_thresholds() -> None:
    """A row's list changes k (1 + ln(N / k)) times when rows come in any order: 48 of 4,000 here."""
    _, _, comparison = neighbours(unit_vectors(4000, 32), 8, tile=512)
    assert comparison.pairs_scored < 4000 * 60


def test_the_margin_covers_the_rounding_of_a_matrix_product() -> None:
    for dim in (1, 128, 768):
        vectors = np.abs(unit_vectors(200, dim))  # one sign: the sums, and so the errors, are largest
        error = np.abs(vectors @ vectors.T - vectors.astype(np.float64) @ vectors.astype(np.float64).T)
        assert error.max() < margin(dim) < 1e-4


def test_lists_of_other_pairs_are_merged_in_order() -> None:
    one, other = Best.empty(1, 3), Best.empty(1, 3)
    one.scores[0], one.ids[0] = [0.9, 0.5, 0.1], [4, 9, 2]
    other.scores[0, :2], other.ids[0, :2] = [0.5, 0.5], [8, 10]
    one.merge(other, 16)
    assert one.ids[0].tolist() == [4, 8, 9]
