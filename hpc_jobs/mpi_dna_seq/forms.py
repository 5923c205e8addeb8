"""Forms of vectors that are multiplied in place of the vectors, with bounds so that no pair is lost.

A tile is compared by the product of *forms* of its rows and columns: the float32 vectors themselves, or int8
vectors with a scale each. The product only proposes. This is the proof that it excludes no pair that matters.

**Scores.** s(x, y) is the dot product (of unit vectors: the cosine) or minus the squared distance, by
``pair_score`` of compare.c: 16 interleaved sums in double, added pairwise, rounded once to float32.

**What is claimed.** For the product P of the forms, a = 1 (2 for distances), and numbers that each row has for
itself (scale, error E >= 0, length L >= 0, offset r), computed in float32 in the order of compare.c,
    U(x, y) = a scale_x scale_y P + a (E_x L_y + L_x E_y) + r_x + r_y >= s(x, y).
A pair is passed over only where U < t_x and U < t_y, and t is a k-th score that the row has, or a bound of it from
elsewhere: then s < t *strictly*, k others score more, and the pair is in neither list of the best, not even by the
order among equals. All other pairs are scored. So ties and duplicates need no care, and any product will do.

**float32.** scale = 1, P = fl(x.y) by any order of additions, fused or not. With u = 2^-24 and g = D u / (1 - D
u), |P - x.y| <= g |x||y| (Higham, Accuracy and Stability of Numerical Algorithms, 3.1). With E = g/2 |x| and L =
|x| this is E_x L_y + L_x E_y. r = 0, for distances r = -|x|^2, as -|x - y|^2 = 2 x.y - |x|^2 - |y|^2.

**int8.** Let c be any vector (the mean of some rows), w = x - c, and x' = scale q with integer -63 <= q_d <= 63.
By Cauchy and Schwarz, with P = q_x.q_y (an integer, exact),     w_x.w_y = x'.y' + (w_x - x').w_y + x'.(w_y - y')
<= scale_x scale_y P + E_x L_y + L_x E_y for E >= |w - x'| and L >= max(|w|, |x'|): the error is the one that the
row has, not the worst case. As x.y = w_x.w_y + c.x + c.y - c.c, r = c.x - c.c/2; for distances w stands for x
above, and r = -|w|^2. The centre takes away what all rows have in common, and with it most of the error where
they lie in a narrow cone.
From 256 components on (CHECKED of compare.c) a pair that int8 cannot exclude is multiplied in float32 before it is
scored: the claim for float32, with the bounds of float32, excludes more, and costs less than a score.

**Roundings.** U takes at most 8 operations in float32 on terms that are at most M = 3 a L_x L_y + |r_x| + |r_y|
together (E <= L), so it is off by less than 2^-21 M; P as float32 by 2^-24 of itself; s is fl32 of a sum in
double, off by less than 2^-23 M. Therefore E holds 2^-20 L more than above, r holds 2^-20 |r| more: together
2^-19 a L_x L_y + 2^-20 (|r_x| + |r_y|), which is more than all of these. Errors in double (2^-53 of sizes that
are compared, times D) disappear in it; E and L are multiplied by 1 + 2^-20 for their own roundings and all are
rounded up to float32. Underflow loses less than 2^-149 in each of 2 D + 10 operations: r holds 2^-126 more.
Nothing overflows as vectors are no longer than :data:`LONGEST`. compare.c uses the largest E and L of some rows
for all of them: U only grows.

**16-bit sums.** On AVX2 a product adds (q_x + 64) q_y, over 16 components that ``largest_group`` names, in 16
bits. 0 < q_x + 64 <= 127, and the scale is chosen so that the positive q_y of such a group add up to 258 at
most, and so do the negative ones: every partial sum is between -32766 and 32766. All other sums are of 32 bits;
D is at most :data:`LARGEST_DIM`, and 127 * 63 * D < 2^31.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpc_jobs.mpi_dna_seq.build import BestK, Bounds, Kernel, Side

LONGEST = 2.0**60
"""Norm of the longest vector whose scores and bounds stay finite in float32."""
LARGEST_DIM = 2**17
PANEL = 16  # as in pairs.h
DEPTH = 32


@dataclass(frozen=True)
class Form:
    """What is multiplied for n rows, and the bounds of each; padded to whole panels of 16 rows.

    ``panels`` int8 (panels, depth / 4, 16, 4) and ``shifts`` int32, or None for float32; ``scale``, ``error``,
    ``length``, ``offset`` float32.
    """

    panels: np.ndarray | None
    shifts: np.ndarray | None
    scale: np.ndarray
    error: np.ndarray
    length: np.ndarray
    offset: np.ndarray

    def side(self, first_row: int, vectors: np.ndarray, best: BestK, float32: Form) -> Side:
        """The block as the compiled code takes it; lives no longer than the arrays.

        :param float32: the float32 form of the same vectors, for its bounds.
        """
        return Side(
            first_row,
            vectors.ctypes.data,
            None if self.panels is None else self.panels.ctypes.data,
            None if self.shifts is None else self.shifts.ctypes.data,
            self._bounds(),
            float32._bounds(),
            best,
        )

    def _bounds(self) -> Bounds:
        return Bounds(*(array.ctypes.data for array in (self.scale, self.error, self.length, self.offset)))


def as_float32(kernel: Kernel, vectors: np.ndarray, *, distance: bool) -> Form:
    """The vectors themselves; ``distance``: for squared distances, not dot products. 16 bytes a row."""
    bounds = _bounds(vectors)
    kernel.bound_fp32(vectors.ctypes.data, *vectors.shape, distance, *(bound.ctypes.data for bound in bounds))
    return Form(None, None, *bounds)


def as_int8(kernel: Kernel, vectors: np.ndarray, centre: np.ndarray, *, distance: bool) -> Form:
    """Quantised after ``centre``, float32 (dim,), is taken away: a quarter of the vectors' memory."""
    rows, dim = vectors.shape
    bounds = _bounds(vectors)
    depth = -(-dim // DEPTH) * DEPTH
    panels = np.zeros((len(bounds[0]) // PANEL, depth // 4, PANEL, 4), np.int8)
    shifts = np.zeros(len(bounds[0]), np.int32)
    work = np.empty(5 * depth, np.uint8)
    kernel.quantise(
        vectors.ctypes.data,
        rows,
        dim,
        centre.ctypes.data,
        distance,
        *(array.ctypes.data for array in (panels, shifts, *bounds, work)),
    )
    return Form(panels, shifts, *bounds)


def _bounds(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scale, error, length, offset; what fills up the last panel has an offset that reaches no threshold."""
    padded = -(-len(vectors) // PANEL) * PANEL
    scale, error, length = (np.zeros(padded, np.float32) for _ in range(3))
    return scale, error, length, np.full(padded, np.nan, np.float32)
