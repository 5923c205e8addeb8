"""How ``dna-transformer`` cuts a read into words: fixed lengths, or byte-pair encoding learnt from reads.

Word 0 is padding and word 1 the unknown word: whatever holds anything but ACGT. The tokenizer.json that is saved
cuts upper-case reads into the same words for Hugging Face's ``AutoTokenizer``.
"""

from __future__ import annotations

import re
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

    def cut(self, sequences: Sequences, *, max_words: int) -> Tokens:
        """The first ``max_words`` words of each sequence; none of an empty one."""
        ...

    def tokenizer(self) -> Tokenizer:
        """The same for Hugging Face's tokenizers; upper case only."""
        ...


class FixedWords:
    """Words of ``word_bases`` bases, one after the other (1: characters). A rest that is too short is unknown."""

    def __init__(self, word_bases: int) -> None:
        self.word_bases = word_bases
        self.size = FIRST_WORD + 4**word_bases

    def cut(self, sequences: Sequences, *, max_words: int) -> Tokens:
        """See :meth:`Words.cut`."""
        offsets = np.zeros(len(sequences) + 1, dtype=np.int64)
        np.cumsum(np.minimum(-(-sequences.lengths // self.word_bases), max_words), out=offsets[1:])
        ids = np.empty(offsets[-1], dtype=np.int32)
        _cut_words(sequences.bases, sequences.offsets, BASE_CODES, self.word_bases, offsets, ids)
        return Tokens(ids, offsets)

    def tokenizer(self) -> Tokenizer:
        """See :meth:`Words.tokenizer`."""
        vocabulary = {"[PAD]": PAD, "[UNK]": UNKNOWN}
        for number, word in enumerate(product("ACGT", repeat=self.word_bases)):
            vocabulary["".join(word)] = FIRST_WORD + number
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(
            Regex(f".{{1,{self.word_bases}}}"), behavior="isolated"
        )
        return tokenizer


class BpeWords:
    """Words of 1 to 16 bases by byte-pair encoding (Sennrich et al., ACL 2016), as DNABERT-2 has them."""

    word_bases = 0

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.size = tokenizer.get_vocab_size()
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
    """The words of a saved encoder, whose config.json says ``dna_word_bases``."""
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
    word_offsets: np.ndarray,
    ids: np.ndarray,
) -> None:
    for row in range(len(offsets) - 1):
        end = offsets[row + 1]
        start = offsets[row]
        for word in range(word_offsets[row], word_offsets[row + 1]):
            number = 0
            known = start + word_bases <= end
            for i in range(start, min(start + word_bases, end)):
                code = base_codes[bases[i]]
                known = known and code < 4
                number = number * 4 + code
            ids[word] = FIRST_WORD + number if known else UNKNOWN
            start += word_bases
