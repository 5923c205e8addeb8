"""A model's tokenizer files: does it read DNA or proteins, and how does it cut them?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from tasks.encoders.hf.files import read_json
from tasks.encoders.hf.tokens import Cutter, TrainedCutter, WordCutter
from tasks.errors import InvalidEncoder

SPECIAL = re.compile(r"\[\w+\]|<[^>]+>")
"""[CLS], [PAD], <cls>, <mask>, <null_1>, ..."""
NO_NUCLEOTIDE = frozenset("EFILPQ")
"""Amino acids whose letters are no IUPAC code of nucleotides: a vocabulary that has them is one of proteins."""


def reads_protein(vocabulary: Mapping[str, int]) -> bool:
    """Whether a vocabulary is one of amino acids."""
    return set("".join(_words(vocabulary))) >= NO_NUCLEOTIDE


def vocabulary_in(directory: Path) -> dict[str, int]:
    """The token of each word, from vocab.txt or tokenizer.json; raises InvalidEncoder where neither is there."""
    if (directory / "vocab.txt").is_file():
        lines = (directory / "vocab.txt").read_text().splitlines()
        return {line.strip(): token for token, line in enumerate(lines)}
    if (directory / "tokenizer.json").is_file():
        return _trained(directory).get_vocab(with_added_tokens=True)
    raise InvalidEncoder(f"{directory} holds no tokenizer: there is neither vocab.txt nor tokenizer.json")


def cutter_in(directory: Path) -> Cutter:
    """What cuts sequences into the tokens of the model in ``directory``.

    A tokenizer.json is followed, unless it holds a WordPiece model: that expects words that were cut before. Else
    words of one length k and single letters are one after the other (Nucleotide Transformer), words of one length
    without letters overlap (DNABERT), and single letters stand for themselves (ProtBERT, ESM).

    :raises InvalidEncoder: the vocabulary is none of these.
    """
    vocabulary = vocabulary_in(directory)
    special = np.zeros(max(vocabulary.values()) + 1, dtype=bool)
    special[[token for word, token in vocabulary.items() if SPECIAL.fullmatch(word)]] = True
    kind = read_json(directory / "tokenizer.json").get("model", {}).get("type", "WordPiece")
    if kind != "WordPiece":
        return TrainedCutter(_trained(directory), special)
    return _word_cutter(directory, vocabulary, special)


def _word_cutter(directory: Path, vocabulary: Mapping[str, int], special: np.ndarray) -> WordCutter:
    words = _words(vocabulary)
    letters = [word for word in words if len(word) == 1]
    lengths = {len(word) for word in words} - {1}
    word_bases = lengths.pop() if len(lengths) == 1 else 0
    kmers = ["".join(kmer) for kmer in product("ACGT", repeat=word_bases)] if 0 < word_bases <= 8 else []
    if len(words) != len(letters) + len(kmers) or not vocabulary.keys() >= set(kmers or "ACGT"):
        raise InvalidEncoder(
            f"the vocabulary in {directory} is neither single letters nor all words of one length over ACGT, and "
            "there is no tokenizer.json of a trained tokenizer"
        )
    names = {
        **read_json(directory / "special_tokens_map.json"),
        **read_json(directory / "tokenizer_config.json"),
    }
    unknown = vocabulary.get("[UNK]", vocabulary.get("<unk>", 0))
    tokens = np.full(256, unknown, dtype=np.int32)
    for letter in letters:
        tokens[ord(letter)] = vocabulary[letter]
    return WordCutter(
        word_bases=word_bases,
        overlapping=word_bases > 0 and not set("ACGT") <= set(letters),
        words=np.array([vocabulary[kmer] for kmer in kmers] or [unknown], dtype=np.int32),
        letters=tokens,
        unknown=unknown,
        before=_named(vocabulary, names, {"cls_token": ("[CLS]", "<cls>")}),
        # Nucleotide Transformer has a token <eos> but puts it nowhere: its tokenizer_config.json says null.
        after=_named(vocabulary, names, {"sep_token": ("[SEP]",), "eos_token": ("<eos>",)}),
        special=special,
    )


def _named(
    vocabulary: Mapping[str, int], names: Mapping[str, Any], roles: Mapping[str, tuple[str, ...]]
) -> np.ndarray:
    """The token of the first of the usual names that the vocabulary has and the tokenizer's files do not null."""
    found = [
        vocabulary[name]
        for role, usual in roles.items()
        for name in usual
        if name in vocabulary and names.get(role, name) is not None
    ]
    return np.array(found[:1], dtype=np.int32)


def _words(vocabulary: Mapping[str, int]) -> list[str]:
    """What stands for a part of a sequence; ESM's gap characters do not."""
    return [word for word in vocabulary if word and not SPECIAL.fullmatch(word) and word not in "-."]


def _trained(directory: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(directory / "tokenizer.json"))
    except Exception as error:  # tokenizers raises nothing more specific
        raise InvalidEncoder(f"{directory / 'tokenizer.json'} cannot be read: {error}") from error
