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

from tasks.encoders.sequences import BASE_CODES, Sequences
from tasks.errors import InvalidEncoder

if TYPE_CHECKING:
    from tasks.encoders.protocol import EncoderUri

MAX_K = 6
"""2,080 canonical 6-mers; from 7 on, vectors would have more than 8,000 columns."""


class KmerProfile:
    """``kmer://K[+K...]``: the profile as a unit vector; untrained, so always the same.

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
        """Raises InvalidEncoder for lengths that are not 1 to 6 or not rising, and for options."""
        lengths = [int(k) for k in address.target.split("+")]
        if lengths != sorted(set(lengths)) or not 1 <= lengths[0] <= lengths[-1] <= MAX_K or address.options:
            raise InvalidEncoder(
                f"{address}: k-mer lengths are whole numbers from 1 to {MAX_K}, each once, smallest first, and "
                "nothing else can be chosen; for example kmer://4+5"
            )
        return cls(lengths)

    def encode(self, reads: pa.Table) -> np.ndarray:
        """See :meth:`tasks.encoders.protocol.Encoder.encode`."""
        vectors = self._profiles.of(Sequences.from_arrow(reads["sequence"]))
        norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
        uniform = np.float32(self.dim**-0.5)
        return np.divide(vectors, norms, out=np.full_like(vectors, uniform), where=norms > 0)


class ProfileTable:
    """Computes profiles of some k-mer lengths; columns are those of the first length, then of the next.

    Within a length they are in alphabetical order of the canonical k-mers.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        columns = [_canonical_columns(k) for k in lengths]
        widths = [int(part.max()) + 1 for part in columns]
        self._lengths = np.array(lengths)
        self._ends = np.cumsum(widths)
        self._first_code = np.cumsum([0, *(len(part) for part in columns[:-1])])
        self._columns = np.concatenate(
            [part + end - width for part, end, width in zip(columns, self._ends, widths, strict=True)]
        ).astype(np.int32)
        self.width = int(self._ends[-1])

    def of(self, sequences: Sequences) -> np.ndarray:
        """Square roots of the relative frequencies: float32 (sequences, width).

        The part of each length is a unit vector, or zero where a sequence has no such k-mer. Anything but ACGT
        (of either case) breaks k-mers.
        """
        out = np.zeros((len(sequences), self.width), dtype=np.float32)
        _count_kmers(
            sequences.bases,
            sequences.offsets,
            BASE_CODES,
            self._lengths,
            self._first_code,
            self._columns,
            self._ends,
            out,
        )
        return out


@numba.njit(nogil=True)
def _count_kmers(
    bases: np.ndarray,
    offsets: np.ndarray,
    base_codes: np.ndarray,
    lengths: np.ndarray,
    first_code: np.ndarray,
    columns: np.ndarray,
    ends: np.ndarray,
    out: np.ndarray,
) -> None:
    longest = (1 << (2 * lengths[-1])) - 1
    totals = np.empty(len(lengths), dtype=np.int64)
    for row in range(len(offsets) - 1):
        kmer, run = 0, 0
        counts = out[row]
        totals[:] = 0
        for i in range(offsets[row], offsets[row + 1]):
            code = base_codes[bases[i]]
            if code > 3:
                run = 0
                continue
            kmer = ((kmer << 2) | code) & longest
            run += 1
            for part in range(len(lengths)):
                if run >= lengths[part]:
                    mask = (1 << (2 * lengths[part])) - 1
                    counts[columns[first_code[part] + (kmer & mask)]] += 1
                    totals[part] += 1
        start = 0
        for part in range(len(lengths)):
            share = np.float32(1 / max(totals[part], 1))
            for column in range(start, ends[part]):
                counts[column] = np.sqrt(counts[column] * share)
            start = ends[part]


def _canonical_columns(k: int) -> np.ndarray:
    """Column of every k-mer code (two bits a base, A=0 C=1 G=2 T=3): that of the smaller strand."""
    codes = np.arange(4**k)
    reverse = np.zeros_like(codes)
    for position in range(k):
        reverse |= (3 - (codes >> (2 * position) & 3)) << (2 * (k - 1 - position))
    _, columns = np.unique(np.minimum(codes, reverse), return_inverse=True)
    return columns.astype(np.int64)
