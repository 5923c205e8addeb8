"""Tokens of many sequences, and the cutting of sequences into fixed words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numba
import numpy as np
from tokenizers import Tokenizer

from tasks.encoders.sequences import BASE_CODES, Sequences

SEQUENCES_AT_ONCE = 1024  # what tokenizers returns takes about 100 bytes a token


@dataclass(frozen=True)
class Tokens:
    """The tokens of sequence ``i`` are ``ids[offsets[i]:offsets[i + 1]]``, special tokens with them.

    :param ids: int32.
    :param offsets: int64, one more than there are sequences, from 0.
    """

    ids: np.ndarray
    offsets: np.ndarray

    @classmethod
    def from_lists(cls, lists: list[list[int]]) -> Tokens:
        """Tokens from one list for each sequence."""
        offsets = np.zeros(len(lists) + 1, dtype=np.int64)
        np.cumsum([len(ids) for ids in lists], out=offsets[1:])
        return cls(np.array([token for ids in lists for token in ids], dtype=np.int32), offsets)

    @classmethod
    def concatenate(cls, parts: list[Tokens]) -> Tokens:
        """The tokens of all parts, in order."""
        lengths = np.concatenate([np.zeros(1, dtype=np.int64), *(part.lengths for part in parts)])
        return cls(np.concatenate([np.zeros(0, np.int32), *(part.ids for part in parts)]), np.cumsum(lengths))

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence, int64."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The tokens of ``rows``, one row after the other, in that order."""
        lengths = self.lengths[rows]
        shifts = self.offsets[rows] - (np.cumsum(lengths) - lengths)
        return self.ids[np.repeat(shifts, lengths) + np.arange(lengths.sum())]


class Cutter(Protocol):
    """Cuts sequences into the tokens of one model."""

    @property
    def special(self) -> np.ndarray:
        """bool, by token: whether it stands for no part of a sequence that the model knows."""
        ...

    def cut(self, sequences: Sequences, *, max_tokens: int) -> Tokens:
        """Tokens of each sequence, special tokens included; what is beyond ``max_tokens`` is left out."""
        ...


@dataclass(frozen=True)
class WordCutter:
    """Words of ``word_bases`` bases, and single letters.

    With ``overlapping`` (DNABERT) a word starts at every base. Otherwise (Nucleotide Transformer) one word follows
    the other, and where a word is interrupted by anything but ACGT or by the end, letters stand one by one.

    :param word_bases: 0 for letters only.
    :param words: int32 (4 ** word_bases,): the token of a word, by its number with A=0, C=1, G=2, T=3.
    :param letters: int32 (256,): the token of an ASCII character.
    :param unknown: the token of a word that holds anything but ACGT.
    :param before: int32, the tokens that come before each sequence.
    :param after: int32, the tokens that come after it.
    """

    word_bases: int
    overlapping: bool
    words: np.ndarray
    letters: np.ndarray
    unknown: int
    before: np.ndarray
    after: np.ndarray
    special: np.ndarray

    def cut(self, sequences: Sequences, *, max_tokens: int) -> Tokens:
        """See :meth:`Cutter.cut`."""
        bases = sequences.bases
        room = max_tokens - len(self.before) - len(self.after)
        shape = (BASE_CODES, self.word_bases, self.overlapping, self.words, self.letters, self.unknown, room)
        counts = np.empty(len(sequences), dtype=np.int64)
        _count(bases, sequences.offsets, *shape, counts)
        offsets = np.zeros(len(sequences) + 1, dtype=np.int64)
        np.cumsum(counts + len(self.before) + len(self.after), out=offsets[1:])
        ids = np.empty(offsets[-1], dtype=np.int32)
        _fill(bases, sequences.offsets, *shape, self.before, self.after, offsets, ids)
        return Tokens(ids, offsets)


class TrainedCutter:
    """A trained tokenizer (byte-pair encoding above all), run by Hugging Face's tokenizers on all threads."""

    def __init__(self, tokenizer: Tokenizer, special: np.ndarray) -> None:
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.special = special

    def cut(self, sequences: Sequences, *, max_tokens: int) -> Tokens:
        """See :meth:`Cutter.cut`."""
        self._tokenizer.enable_truncation(max_tokens)
        parts = []
        for start in range(0, len(sequences), SEQUENCES_AT_ONCE):
            texts = sequences[start : start + SEQUENCES_AT_ONCE].to_arrow().to_pylist()
            parts.append(Tokens.from_lists([cut.ids for cut in self._tokenizer.encode_batch_fast(texts)]))
        return Tokens.concatenate(parts)


@numba.njit(nogil=True)
def _count(
    bases: np.ndarray,
    offsets: np.ndarray,
    base_codes: np.ndarray,
    word_bases: int,
    overlapping: bool,
    words: np.ndarray,
    letters: np.ndarray,
    unknown: int,
    room: int,
    counts: np.ndarray,
) -> None:
    nowhere = np.empty(room, dtype=np.int32)
    for row in range(len(counts)):
        sequence = bases[offsets[row] : offsets[row + 1]]
        counts[row] = _cut(sequence, base_codes, word_bases, overlapping, words, letters, unknown, nowhere)


@numba.njit(nogil=True)
def _fill(
    bases: np.ndarray,
    offsets: np.ndarray,
    base_codes: np.ndarray,
    word_bases: int,
    overlapping: bool,
    words: np.ndarray,
    letters: np.ndarray,
    unknown: int,
    room: int,
    before: np.ndarray,
    after: np.ndarray,
    token_offsets: np.ndarray,
    ids: np.ndarray,
) -> None:
    for row in range(len(offsets) - 1):
        sequence = bases[offsets[row] : offsets[row + 1]]
        place = ids[token_offsets[row] : token_offsets[row + 1]]
        place[: len(before)] = before
        place[len(place) - len(after) :] = after
        inner = place[len(before) : len(place) - len(after)]
        _cut(sequence, base_codes, word_bases, overlapping, words, letters, unknown, inner)


@numba.njit(nogil=True)
def _cut(
    sequence: np.ndarray,
    base_codes: np.ndarray,
    word_bases: int,
    overlapping: bool,
    words: np.ndarray,
    letters: np.ndarray,
    unknown: int,
    out: np.ndarray,
) -> int:
    """Write tokens until the sequence or ``out`` ends; gives their number."""
    count = 0
    position = 0
    last = len(sequence) - word_bases if overlapping else len(sequence) - 1
    while position <= last and count < len(out):
        number = 0
        known = 0 < word_bases <= len(sequence) - position
        if known:
            for i in range(position, position + word_bases):
                code = base_codes[sequence[i]]
                if code > 3:
                    known = False
                    break
                number = number * 4 + code
        if known:
            out[count] = words[number]
        elif overlapping:
            out[count] = unknown
        else:
            out[count] = letters[sequence[position]]
        count += 1
        position += word_bases if known and not overlapping else 1
    return count
