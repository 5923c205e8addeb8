"""Which reads are mates: by their place in the files, checked by their names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tasks.errors import InvalidReads
from tasks.reads.block import ReadBlock, selected

_FIRST, _SECOND = ord("1"), ord("2")
_MARKS = b"/._"


def split_at(block: ReadBlock, slots: int) -> tuple[ReadBlock, ReadBlock]:
    """The block's first ``slots`` record slots, and the others."""
    border = block.first_record + slots
    row = int(np.searchsorted(block.record_numbers, border))
    base = block.offsets[row]
    before = replace(
        block,
        record_numbers=block.record_numbers[:row],
        names=block.names[:row],
        sequence=block.sequence[:base],
        quality=block.quality[:base],
        offsets=block.offsets[: row + 1],
        quarantined=[record for record in block.quarantined if record.record_number < border],
    )
    after = replace(
        block,
        first_record=border,
        record_numbers=block.record_numbers[row:],
        names=block.names[row:],
        sequence=block.sequence[base:],
        quality=block.quality[base:],
        offsets=block.offsets[row:] - base,
        quarantined=[record for record in block.quarantined if record.record_number >= border],
    )
    return before, after


def uninterleaved(block: ReadBlock) -> tuple[ReadBlock, ReadBlock]:
    """First and second mates of records that alternate; both are numbered by pair.

    Quarantined records keep the number that they have in the file.
    """
    first, second = (
        replace(
            selected(block, np.flatnonzero(block.record_numbers % 2 == mate % 2)),
            first_record=(block.first_record + 1) // 2,
            quarantined=[r for r in block.quarantined if r.record_number % 2 == mate % 2],
        )
        for mate in (1, 2)
    )
    return (
        replace(first, record_numbers=(first.record_numbers + 1) // 2),
        replace(second, record_numbers=second.record_numbers // 2),
    )


def check_mates(first: ReadBlock, second: ReadBlock, *, sources: tuple[str, str]) -> None:
    """Raise InvalidReads where reads of one record number have names of different templates."""
    _, rows, mates = np.intersect1d(
        first.record_numbers, second.record_numbers, assume_unique=True, return_indices=True
    )
    names = [first.names[row] for row in rows.tolist()]
    others = [second.names[mate] for mate in mates.tolist()]
    for row in np.flatnonzero(~_surely_mates(names, others)).tolist():
        name, other = names[row], others[row]
        if name == other or _are_mates(name, other):
            continue
        number = int(first.record_numbers[rows[row]])
        raise InvalidReads(
            f"{_title(*sources)}: record {number} is {name.decode(errors='replace')!r} in the first and "
            f"{other.decode(errors='replace')!r} in the second mate's reads. Give the reads that belong together; "
            "if they are not mates at all, land them as single reads"
        )


def _title(first: str, second: str) -> str:
    if first == second:
        return f"{first} does not hold one pair after the other"
    return f"{first} and {second} are not the two files of one pair"


def _surely_mates(names: list[bytes], others: list[bytes]) -> np.ndarray:
    """Whether the names differ in one character only, 1 and 2, as in ``r7/1`` or ``r7 1:N:0``: bool (pairs).

    The case of nearly every record, for all of a block at once; the others are looked at one by one.
    """
    sizes = np.fromiter(map(len, names), dtype=np.int64, count=len(names))
    if not len(sizes) or not np.array_equal(sizes, np.fromiter(map(len, others), np.int64, len(others))):
        return np.zeros(len(names), dtype=bool)
    # A space before and behind each name, so that every character has a neighbour in its own name.
    text, other = (np.frombuffer(b" " + b"  ".join(each) + b"  ", dtype=np.uint8) for each in (names, others))
    places = np.flatnonzero(text != other)
    pairs = np.searchsorted(np.cumsum(sizes + 2), places, side="right")
    differing = np.bincount(pairs, minlength=len(names))
    before, behind = text[places - 1], text[places + 1]
    is_word = (before == ord(" ")) | (before == ord("\t"))
    is_mark = np.isin(before, np.frombuffer(_MARKS, dtype=np.uint8))
    is_mark &= (behind == ord(" ")) | (behind == ord("\t"))
    fine = (text[places] == _FIRST) & (other[places] == _SECOND) & (is_word | is_mark)
    starts = np.cumsum(sizes + 2) - (sizes + 2) + 1
    fine &= ~is_word | (places > starts[pairs])  # the first word itself must not differ
    sure = differing == 0
    sure[pairs[fine & (differing[pairs] == 1)]] = True
    return sure


def _are_mates(name: bytes, other: bytes) -> bool:
    """Whether the first words are equal, but for a last 1 and 2 as in ``r7/1``, ``r7.1`` or ``r7_1``."""
    word, mate = (text.split(maxsplit=1)[0] if text.strip() else b"" for text in (name, other))
    return word == mate or (
        word[:-1] == mate[:-1] and word[-2:] in (b"/1", b".1", b"_1") and mate[-1:] == b"2"
    )
