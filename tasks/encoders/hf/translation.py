"""DNA to protein: the longest open reading frame of the six frames."""

from __future__ import annotations

import numpy as np

from tasks.encoders.sequences import BASE_CODES, Sequences

READS_AT_ONCE = 1024
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
    proteins: list[bytes] = []
    for start in range(0, len(reads), READS_AT_ONCE):
        proteins += _longest(reads[start : start + READS_AT_ONCE])
    offsets = np.zeros(len(proteins) + 1, dtype=np.int64)
    np.cumsum([len(protein) for protein in proteins], out=offsets[1:])
    return Sequences(np.frombuffer(b"".join(proteins), dtype=np.uint8), offsets)


def _longest(reads: Sequences) -> list[bytes]:
    residues, row = _six_frames(reads)
    stop = residues == STOP
    new_row = row[1:] != row[:-1]
    starts = np.flatnonzero(~stop & np.concatenate([[True], stop[:-1] | new_row])[: len(row)])
    ends = np.flatnonzero(~stop & np.concatenate([stop[1:] | new_row, [True]])[: len(row)]) + 1
    read = row[starts] // 3 % len(reads)
    longest = np.zeros(len(reads), dtype=np.int64)
    np.maximum.at(longest, read, ends - starts)
    chosen: dict[int, bytes] = {}
    for run in np.flatnonzero(ends - starts == longest[read]):
        protein = residues[starts[run] : ends[run]].tobytes()
        chosen[read[run]] = min(protein, chosen.get(read[run], protein))
    return [chosen.get(number, b"X") for number in range(len(reads))]


def _six_frames(reads: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """The residues of all frames one after the other, and for each its row: 3 x (strand x reads + read) + frame."""
    strands = Sequences.concatenate([reads, reads.reverse_complement()])
    codes = BASE_CODES[strands.bases]
    firsts = (strands.offsets[:-1, None] + np.arange(3)).ravel()
    counts = (np.maximum(strands.lengths[:, None] - np.arange(3), 0) // 3).ravel()
    row = np.repeat(np.arange(len(counts)), counts)
    codons = np.repeat(firsts - 3 * (np.cumsum(counts) - counts), counts) + 3 * np.arange(len(row))
    first, second, third = (codes[codons + i] for i in range(3))
    known = (first < 4) & (second < 4) & (third < 4)
    return np.where(known, AMINO_ACIDS[(first * 16 + second * 4 + third) & 63], UNKNOWN).astype(np.uint8), row
