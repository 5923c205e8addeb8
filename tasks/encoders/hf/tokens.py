"""Tokens of many sequences, and the cutting of sequences into fixed words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

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
        chunks = range(0, len(sequences), SEQUENCES_AT_ONCE)
        return Tokens.concatenate(
            [self._cut(sequences[start : start + SEQUENCES_AT_ONCE], max_tokens) for start in chunks]
        )

    def _cut(self, sequences: Sequences, max_tokens: int) -> Tokens:
        room = max_tokens - len(self.before) - len(self.after)
        bases, ends = _beginnings(sequences, room * max(1, self.word_bases))
        row = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
        if self.overlapping:
            starts = np.flatnonzero(np.arange(len(bases)) + self.word_bases <= ends[row])
            number, whole = self._words_at(bases, starts)
            found = np.where(whole, self.words[number], self.unknown)
        else:
            starts, is_word = self._consecutive(bases, ends, row)
            found = self.letters[bases[starts]]
            found[is_word] = self.words[self._words_at(bases, starts[is_word])[0]]
        return self._with_ends(found, np.bincount(row[starts], minlength=len(ends)), room)

    def _words_at(self, bases: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The number of the word at each start, and whether all of it is ACGT (else the number means nothing)."""
        number = np.zeros(len(starts), dtype=np.int64)
        whole = np.ones(len(starts), dtype=bool)
        for i in range(self.word_bases):
            codes = BASE_CODES[bases[starts + i]]
            whole &= codes < 4
            number = number * 4 + (codes & 3)
        return number, whole

    def _consecutive(
        self, bases: np.ndarray, ends: np.ndarray, row: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where tokens start, and which of them are words: as many as fit from the start of each run of ACGT."""
        if self.word_bases == 0:
            return np.arange(len(bases)), np.zeros(len(bases), dtype=bool)
        other = BASE_CODES[bases] > 3
        run_starts = np.flatnonzero(
            other | np.concatenate([[True], other[:-1] | (row[1:] != row[:-1])])[: len(bases)]
        )
        run_lengths = np.diff(run_starts, append=len(bases))
        word_part = np.where(other[run_starts], 0, run_lengths // self.word_bases * self.word_bases)
        place = np.arange(len(bases)) - np.repeat(run_starts, run_lengths)
        word_part = np.repeat(word_part, run_lengths)
        starts = np.flatnonzero((place >= word_part) | (place % self.word_bases == 0))
        return starts, place[starts] < word_part[starts]

    def _with_ends(self, found: np.ndarray, counts: np.ndarray, room: int) -> Tokens:
        """The first ``room`` tokens of each sequence, between the tokens that come before and after."""
        place = np.arange(len(found)) - np.repeat(np.cumsum(counts) - counts, counts)
        row = np.repeat(np.arange(len(counts)), counts)
        kept = place < room
        offsets = np.zeros(len(counts) + 1, dtype=np.int64)
        np.cumsum(np.minimum(counts, room) + len(self.before) + len(self.after), out=offsets[1:])
        ids = np.empty(offsets[-1], dtype=np.int32)
        ids[offsets[row[kept]] + len(self.before) + place[kept]] = found[kept]
        for i, token in enumerate(self.before):
            ids[offsets[:-1] + i] = token
        for i, token in enumerate(self.after[::-1]):
            ids[offsets[1:] - 1 - i] = token
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


def _beginnings(sequences: Sequences, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """The first ``longest`` bases of each sequence one after the other, and where each of them ends."""
    lengths = np.minimum(sequences.lengths, longest)
    ends = np.cumsum(lengths)
    shifts = np.repeat(sequences.offsets[:-1] - (ends - lengths), lengths)
    return sequences.bases[shifts + np.arange(len(shifts))], ends
