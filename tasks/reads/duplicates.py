"""Reads whose exact sequence was there before, and how many there are of a sequence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasks.compiled import compiled
from tasks.reads.block import ReadBlock

SAMPLED_SEQUENCES = 500
_FIRST_SLOTS = 1 << 16
_FILLED = 0.7
"""Of the slots at most; a search of a new sequence then looks at about six neighbouring ones."""


class SeenSequences:
    """The raw sequences of one sample so far, as 64-bit hashes in an open hash table.

    Memory: 11 to 23 bytes for each distinct sequence (for pairs: pair), half as much again while the table
    grows. A sequence is taken for another one where their hashes are the same: among n distinct ones the
    chance that this happens to any is n² / 2⁶⁵, 3·10⁻⁸ for a million and 3·10⁻⁴ for a hundred million.
    """

    def __init__(self) -> None:
        self._slots = np.zeros(_FIRST_SLOTS, dtype=np.uint64)  # 0: free
        self._distinct = 0

    def repeated(self, mates: tuple[ReadBlock, ...]) -> tuple[np.ndarray, ...]:
        """For each mate's block, bool (reads): was the sequence seen before in this sample?

        The first read of a sequence, in the order of the records, is not repeated. Mates have the same record
        number and are one sequence together: both are repeated, or neither. A read whose mate is in quarantine
        is compared with other such reads.

        :param mates: the blocks of the next part; parts must come in their order.
        """
        first = mates[0].first_record
        keys = np.zeros(mates[0].slots, dtype=np.uint64)
        there = np.zeros(mates[0].slots, dtype=bool)
        for block in mates:
            slots = block.record_numbers - first
            keys = _mixed(keys + np.uint64(1))  # so that the mates' order counts, and that one is missing
            keys[slots] += sequence_hashes(block)
            there[slots] = True
        repeated = np.zeros(len(keys), dtype=bool)
        repeated[there] = self._add(_mixed(keys[there]))
        return tuple(repeated[block.record_numbers - first] for block in mates)

    def _add(self, keys: np.ndarray) -> np.ndarray:
        """Add keys in their order; gives which of them were there already."""
        keys[keys == 0] = 1
        size = len(self._slots)
        while self._distinct + len(keys) > _FILLED * size:
            size *= 2
        if size > len(self._slots):
            held, self._slots = self._slots, np.zeros(size, dtype=np.uint64)
            _insert(self._slots, held[held != 0])
        known = _insert(self._slots, keys)
        self._distinct += len(keys) - int(known.sum())
        return known


@dataclass(frozen=True)
class CopyCounts:
    """How often each of a sample of sequences occurs: those with the smallest hashes.

    The sample is exact however the reads were split and in whatever order they are summed: a sequence that is
    among the 500 of the whole was among the 500 of every part that had it, so none of its copies was missed.
    Distinct sequences enter it with the same chance, however many copies they have. Of 500 sequences or fewer
    all are sampled. (Bottom-k sketch: Cohen and Kaplan 2007.)

    :param hashes: uint64 (at most 500), rising.
    :param counts: int64, reads with that sequence; mates count apart.
    """

    hashes: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @classmethod
    def of(cls, block: ReadBlock) -> CopyCounts:
        """The sample of a block's reads."""
        hashes, counts = np.unique(sequence_hashes(block), return_counts=True)
        return cls(hashes[:SAMPLED_SEQUENCES].copy(), counts[:SAMPLED_SEQUENCES].copy())

    def __add__(self, other: CopyCounts) -> CopyCounts:
        hashes, place = np.unique(np.concatenate([self.hashes, other.hashes]), return_inverse=True)
        counts = np.zeros(len(hashes), dtype=np.int64)
        np.add.at(counts, place, np.concatenate([self.counts, other.counts]))
        return CopyCounts(hashes[:SAMPLED_SEQUENCES], counts[:SAMPLED_SEQUENCES])

    def to_json(self) -> dict[str, int]:
        """Hash, as 16 hexadecimal digits, -> count."""
        pairs = zip(self.hashes.tolist(), self.counts.tolist(), strict=True)
        return {f"{key:016x}": count for key, count in pairs}

    @classmethod
    def from_json(cls, value: Mapping[str, int]) -> CopyCounts:
        """What :meth:`to_json` gave."""
        hashes = np.array([int(key, 16) for key in value], dtype=np.uint64)
        order = np.argsort(hashes)
        return cls(hashes[order], np.array(list(value.values()), dtype=np.int64)[order])


def sequence_hashes(block: ReadBlock) -> np.ndarray:
    """A 64-bit hash of each read's sequence, uint64 (reads); the same on every machine."""
    return _hashes(block.sequence, block.offsets)


@compiled
def _mixed(key: Any) -> Any:
    """A permutation of uint64 after which each bit depends on all: the end of MurmurHash3."""
    key = (key ^ (key >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    key = (key ^ (key >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return key ^ (key >> np.uint64(33))


@compiled
def _hashes(sequence: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Words of 21 bases, 3 bits each, mixed into one another.

    The last three bits tell A, C, G, T and N apart and are never 0, so a word also tells how many it holds.
    """
    hashes = np.zeros(len(offsets) - 1, dtype=np.uint64)
    for read in range(len(hashes)):
        key = np.uint64(0)
        stop = offsets[read + 1]
        for start in range(offsets[read], stop, 21):
            word = np.uint64(0)
            for i in range(start, min(start + 21, stop)):
                word = (word << np.uint64(3)) | np.uint64(sequence[i] & 7)
            key = _mixed(key ^ word) + np.uint64(0x9E3779B97F4A7C15)
        hashes[read] = key
    return hashes


@compiled
def _insert(slots: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Put each key into its slot or the next free one; gives which of them were there already."""
    known = np.zeros(len(keys), dtype=np.bool_)
    last = np.uint64(len(slots) - 1)  # their number is a power of two
    for i in range(len(keys)):
        slot = keys[i] & last
        while slots[slot] != 0 and slots[slot] != keys[i]:
            slot = (slot + np.uint64(1)) & last
        known[i] = slots[slot] != 0
        slots[slot] = keys[i]
    return known
