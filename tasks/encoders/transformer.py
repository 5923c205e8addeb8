"""``dna-transformer``: a small BERT over DNA words, in the files of Hugging Face's transformers.

A read is cut into words (:mod:`tasks.encoders.words`): of five bases that overlap and are one with their reverse
complement, of one base (``dna-transformer-character``), or learnt from reads (``dna-transformer-bpe``). Words of
the first kind are read without regard to their places, so both strands of a read have the same vector. Unknown
words are masked like padding: where a sequencer writes N at the same cycles of all reads, they would make those
reads alike. The vector is the mean over the known words.
``AutoModel`` and ``AutoTokenizer`` load the same directory; ``input_ids > 1`` is the mask to give to the former.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import torch
from transformers import BertConfig, BertModel

from tasks.encoders.batching import token_batches
from tasks.encoders.devices import best_device
from tasks.encoders.hf.tokens import Tokens
from tasks.encoders.model import EncoderModel
from tasks.encoders.registry import CONFIG_FILE
from tasks.encoders.sequences import Sequences
from tasks.encoders.words import FIRST_WORD, PAD, UNKNOWN, BpeWords, FixedWords, Words, save_words, words_in
from tasks.errors import InvalidEncoder

MAX_WORDS = 2048
TOKENS_PER_BATCH = 16_384  # padded; about 60 MB of activations at width 128


class DnaTransformer(EncoderModel):
    """BERT without its pooler, averaged over words, as unit vectors.

    Reads are read up to word 2,048; what comes after does not reach the vector.
    """

    name = "dna-transformer"

    def __init__(self, bert: BertModel, words: Words) -> None:
        super().__init__()
        self.bert = bert
        self.words = words
        self.strand_symmetric = words.strand_symmetric
        self.bert.embeddings.position_embeddings.requires_grad_(not words.strand_symmetric)
        self.dim = bert.config.hidden_size

    @classmethod
    def words_for(cls, sequences: Sequences) -> Words:
        """What a new encoder cuts reads into."""
        return FixedWords(5)

    @classmethod
    def untrained(cls, sequences: Sequences, *, seed: int) -> Self:
        """Random weights: two layers of width 128, 0.5 million parameters; ``sequences`` may give the words."""
        words = cls.words_for(sequences)
        config = BertConfig(
            vocab_size=words.size,
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=512,
            max_position_embeddings=MAX_WORDS,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=PAD,
        )
        config.dna_word_length = words.word_bases
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            bert = BertModel(config, add_pooling_layer=False)
        # Where in the read a word stands says nothing of its genome: training has to find a use for it first.
        torch.nn.init.zeros_(bert.embeddings.position_embeddings.weight)
        return cls(bert, words).to(best_device()).eval()

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read a saved encoder without asking any hub; raises InvalidEncoder where the files are not one."""
        try:
            config = BertConfig.from_pretrained(directory, local_files_only=True)
            words = words_in(directory, config.dna_word_length)
            bert = BertModel.from_pretrained(
                directory, config=config, add_pooling_layer=False, local_files_only=True
            )
        except Exception as error:  # tokenizers and safetensors raise nothing more specific
            raise InvalidEncoder(f"the files in {directory} are no {cls.name} encoder: {error}") from error
        if words.size != config.vocab_size:
            raise InvalidEncoder(
                f"{directory / CONFIG_FILE} is of {config.vocab_size} words, but its tokenizer has {words.size}"
            )
        return cls(bert, words).to(best_device()).eval()

    def save(self, directory: Path) -> None:
        """Write config.json, model.safetensors and the tokenizer's files."""
        embeddings = self.bert.embeddings.word_embeddings.weight
        with torch.no_grad():  # AutoTokenizer gives the words of one strand
            embeddings.copy_(embeddings[torch.from_numpy(self.words.read_as)])
        self.bert.save_pretrained(directory)
        save_words(self.words, directory, max_words=MAX_WORDS)

    def prepare(self, sequences: Sequences) -> torch.Tensor:
        """Word numbers, int64 (sequences, words of the longest), padded with 0."""
        tokens = self.words.cut(sequences, max_words=MAX_WORDS)
        return _padded(tokens, np.arange(len(sequences)))

    def states(self, prepared: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Last hidden states of word numbers, (sequences, words, dim), and which words were read, as bool.

        Only known words are; all but padding where a sequence has none.
        """
        known = prepared >= FIRST_WORD
        read = torch.where(known.any(dim=1, keepdim=True), known, prepared != PAD)
        return self.bert(input_ids=prepared, attention_mask=read.long()).last_hidden_state, read

    def forward(self, prepared: torch.Tensor) -> torch.Tensor:
        """Unit vectors of word numbers."""
        states, read = self.states(prepared.to(self.device))
        mean = (states * read.unsqueeze(-1)).sum(dim=1) / read.sum(dim=1, keepdim=True)
        return torch.nn.functional.normalize(mean, dim=-1)

    def encode_sequences(self, sequences: Sequences) -> np.ndarray:
        """Unit vectors; reads of similar length share a batch, which holds at most 16,384 words with padding."""
        vectors = np.empty((len(sequences), self.dim), dtype=np.float32)
        tokens = self.words.cut(sequences, max_words=MAX_WORDS)
        with torch.inference_mode():
            for rows in token_batches(np.maximum(tokens.lengths, 1), budget=TOKENS_PER_BATCH):
                vectors[rows] = self(_padded(tokens, rows)).cpu().numpy()
        return vectors


class CharacterTransformer(DnaTransformer):
    """Reads bases one by one: least in a word, and most to be learnt from their places."""

    @classmethod
    def words_for(cls, sequences: Sequences) -> Words:
        """Single bases."""
        return FixedWords(1)


class BpeTransformer(DnaTransformer):
    """Reads the words that byte-pair encoding finds in the reads it is first trained on."""

    @classmethod
    def words_for(cls, sequences: Sequences) -> Words:
        """Words learnt from ``sequences``."""
        return BpeWords.learnt_from(sequences)


def _padded(tokens: Tokens, rows: np.ndarray) -> torch.Tensor:
    """The words of ``rows``, int64 (rows, words of the longest); an empty read is one unknown word."""
    lengths = tokens.lengths[rows]
    padded = np.full((len(rows), max(1, int(lengths.max(initial=1)))), PAD, dtype=np.int64)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = tokens.take(rows)
    padded[lengths == 0, 0] = UNKNOWN
    return torch.from_numpy(padded)
