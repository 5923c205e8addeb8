"""``kmer-mlp``: canonical 4- and 5-mer profile, centred, then a small network.

The encoder for machines without a GPU. A read and its reverse complement have the same profile, and so the
same vector.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

import numba
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tasks.encoders.devices import best_device
from tasks.encoders.model import EncoderModel
from tasks.encoders.registry import CONFIG_FILE, WEIGHTS_FILE
from tasks.encoders.sequences import BASE_CODES, Sequences
from tasks.errors import InvalidEncoder

MODEL_TYPE = "strandloop-kmer-mlp"
KMER_LENGTHS = (4, 5)
BATCH_READS = 16_384  # 42 MB of features
SAMPLE_READS = 50_000  # enough for mean and spread of every k-mer


class KmerMlp(EncoderModel):
    """Standardised profile -> hidden layer -> unit vector.

    :param dim: length of the vectors.
    :param hidden: width of the hidden layer. 512 trained and encoded twice as fast as 1,024, and told
        species apart better after the same number of steps.
    """

    name = "kmer-mlp"
    strand_symmetric = True
    centre: torch.Tensor
    scale: torch.Tensor

    def __init__(self, *, dim: int = 128, hidden: int = 512) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("centre", torch.zeros(PROFILE_WIDTH))
        self.register_buffer("scale", torch.ones(PROFILE_WIDTH))
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(PROFILE_WIDTH, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, dim)
        )

    @classmethod
    def untrained(cls, sequences: Sequences, *, seed: int) -> Self:
        """Random weights; centre and scale of the profile are those of ``sequences``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls()
        features = profiles(sequences[:SAMPLE_READS])
        if len(features):
            model.centre.copy_(torch.from_numpy(features.mean(axis=0)))
            model.scale.fill_(1 / max(float(features.std(axis=0).mean()), 1e-6))
        return model.to(best_device())

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read config.json and model.safetensors; raises InvalidEncoder where they do not fit together."""
        try:
            config = json.loads((directory / CONFIG_FILE).read_text())
            if config["kmer_lengths"] != list(KMER_LENGTHS):
                raise InvalidEncoder(
                    f"{directory} profiles k-mers of lengths {config['kmer_lengths']}, "
                    f"but only {list(KMER_LENGTHS)} can be loaded"
                )
            model = cls(dim=config["dim"], hidden=config["hidden"])
            model.load_state_dict(load_file(directory / WEIGHTS_FILE))
        except (KeyError, RuntimeError, SafetensorError) as error:
            raise InvalidEncoder(f"the files in {directory} are no {MODEL_TYPE} encoder: {error}") from error
        return model.to(best_device()).eval()

    def save(self, directory: Path) -> None:
        """Write config.json and model.safetensors."""
        config = {
            "model_type": MODEL_TYPE,
            "dim": self.dim,
            "hidden": self.layers[0].out_features,
            "kmer_lengths": list(KMER_LENGTHS),
        }
        (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        save_file(
            {key: value.contiguous().cpu() for key, value in self.state_dict().items()},
            directory / WEIGHTS_FILE,
        )

    def prepare(self, sequences: Sequences) -> torch.Tensor:
        """The profiles, float32 (sequences, 648)."""
        return torch.from_numpy(profiles(sequences))

    def forward(self, prepared: torch.Tensor) -> torch.Tensor:
        """Unit vectors of profiles."""
        standardised = (prepared.to(self.device) - self.centre) * self.scale
        return torch.nn.functional.normalize(self.layers(standardised), dim=-1)

    def encode_sequences(self, sequences: Sequences) -> np.ndarray:
        """Unit vectors in batches of 16,384 reads."""
        vectors = np.empty((len(sequences), self.dim), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(sequences), BATCH_READS):
                batch = sequences[start : start + BATCH_READS]
                vectors[start : start + len(batch)] = self(self.prepare(batch)).cpu().numpy()
        return vectors


def profiles(sequences: Sequences) -> np.ndarray:
    """Square roots of the relative frequencies of canonical 4-mers, then of 5-mers: float32 (sequences, 648).

    Each of the two parts is a unit vector, or zero where a sequence has no such k-mer. Anything but ACGT
    breaks k-mers. Columns are in alphabetical order of the canonical k-mer (the smaller of the two strands').
    """
    out = np.zeros((len(sequences), PROFILE_WIDTH), dtype=np.float32)
    _count_kmers(sequences.bases, sequences.offsets, BASE_CODES, _COLUMNS_4, _COLUMNS_5, out)
    return out


@numba.njit(nogil=True)
def _count_kmers(
    bases: np.ndarray,
    offsets: np.ndarray,
    base_codes: np.ndarray,
    columns_4: np.ndarray,
    columns_5: np.ndarray,
    out: np.ndarray,
) -> None:
    width_4 = columns_4.max() + 1
    for row in range(len(offsets) - 1):
        kmer, run, total_4, total_5 = 0, 0, 0, 0
        counts = out[row]
        for i in range(offsets[row], offsets[row + 1]):
            code = base_codes[bases[i]]
            if code > 3:
                run = 0
                continue
            kmer = ((kmer << 2) | code) & 1023
            run += 1
            if run >= 4:
                counts[columns_4[kmer & 255]] += 1
                total_4 += 1
            if run >= 5:
                counts[width_4 + columns_5[kmer]] += 1
                total_5 += 1
        per_4 = np.float32(1 / max(total_4, 1))
        per_5 = np.float32(1 / max(total_5, 1))
        for column in range(width_4):
            counts[column] = np.sqrt(counts[column] * per_4)
        for column in range(width_4, len(counts)):
            counts[column] = np.sqrt(counts[column] * per_5)


def _canonical_columns(k: int) -> np.ndarray:
    """Column of every k-mer code (two bits a base, A=0 C=1 G=2 T=3): that of the smaller strand."""
    codes = np.arange(4**k)
    reverse = np.zeros_like(codes)
    for position in range(k):
        reverse |= (3 - (codes >> (2 * position) & 3)) << (2 * (k - 1 - position))
    _, columns = np.unique(np.minimum(codes, reverse), return_inverse=True)
    return columns.astype(np.int64)


_COLUMNS_4, _COLUMNS_5 = (_canonical_columns(k) for k in KMER_LENGTHS)
PROFILE_WIDTH = int(_COLUMNS_4.max() + 1 + _COLUMNS_5.max() + 1)
