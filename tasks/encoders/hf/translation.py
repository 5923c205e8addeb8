"""DNA to protein: the longest open reading frame of the six frames."""

from __future__ import annotations

import numba
import numpy as np

from tasks.encoders.sequences import BASE_CODES, Sequences

STOP, UNKNOWN = ord("*"), ord("X")
AMINO_ACIDS = np.frombuffer(
    b"KNKNTTTTRSRSIIMIQHQHPPPPRRRRLLLLEDEDAAAAGGGGVVVV*Y*YSSSS*CWCLFLF", dtype=np.uint8
)
"""The standard genetic code (NCBI table 1), codons AAA, AAC, AAG, AAT, ACA, ... TTT."""


def longest_open_reading_frames(reads: Sequences) -> Sequences:
    """The protein of each read's longest run of codons without a stop codon, in any of the six frames.

    A run needs no start codon, for a read rarely holds one. A codon with anything but ACGT is X. Of runs of equal
    length the protein that comes first in the alphabet is taken, so both strands of a read give the same protein.
    A read without a single codon other than stop is the protein X.
    """
    spans = np.empty((len(reads), 3), dtype=np.int64)
    _find(reads.bases, reads.offsets, BASE_CODES, AMINO_ACIDS, spans)
    offsets = np.zeros(len(reads) + 1, dtype=np.int64)
    np.cumsum(np.maximum(spans[:, 2], 1), out=offsets[1:])
    proteins = np.full(offsets[-1], UNKNOWN, dtype=np.uint8)
    _translate(reads.bases, spans, BASE_CODES, AMINO_ACIDS, offsets, proteins)
    return Sequences(proteins, offsets)


@numba.njit(nogil=True)
def _residue(
    bases: np.ndarray, start: int, step: int, base_codes: np.ndarray, amino_acids: np.ndarray
) -> int:
    """The amino acid of the codon whose first base is ``start``; ``step`` is -1 on the other strand."""
    codon = 0
    for i in range(3):
        code = base_codes[bases[start + i * step]]
        if code > 3:
            return UNKNOWN
        codon = codon * 4 + (code if step > 0 else 3 - code)
    return amino_acids[codon]


@numba.njit(nogil=True)
def _comes_first(
    bases: np.ndarray,
    start: int,
    step: int,
    other: np.ndarray,
    codons: int,
    base_codes: np.ndarray,
    amino_acids: np.ndarray,
) -> bool:
    """Whether the protein at ``start`` is before the one at ``other`` in the alphabet; both have ``codons``."""
    for i in range(codons):
        mine = _residue(bases, start + 3 * i * step, step, base_codes, amino_acids)
        theirs = _residue(bases, other[0] + 3 * i * other[1], other[1], base_codes, amino_acids)
        if mine != theirs:
            return mine < theirs
    return False


@numba.njit(nogil=True)
def _find(
    bases: np.ndarray, offsets: np.ndarray, base_codes: np.ndarray, amino_acids: np.ndarray, spans: np.ndarray
) -> None:
    """Per read the best run as (first base, step, codons)."""
    for read in range(len(offsets) - 1):
        best = spans[read]
        best[:] = 0
        for frame in range(6):
            step = 1 if frame < 3 else -1
            first = offsets[read] + frame if step > 0 else offsets[read + 1] - 1 - (frame - 3)
            codons = (offsets[read + 1] - offsets[read] - frame % 3) // 3
            run = 0
            for codon in range(codons + 1):
                here = first + 3 * codon * step
                if codon < codons and _residue(bases, here, step, base_codes, amino_acids) != STOP:
                    run += 1
                    continue
                start = here - 3 * run * step
                if run > best[2] or (
                    run == best[2]
                    and run > 0
                    and _comes_first(bases, start, step, best, run, base_codes, amino_acids)
                ):
                    best[0], best[1], best[2] = start, step, run
                run = 0


@numba.njit(nogil=True)
def _translate(
    bases: np.ndarray,
    spans: np.ndarray,
    base_codes: np.ndarray,
    amino_acids: np.ndarray,
    offsets: np.ndarray,
    proteins: np.ndarray,
) -> None:
    for read in range(len(spans)):
        start, step, codons = spans[read]
        for i in range(codons):
            proteins[offsets[read] + i] = _residue(bases, start + 3 * i * step, step, base_codes, amino_acids)
