from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from hpc_jobs.mpi_dna_seq import build, forms
from hpc_jobs.mpi_dna_seq.tiles import (
    Best,
    Block,
    Comparison,
    Metric,
    Precision,
    close_zero_rows,
    comparison,
)

Reference = Callable[..., tuple[np.ndarray, np.ndarray]]
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8-exact")


def unit_vectors(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def neighbours(
    vectors: np.ndarray, k: int, *, metric: Metric = "cosine", precision: Precision = "fp32", tile: int = 64
) -> tuple[np.ndarray, np.ndarray, Comparison]:
    block = Block(0, vectors, Best.empty(len(vectors), min(k, len(vectors) - 1)))
    compare = comparison(metric=metric, precision=precision, dim=vectors.shape[1], tile=tile)
    compare.within(block)
    return block.best.ids, block.best.scores, compare


def assert_exact(
    vectors: np.ndarray, k: int, reference: Reference, *, metric: Metric, tile: int = 64
) -> None:
    expected_ids, expected_scores = reference(vectors, k, metric)
    for precision in PRECISIONS:
        ids, scores, compare = neighbours(vectors, k, metric=metric, precision=precision, tile=tile)
        np.testing.assert_array_equal(ids, expected_ids)
        np.testing.assert_array_equal(scores, expected_scores)
        assert compare.pairs == len(vectors) * (len(vectors) - 1) // 2


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("seed", range(12))
def test_any_shape_and_tile_gives_the_neighbours_of_brute_force(
    seed: int, metric: Metric, reference: Reference
) -> None:
    rng = np.random.default_rng(seed)
    rows, dim, k = int(rng.integers(2, 250)), int(rng.integers(1, 90)), int(rng.integers(1, 40))
    vectors = unit_vectors(rows, dim, seed)
    if metric != "cosine":
        vectors *= rng.lognormal(sigma=2, size=(rows, 1)).astype(np.float32)
    for tile in (1 + seed, 16, 512):
        assert_exact(vectors, k, reference, metric=metric, tile=tile)


@pytest.mark.parametrize("metric", ["dot", "l2"])
@pytest.mark.parametrize("kind", ["offset", "spikes", "sizes", "huge", "tiny", "sums", "lattice"])
def test_no_kind_of_data_breaks_the_bounds(kind: str, metric: Metric, reference: Reference) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(220, 70))
    if kind == "offset":  # all in a narrow cone
        vectors += 300
    elif kind == "spikes":  # one component takes the whole range of int8
        vectors[np.arange(220), rng.integers(70, size=220)] *= 1e4
    elif kind == "sizes":
        vectors *= 10.0 ** rng.uniform(-12, 12, size=(220, 1))
    elif kind == "huge":
        vectors *= 1e17
    elif kind == "tiny":  # squares are denormal numbers
        vectors *= 1e-21
    elif kind == "sums":  # of one sign: 16-bit sums are at their limits
        vectors = np.sign(rng.normal(size=(220, 1))) * (1 + 0.1 * rng.random(size=(220, 70)))
    else:  # small integers: thousands of equal scores
        vectors = rng.integers(-1, 2, size=(220, 70)).astype(float)
    assert_exact(vectors.astype(np.float32), 7, reference, metric=metric)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_of_many_equal_rows_the_lowest_are_the_neighbours(metric: Metric, reference: Reference) -> None:
    vectors = unit_vectors(400, 32)
    vectors[np.random.default_rng(1).permutation(400)[:250]] = vectors[7]
    assert_exact(vectors, 5, reference, metric=metric)


@pytest.mark.parametrize("dim", [128, 300])  # at 300 int8 is followed by float32
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_neighbours_that_differ_in_the_last_bit_are_told_apart(
    metric: Metric, dim: int, reference: Reference
) -> None:
    """Scores closer to each other than the rounding of the products that propose them."""
    rng = np.random.default_rng(2)
    vectors = unit_vectors(1, dim) + rng.normal(scale=2e-5, size=(300, dim)).astype(np.float32)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    for tile in (37, 512):
        assert_exact(vectors, 10, reference, metric=metric, tile=tile)


def test_zero_vectors_are_similar_to_nothing(reference: Reference) -> None:
    vectors = unit_vectors(50, 8)
    vectors[[3, 20, 21]] = 0
    ids, scores, _ = neighbours(vectors, 4, tile=16)
    np.testing.assert_array_equal(ids[20], [0, 1, 2, 3])
    assert not scores[20].any()
    assert_exact(vectors, 4, reference, metric="cosine", tile=16)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_closed_zero_vectors_have_the_same_neighbours_without_being_scored(
    precision: Precision, reference: Reference
) -> None:
    vectors = np.abs(unit_vectors(600, 16))  # all others have better neighbours than score 0
    vectors[np.random.default_rng(0).permutation(600)[:300]] = 0
    block = Block(0, vectors, Best.empty(600, 4))
    close_zero_rows(block, listed=True)
    compare = comparison(precision=precision, dim=16, tile=64)
    compare.within(block)
    expected_ids, expected_scores = reference(vectors, 4)
    np.testing.assert_array_equal(block.best.ids, expected_ids)
    np.testing.assert_array_equal(block.best.scores, expected_scores)
    assert compare.pairs_scored < 600 * 100  # of 180,000


def test_long_lists(reference: Reference) -> None:
    assert_exact(unit_vectors(700, 24), 300, reference, metric="cosine", tile=128)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_answer_does_not_depend_on_how_rows_are_cut_into_blocks(
    precision: Precision, reference: Reference
) -> None:
    """Views of shared arrays that start anywhere, compared in parts, with lists that travel and come back."""
    vectors, k = unit_vectors(333, 48), 6
    cuts = (0, 1, 50, 211, 333)
    compare = comparison(precision=precision, dim=48, tile=40)
    whole = Best.empty(333, k)
    homes = [
        Block(
            first,
            vectors[first:stop],
            Best(*(a[first:stop] for a in (whole.scores, whole.ids, whole.thresholds))),
        )
        for first, stop in pairwise(cuts)
    ]
    for number, home in enumerate(homes):
        compare.within(home)
        for other in homes[number + 1 :]:
            visitor = Block(
                other.first_row,
                other.vectors.copy(),
                Best.empty(len(other.vectors), k, other.best.thresholds),
            )
            middle = len(home.vectors) // 3
            compare.across(home, visitor, stop=middle)
            compare.across(home, visitor, start=middle)
            other.best.merge(visitor.best)
    expected_ids, expected_scores = reference(vectors, k)
    np.testing.assert_array_equal(whole.ids, expected_ids)
    np.testing.assert_array_equal(whole.scores, expected_scores)
    assert compare.pairs == 333 * 332 // 2


@pytest.mark.parametrize("dim", [77, 309])
@pytest.mark.parametrize("path", build.runnable())
def test_every_path_of_this_processor_gives_the_same_bits(
    path: str, dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = unit_vectors(300, dim) * np.linspace(0.5, 2, 300, dtype=np.float32)[:, None]
    for metric in ("dot", "l2"):
        for precision in PRECISIONS:
            monkeypatch.setenv(build.CHOSEN, "portable")
            build.kernel.cache_clear()
            expected = neighbours(vectors, 9, metric=metric, precision=precision)
            monkeypatch.setenv(build.CHOSEN, path)
            build.kernel.cache_clear()
            assert build.kernel().path == path
            found = neighbours(vectors, 9, metric=metric, precision=precision)
            assert found[0].tobytes() == expected[0].tobytes()
            assert found[1].tobytes() == expected[1].tobytes()
    build.kernel.cache_clear()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_almost_no_pair_passes_the_thresholds(precision: Precision) -> None:
    """A row's list changes k (1 + ln(N / k)) times when rows come in any order: 48 of 4,000 here."""
    _, _, compare = neighbours(unit_vectors(4000, 128), 8, precision=precision, tile=512)
    assert compare.pairs_scored < 4000 * (60 if precision == "fp32" else 120)
    assert not compare.pairs_in_fp32
    assert compare.product_seconds > 0 < compare.merge_seconds


def test_where_int8_excludes_too_little_float32_takes_over() -> None:
    """Differences far below the steps of int8: nearly every pair would have to be scored."""
    rng = np.random.default_rng(4)
    rows = rng.choice([-1, 1], size=(2, 64))[rng.integers(2, size=3000)] + rng.normal(
        scale=1e-3, size=(3000, 64)
    )
    vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    exact = neighbours(vectors, 5, tile=64)
    ids, scores, compare = neighbours(vectors, 5, precision="int8-exact", tile=64)
    np.testing.assert_array_equal(ids, exact[0])
    np.testing.assert_array_equal(scores, exact[1])
    assert compare.pairs_in_fp32 > 0.5 * compare.pairs


def test_after_each_row_of_tiles_the_caller_has_its_turn() -> None:
    seen: list[int] = []
    compare = comparison(dim=8, tile=32, between=seen.append)
    compare.within(Block(0, unit_vectors(100, 8), Best.empty(100, 3)))
    assert len(seen) == 4
    assert sorted(seen) == seen
    assert seen[-1] == 4950


def test_forms_are_made_once_for_a_block_and_not_kept_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original = forms.as_int8

    def counted(
        kernel: build.Kernel, vectors: np.ndarray, centre: np.ndarray, *, distance: bool
    ) -> forms.Form:
        made.append(len(vectors))
        return original(kernel, vectors, centre, distance=distance)

    monkeypatch.setattr(forms, "as_int8", counted)
    vectors = unit_vectors(200, 16)
    home = Block(0, vectors[:120], Best.empty(120, 3))
    compare = comparison(precision="int8-exact", dim=16, tile=32)
    compare.within(home)
    for _ in range(2):
        compare.across(home, Block(120, vectors[120:], Best.empty(80, 3)))
    assert made == [120, 80, 80]


def test_a_choice_that_is_not_there_is_named() -> None:
    for wrong in ({"metric": "l1"}, {"precision": "int4"}, {"dim": 0}):
        with pytest.raises(ValueError, match=r"l1|int4|0 components"):
            comparison(**{"dim": 8, **wrong})  # type: ignore[arg-type]


def test_vectors_of_another_type_are_refused() -> None:
    block = Block(0, np.zeros((4, 8)), Best.empty(4, 2))
    with pytest.raises(TypeError, match="float32"):
        comparison(dim=8).within(block)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e19])
def test_a_vector_that_cannot_be_compared_is_named_and_not_lost(precision: Precision, value: float) -> None:
    vectors = unit_vectors(40, 8)
    vectors[23, 5] = value
    with pytest.raises(ValueError, match=r"1 rows .* the first is that of row 123"):
        comparison(precision=precision, dim=8).within(Block(100, vectors, Best.empty(40, 2)))


def test_lists_of_other_pairs_are_merged_in_order() -> None:
    one, other = Best.empty(1, 3), Best.empty(1, 3)
    one.scores[0], one.ids[0] = [0.9, 0.5, 0.1], [4, 9, 2]
    other.scores[0, :2], other.ids[0, :2] = [0.5, 0.5], [8, 10]
    one.merge(other)
    assert one.ids[0].tolist() == [4, 8, 9]
    assert one.thresholds[0] == np.float32(0.5)
