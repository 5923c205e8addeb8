"""The bounds of ``forms.py`` against exact arithmetic: the largest of many pairs comes near, none goes over."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from hpc_jobs.mpi_dna_seq import build, forms


def data(kind: str) -> np.ndarray:
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(40, 45))
    if kind == "offset":
        vectors += 50
    elif kind == "spikes":
        vectors[np.arange(40), rng.integers(45, size=40)] *= 1e5
    elif kind == "one sign":
        vectors = np.abs(vectors)
    elif kind == "sizes":
        vectors *= 10.0 ** rng.uniform(-15, 15, size=(40, 1))
    elif kind == "zeros":
        vectors[::3] = 0
    return vectors.astype(np.float32)


@pytest.mark.parametrize("distance", [False, True])
@pytest.mark.parametrize("kind", ["plain", "offset", "spikes", "one sign", "sizes", "zeros"])
def test_the_bound_of_a_quantised_pair_holds_in_exact_arithmetic(kind: str, distance: bool) -> None:
    vectors = data(kind)
    centre = vectors.mean(axis=0)
    form = forms.as_int8(build.kernel(), vectors, centre, distance=distance)
    assert form.panels is not None and form.shifts is not None
    rows = form.panels.transpose(0, 2, 1, 3).reshape(-1, form.panels.shape[1] * 4)[: len(vectors)].astype(int)
    assert not rows[:, vectors.shape[1] :].any()
    assert np.abs(rows).max() == 63 or kind == "one sign"
    np.testing.assert_array_equal(form.shifts[: len(vectors)], 64 * rows.sum(axis=1))
    factor = 2 if distance else 1
    exact = [[Fraction(float(x)) for x in vector] for vector in vectors]
    scale, error, length, offset = (
        [Fraction(float(v)) for v in bound[: len(vectors)]]
        for bound in (form.scale, form.error, form.length, form.offset)
    )
    for x in range(0, len(vectors), 3):
        for y in range(x + 1, len(vectors)):
            if distance:
                score = -sum((a - b) ** 2 for a, b in zip(exact[x], exact[y], strict=True))
            else:
                score = sum(a * b for a, b in zip(exact[x], exact[y], strict=True))
            product = int(rows[x] @ rows[y])
            bound = factor * (scale[x] * scale[y] * product + error[x] * length[y] + length[x] * error[y])
            assert bound + offset[x] + offset[y] >= score


def test_the_bound_is_not_far_too_wide() -> None:
    """Gaussian components: a step is 3.5 / 63 of their size, so |w - x'| is about 1.6 % of |w|."""
    vectors = np.random.default_rng(6).normal(size=(500, 256)).astype(np.float32)
    form = forms.as_int8(build.kernel(), vectors, np.zeros(256, np.float32), distance=False)
    relative = form.error[:500] / np.linalg.norm(vectors, axis=1)
    assert 0.01 < relative.mean() < 0.02


def test_sums_of_16_bits_cannot_overflow() -> None:
    rng = np.random.default_rng(7)
    vectors = np.sign(rng.normal(size=(64, 1))) * (1 + rng.random((64, 160)))
    form = forms.as_int8(
        build.kernel(), vectors.astype(np.float32), np.zeros(160, np.float32), distance=False
    )
    assert form.panels is not None
    rows = form.panels.transpose(0, 2, 1, 3).reshape(64, -1).astype(int)
    # (…, eight steps, two halves, two neighbours): a 16-bit lane takes neighbours over the steps.
    groups = rows.reshape(64, -1, 8, 2, 2)
    for part in (np.maximum(groups, 0), np.maximum(-groups, 0)):
        assert part.sum(axis=(2, 4)).max() <= 258
    assert np.abs(groups).max() > 10  # the limit costs precision here, but not all of it


@pytest.mark.parametrize("dim", [1, 128, 768])
def test_the_bound_of_float32_covers_the_rounding_of_a_matrix_product(dim: int) -> None:
    rng = np.random.default_rng(8)
    vectors = np.abs(rng.normal(size=(200, dim))).astype(np.float32)  # one sign: the errors are largest
    form = forms.as_float32(build.kernel(), vectors, distance=False)
    exact = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    wrong = np.abs(vectors @ vectors.T - exact)
    margin = np.outer(form.error[:200], form.length[:200]) + np.outer(form.length[:200], form.error[:200])
    assert (wrong < margin).all()
    assert (margin < 1e-4 * exact.max()).all()
