"""How ``dna-transformer`` cuts a read into words: of a fixed length, or byte-pair encoding learnt from reads.

Word 0 is padding and word 1 the unknown word: whatever holds anything but ACGT. The tokenizer.json that is saved
is for Hugging Face's ``AutoTokenizer`` and for upper case. It takes a read with a space between words where these
overlap, ``ACGT CGTA GTAC``, as DNABERT does, and else the read as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Protocol

import numpy as np
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tasks.compiled import compiled
from tasks.encoders.hf.tokens import Tokens, TrainedCutter
from tasks.encoders.sequences import BASE_CODES, Sequences

PAD, UNKNOWN, FIRST_WORD = 0, 1, 2
BPE_WORDS = 1024  # about five bases a word
BPE_LONGEST_BASES = 16
BPE_SAMPLE_READS = 20_000  # what the words are learnt from
TOKENIZER_FILE = "tokenizer.json"


class Words(Protocol):
    """A vocabulary, and the way to cut sequences into its words."""

    word_bases: int
    """Bases of every word; 0 where words differ in length."""
    size: int
    """Padding and the unknown word included."""
    read_as: np.ndarray
    """int64 (size,): the word that is read in place of each, itself unless two are read as one."""
    strand_symmetric: bool
    """Whether a read and its reverse complement are made of the same words."""

    def cut(self, sequences: Sequences, *, max_words: int) -> Tokens:
        """The first ``max_words`` words of each sequence; none of an empty one."""
        ...

    def tokenizer(self) -> Tokenizer:
        """The same for Hugging Face's tokenizers; upper case only."""
        ...


class FixedWords:
    """The ``word_bases`` bases from every base on; from two bases on, a word is one with its reverse complement.

    A read that is shorter than a word is one unknown word.

    Two windows of a genome have too few words in common where words do not overlap: the contrastive loss then
    stays at that of guessing for hundreds of steps.
    """

    def __init__(self, word_bases: int) -> None:
        self.word_bases = word_bases
        self.size = FIRST_WORD + 4**word_bases
        self.strand_symmetric = word_bases > 1
        every_word = np.frombuffer("".join(self._every_word()).encode(), dtype=np.uint8)
        each = Sequences(every_word, np.arange(0, len(every_word) + 1, word_bases))
        self.read_as = np.concatenate([np.arange(FIRST_WORD), self.cut(each, max_words=1).ids])

    def cut(self, sequences: Sequences, *, max_words: int) -> Tokens:
        """See :meth:`Words.cut`."""
        lengths = sequences.lengths
        words = np.minimum(np.maximum(lengths - self.word_bases + 1, lengths > 0), max_words)
        offsets = np.zeros(len(sequences) + 1, dtype=np.int64)
        np.cumsum(words, out=offsets[1:])
        ids = np.full(offsets[-1], UNKNOWN, dtype=np.int32)
        _cut_words(
            sequences.bases,
            sequences.offsets,
            BASE_CODES,
            self.word_bases,
            self.strand_symmetric,
            offsets,
            ids,
        )
        return Tokens(ids, offsets)

    def tokenizer(self) -> Tokenizer:
        """See :meth:`Words.tokenizer`."""
        vocabulary = {"[PAD]": PAD, "[UNK]": UNKNOWN}
        vocabulary |= {word: FIRST_WORD + number for number, word in enumerate(self._every_word())}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = (
            pre_tokenizers.WhitespaceSplit()
            if self.word_bases > 1
            else pre_tokenizers.Split(Regex("."), behavior="isolated")
        )
        return tokenizer

    def _every_word(self) -> Iterator[str]:
        """In the order of their numbers."""
        return map("".join, product("ACGT", repeat=self.word_bases))


class BpeWords:
    """Words of 1 to 16 bases by byte-pair encoding (Sennrich et al., ACL 2016), as DNABERT-2 has them."""

    word_bases = 0
    strand_symmetric = False

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.size = tokenizer.get_vocab_size()
        self.read_as = np.arange(self.size)
        special = np.arange(self.size) < FIRST_WORD
        self._cutter = TrainedCutter(Tokenizer.from_str(tokenizer.to_str()), special)

    @classmethod
    def learnt_from(cls, sequences: Sequences) -> BpeWords:
        """1,024 words (fewer where there are few reads); the same reads give the same words."""
        tokenizer = Tokenizer(models.BPE(unk_token="[UNK]", fuse_unk=True))
        trainer = trainers.BpeTrainer(
            vocab_size=BPE_WORDS,
            special_tokens=["[PAD]", "[UNK]"],
            initial_alphabet=list("ACGT"),
            max_token_length=BPE_LONGEST_BASES,
            show_progress=False,
        )
        sample = _upper_case(sequences[:BPE_SAMPLE_READS]).to_arrow().to_pylist()
        tokenizer.train_from_iterator(
            (run for read in sample for run in re.findall("[ACGT]+", read)), trainer
        )
        return cls(tokenizer)

    def cut(self, sequences: Sequences, *, max_words: int) -> Tokens:
        """See :meth:`Words.cut`."""
        return self._cutter.cut(_upper_case(sequences), max_tokens=max_words)

    def tokenizer(self) -> Tokenizer:
        """See :meth:`Words.tokenizer`."""
        return self._tokenizer


def words_in(directory: Path, word_bases: int) -> Words:
    """The words of a saved encoder, whose config.json says ``dna_word_length``."""
    if word_bases:
        return FixedWords(word_bases)
    return BpeWords(Tokenizer.from_file(str(directory / TOKENIZER_FILE)))


def save_words(words: Words, directory: Path, *, max_words: int) -> None:
    """Write tokenizer.json and tokenizer_config.json, as ``AutoTokenizer`` reads them."""
    PreTrainedTokenizerFast(
        tokenizer_object=words.tokenizer(), pad_token="[PAD]", unk_token="[UNK]", model_max_length=max_words
    ).save_pretrained(directory)


def _upper_case(sequences: Sequences) -> Sequences:
    used = sequences.bases[sequences.offsets[0] : sequences.offsets[-1]]
    return Sequences(
        used & 0xDF, sequences.offsets - sequences.offsets[0]
    )  # the bit that lower-case letters have


@compiled
def _cut_words(
    bases: np.ndarray,
    offsets: np.ndarray,
    base_codes: np.ndarray,
    word_bases: int,
    both_strands: bool,
    word_offsets: np.ndarray,
    ids: np.ndarray,
) -> None:
    """Write the known words into ``ids``; of both strands' words the smaller where both are one."""
    mask = 4**word_bases - 1
    top = 2 * (word_bases - 1)
    for row in range(len(offsets) - 1):
        first_end = offsets[row] + word_bases - 1
        last_end = first_end + word_offsets[row + 1] - word_offsets[row]
        forward, reverse, run = 0, 0, 0
        for i in range(offsets[row], min(last_end, offsets[row + 1])):
            code = int(base_codes[bases[i]])
            run = run + 1 if code < 4 else 0
            forward = (forward << 2 | code & 3) & mask
            reverse = reverse >> 2 | (3 - (code & 3)) << top
            if run >= word_bases:
                number = min(forward, reverse) if both_strands else forward
                ids[word_offsets[row] + i - first_end] = FIRST_WORD + number
