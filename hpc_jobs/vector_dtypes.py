"""How vectors are stored: as float32, float16, or int8 with a scale for each vector.

For a unit vector x of D components, with x' what is read back:

=========  ===============  ==========================================================
dtype      bytes a vector   error
=========  ===============  ==========================================================
float32    4 D              none
float16    2 D              each component to 2^-11 of itself, or 2^-25 if that is more
int8       D + 4            ``|x - x'| <= sqrt(D) max|x| / 127``
=========  ===============  ==========================================================

A cosine of two such vectors is off by at most the sum of the two errors. int8 keeps the length of the vector
exactly (to the last bits of float32): its scale is the ratio of the lengths of x and of its rounded codes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "int8": np.dtype("i1"),
}
HIGHEST_CODE = 127


def pack(vectors: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Codes (rows, dim) of ``dtype``, and for int8 the scale of each row, float32 (rows), else None.

    :param vectors: float32 (rows, dim).
    :raises ValueError: a vector holds NaN or infinity, which int8 cannot say.
    """
    if dtype != "int8":
        return np.ascontiguousarray(vectors, dtype=DTYPES[dtype]), None
    largest = np.abs(vectors).max(axis=1, initial=0)
    if not np.isfinite(largest).all():
        row = int(np.argmin(np.isfinite(largest)))
        raise ValueError(f"the vector of row {row} holds NaN or infinity and cannot be stored as int8")
    step = np.where(largest > 0, largest / HIGHEST_CODE, 1)
    codes = np.rint(vectors / step[:, None]).astype(np.int8)
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    of_codes = np.sqrt(np.einsum("ij,ij->i", codes, codes, dtype=np.float64))
    return codes, (lengths / np.maximum(of_codes, 1)).astype("<f4")


def unpack(codes: np.ndarray, scales: np.ndarray | None) -> np.ndarray:
    """The float32 (rows, dim) that :func:`pack` stands for."""
    vectors = codes.astype(np.float32, copy=False)
    return vectors if scales is None else vectors * scales[:, None]
