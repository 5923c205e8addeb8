"""Many sequences in one buffer, as encoders read them and training cuts windows from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tasks.compiled import compiled

COMPLEMENT = np.arange(256, dtype=np.uint8)
COMPLEMENT[np.frombuffer(b"ACGTacgt", dtype=np.uint8)] = np.frombuffer(b"TGCAtgca", dtype=np.uint8)

BASE_CODES = np.full(256, 4, dtype=np.uint8)
"""A=0, C=1, G=2, T=3 in either case, so that ``3 - code`` is the complement; everything else is 4."""
for _code, _letters in enumerate((b"Aa", b"Cc", b"Gg", b"Tt")):
    BASE_CODES[list(_letters)] = _code


@dataclass(frozen=True)
class Sequences:
    """Sequence ``i`` is ``bases[offsets[i]:offsets[i + 1]]``.

    :param bases: ASCII, uint8.
    :param offsets: int64, one more than there are sequences, never falling; need not start at 0.
    """

    bases: np.ndarray
    offsets: np.ndarray

    @classmethod
    def from_arrow(cls, column: pa.Array | pa.ChunkedArray) -> Sequences:
        """The sequences of a string column without nulls; copies no bases where the column has one chunk."""
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # more than one chunk remains where offsets would overflow
            column = column.cast(pa.large_string()).combine_chunks()
        if column.null_count:
            raise ValueError(f"{column.null_count} of {len(column)} sequences are null")
        width = np.int64 if pa.types.is_large_string(column.type) else np.int32
        _, offsets, bases = column.buffers()
        if offsets is None or bases is None:
            return cls(np.zeros(0, np.uint8), np.zeros(len(column) + 1, np.int64))
        window = np.frombuffer(offsets, dtype=width)[column.offset : column.offset + len(column) + 1]
        return cls(np.frombuffer(bases, dtype=np.uint8), window.astype(np.int64))

    @classmethod
    def concatenate(cls, parts: list[Sequences]) -> Sequences:
        """The sequences of all parts in one buffer."""
        packed = [part.bases[part.offsets[0] : part.offsets[-1]] for part in parts]
        offsets = np.zeros(1 + sum(len(part) for part in parts), dtype=np.int64)
        np.cumsum(np.concatenate([part.lengths for part in parts]), out=offsets[1:])
        return cls(np.concatenate(packed), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: slice) -> Sequences:
        start, stop, _ = rows.indices(len(self))
        return Sequences(self.bases, self.offsets[start : max(start, stop) + 1])

    def to_arrow(self) -> pa.Array:
        """The sequences as a large_string array; copies no bases."""
        return pa.Array.from_buffers(
            pa.large_string(), len(self), [None, pa.py_buffer(self.offsets), pa.py_buffer(self.bases)]
        )

    @property
    def lengths(self) -> np.ndarray:
        """Bases per sequence, int64."""
        return np.diff(self.offsets)

    def windows(
        self, rows: np.ndarray, starts: np.ndarray, lengths: np.ndarray, reverse: np.ndarray
    ) -> Sequences:
        """New sequences: ``lengths[i]`` bases of sequence ``rows[i]`` from base ``starts[i]``.

        :param reverse: bool; where it is set, the window is reverse-complemented.
        """
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        bases = np.empty(offsets[-1], dtype=np.uint8)
        _copy_windows(self.bases, self.offsets[rows] + starts, reverse, COMPLEMENT, offsets, bases)
        return Sequences(bases, offsets)

    def take(self, rows: np.ndarray) -> Sequences:
        """The sequences of ``rows``, in that order."""
        nothing = np.zeros(len(rows), dtype=np.int64)
        return self.windows(rows, nothing, self.lengths[rows], nothing.astype(bool))

    def reverse_complement(self) -> Sequences:
        """The other strand of every sequence; what is not ACGT stays what it is."""
        nothing = np.zeros(len(self), dtype=np.int64)
        return self.windows(np.arange(len(self)), nothing, self.lengths, np.ones(len(self), dtype=bool))


@compiled
def _copy_windows(
    source: np.ndarray,
    starts: np.ndarray,
    reverse: np.ndarray,
    complement: np.ndarray,
    offsets: np.ndarray,
    bases: np.ndarray,
) -> None:
    for window in range(len(starts)):
        first, end = offsets[window], offsets[window + 1]
        for i in range(end - first):
            base = source[starts[window] + i]
            if reverse[window]:
                bases[end - 1 - i] = complement[base]
            else:
                bases[first + i] = base
