"""k-mer profiles: which canonical k-mers a sequence is made of, and ``kmer://``, the encoder that is nothing else.

Canonical: a k-mer and its reverse complement are one, the smaller of the two in alphabetical order. So a read and
its reverse complement have the same profile. Frequencies enter by their square roots, which makes the dot product
of two profiles the Bhattacharyya coefficient of their distributions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numba
import numpy as np
import pyarrow as pa

from tasks.compiled import compiled
from tasks.encoders.sequences import BASE_CODES, Sequences
from tasks.errors import InvalidEncoder

if TYPE_CHECKING:
    from tasks.encoders.protocol import EncoderUri

MAX_K = 6
"""2,080 canonical 6-mers; from 7 on, vectors would have more than 8,000 columns."""
NO_LENGTH = 2**62 - 1
"""Stands for the shorter length where there is one length only: no read is that long."""


class KmerProfile:
    """``kmer://K`` or ``kmer://K+K``: the profile as a unit vector; untrained, so always the same.

    A sequence without any k-mer gets the vector whose columns are all equal.
    """

    strand_symmetric = True

    def __init__(self, lengths: Sequence[int]) -> None:
        self._profiles = ProfileTable(lengths)
        self.dim = self._profiles.width
        self.uri = "kmer://" + "+".join(map(str, lengths))
        self.revision = hashlib.sha256(f"canonical k-mer profile 1, k={list(lengths)}".encode()).hexdigest()

    @classmethod
    def from_address(cls, address: EncoderUri) -> Self:
        """Raises InvalidEncoder for lengths that are not 1 to 6 or do not rise, and for options."""
        lengths = [int(k) for k in address.target.split("+")]
        if lengths != sorted(set(lengths)) or not 1 <= lengths[0] <= lengths[-1] <= MAX_K or address.options:
            raise InvalidEncoder(
                f"{address}: write one k-mer length or two, from 1 to {MAX_K} and the smaller first, and "
                "nothing else; for example kmer://4+5"
            )
        return cls(lengths)

    def encode(self, reads: pa.Table) -> np.ndarray:
        """See :meth:`tasks.encoders.protocol.Encoder.encode`."""
        vectors = self._profiles.of(Sequences.from_arrow(reads["sequence"]))
        norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
        uniform = np.float32(self.dim**-0.5)
        return np.divide(vectors, norms, out=np.full_like(vectors, uniform), where=norms > 0)


class ProfileTable:
    """Computes profiles of one or two k-mer lengths.

    Columns are those of the shorter length, then of the longer; within a length in alphabetical order of the
    canonical k-mers.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        *shorter, self._k = lengths
        self._shorter_k = shorter[0] if shorter else NO_LENGTH
        self._shorter_columns = _canonical_columns(shorter[0]) if shorter else np.zeros(1, dtype=np.int64)
        self._first_column = int(self._shorter_columns.max()) + 1 if shorter else 0
        self._columns = _canonical_columns(self._k) + self._first_column
        self.width = int(self._columns.max()) + 1

    def of(self, sequences: Sequences) -> np.ndarray:
        """Square roots of the relative frequencies: float32 (sequences, width).

        The part of each length is a unit vector, or zero where a sequence has no such k-mer. Anything but ACGT
        (of either case) breaks k-mers.
        """
        out = np.zeros((len(sequences), self.width), dtype=np.float32)
        _profile(
            sequences.bases,
            sequences.offsets,
            BASE_CODES,
            self._shorter_k,
            self._k,
            self._shorter_columns,
            self._columns,
            self._first_column,
            out,
        )
        return out


@compiled
def _profile(
    bases: np.ndarray,
    offsets: np.ndarray,
    base_codes: np.ndarray,
    shorter_k: int,
    k: int,
    shorter_columns: np.ndarray,
    columns: np.ndarray,
    first_column: int,
    out: np.ndarray,
) -> None:
    # Both lengths in one pass, and nothing else: a loop over lengths, or totals counted here, halve the speed.
    shorter_mask, mask = len(shorter_columns) - 1, len(columns) - 1  # 4^k columns each
    for row in range(len(offsets) - 1):
        kmer, run = 0, 0
        counts = out[row]
        for i in range(offsets[row], offsets[row + 1]):
            code = base_codes[bases[i]]
            if code > 3:
                run = 0
                continue
            kmer = ((kmer << 2) | code) & mask
            run += 1
            if run >= shorter_k:
                counts[shorter_columns[kmer & shorter_mask]] += 1
            if run >= k:
                counts[columns[kmer]] += 1
        _to_square_roots(counts[:first_column])
        _to_square_roots(counts[first_column:])


@numba.njit(nogil=True, fastmath={"reassoc"})  # sums of whole numbers are exact in any order
def _to_square_roots(counts: np.ndarray) -> None:
    total = np.float32(0)
    for column in range(len(counts)):
        total += counts[column]
    share = np.float32(1) / max(total, np.float32(1))
    for column in range(len(counts)):
        counts[column] = np.sqrt(counts[column] * share)


def _canonical_columns(k: int) -> np.ndarray:
    """Column of every k-mer code (two bits a base, A=0 C=1 G=2 T=3): that of the smaller strand."""
    codes = np.arange(4**k)
    reverse = np.zeros_like(codes)
    for position in range(k):
        reverse |= (3 - (codes >> (2 * position) & 3)) << (2 * (k - 1 - position))
    _, columns = np.unique(np.minimum(codes, reverse), return_inverse=True)
    return columns.astype(np.int64)
