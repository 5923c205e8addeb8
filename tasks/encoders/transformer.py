"""``dna-transformer``: a small BERT over DNA words, in the files of Hugging Face's transformers.

A read is cut into words of four bases, one after the other; a word with anything but ACGT, and a rest of fewer
than four bases, is the unknown word. Unknown words are masked like padding: where a sequencer writes N at the same
cycles of all reads, they would make those reads alike. The vector is the mean over the words that are known.
``AutoModel`` and ``AutoTokenizer`` load the same directory; ``input_ids > 1`` is the mask to give to the former.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Self

import numba
import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from tasks.encoders.batching import token_batches
from tasks.encoders.devices import best_device
from tasks.encoders.model import EncoderModel
from tasks.encoders.registry import CONFIG_FILE
from tasks.encoders.sequences import BASE_CODES, Sequences
from tasks.errors import InvalidEncoder

WORD_BASES = 4
PAD, UNKNOWN, FIRST_WORD = 0, 1, 2
MAX_WORDS = 512
TOKENS_PER_BATCH = 16_384  # padded; about 60 MB of activations at width 128


class DnaTransformer(EncoderModel):
    """BERT without its pooler, averaged over words, as unit vectors.

    Reads are read up to base 2,048 (512 words); what comes after does not reach the vector.
    """

    name = "dna-transformer"
    strand_symmetric = False

    def __init__(self, bert: BertModel) -> None:
        super().__init__()
        self.bert = bert
        self.dim = bert.config.hidden_size

    @classmethod
    def untrained(cls, sequences: Sequences, *, seed: int) -> Self:
        """Random weights: two layers of width 128, 0.5 million parameters. Nothing is taken from ``sequences``."""
        config = BertConfig(
            vocab_size=FIRST_WORD + 4**WORD_BASES,
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=512,
            max_position_embeddings=MAX_WORDS,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=PAD,
        )
        config.dna_word_bases = WORD_BASES
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            bert = BertModel(config, add_pooling_layer=False)
        # Where in the read a word stands says nothing of its genome: training has to find a use for it first.
        torch.nn.init.zeros_(bert.embeddings.position_embeddings.weight)
        return cls(bert).to(best_device()).eval()

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read a saved encoder without asking any hub; raises InvalidEncoder where the files are not one."""
        try:
            config = BertConfig.from_pretrained(directory, local_files_only=True)
            bert = BertModel.from_pretrained(
                directory, config=config, add_pooling_layer=False, local_files_only=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise InvalidEncoder(f"the files in {directory} are no {cls.name} encoder: {error}") from error
        if getattr(config, "dna_word_bases", None) != WORD_BASES:
            raise InvalidEncoder(
                f"{directory / CONFIG_FILE} is a BERT without dna_word_bases={WORD_BASES}: "
                "its words are not those that this encoder cuts reads into"
            )
        return cls(bert).to(best_device()).eval()

    def save(self, directory: Path) -> None:
        """Write config.json, model.safetensors and the tokenizer's files."""
        self.bert.save_pretrained(directory)
        _tokenizer().save_pretrained(directory)

    def prepare(self, sequences: Sequences) -> torch.Tensor:
        """Word numbers, int64 (sequences, words of the longest), padded with 0."""
        words = np.minimum(-(-sequences.lengths // WORD_BASES), MAX_WORDS)
        padded = np.full((len(sequences), max(1, int(words.max(initial=1)))), PAD, dtype=np.int64)
        _cut_words(sequences.bases, sequences.offsets, BASE_CODES, padded)
        return torch.from_numpy(padded)

    def forward(self, prepared: torch.Tensor) -> torch.Tensor:
        """Unit vectors of word numbers."""
        prepared = prepared.to(self.device)
        known = prepared >= FIRST_WORD
        real = torch.where(
            known.any(dim=1, keepdim=True), known, prepared != PAD
        )  # all N: nothing else to take
        states = self.bert(input_ids=prepared, attention_mask=real.long()).last_hidden_state
        mean = (states * real.unsqueeze(-1)).sum(dim=1) / real.sum(dim=1, keepdim=True)
        return torch.nn.functional.normalize(mean, dim=-1)

    def encode_sequences(self, sequences: Sequences) -> np.ndarray:
        """Unit vectors; reads of similar length share a batch, which holds at most 16,384 words with padding."""
        vectors = np.empty((len(sequences), self.dim), dtype=np.float32)
        words = np.clip(-(-sequences.lengths // WORD_BASES), 1, MAX_WORDS)
        with torch.inference_mode():
            for rows in token_batches(words, budget=TOKENS_PER_BATCH):
                vectors[rows] = self(self.prepare(sequences.take(rows))).cpu().numpy()
        return vectors


@numba.njit(nogil=True)
def _cut_words(bases: np.ndarray, offsets: np.ndarray, base_codes: np.ndarray, out: np.ndarray) -> None:
    for row in range(len(offsets) - 1):
        first, end = offsets[row], offsets[row + 1]
        if first == end:
            out[row, 0] = UNKNOWN
        for word in range(min(-(-(end - first) // WORD_BASES), out.shape[1])):
            start = first + word * WORD_BASES
            number = 0
            known = start + WORD_BASES <= end
            for i in range(start, min(start + WORD_BASES, end)):
                code = base_codes[bases[i]]
                known = known and code < 4
                number = number * 4 + code
            out[row, word] = FIRST_WORD + number if known else UNKNOWN


def _tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {"[PAD]": PAD, "[UNK]": UNKNOWN}
    for number, word in enumerate(product("ACGT", repeat=WORD_BASES)):
        vocabulary["".join(word)] = FIRST_WORD + number
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(f".{{1,{WORD_BASES}}}"), behavior="isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=MAX_WORDS
    )
