"""``kmer-mlp`` where there is no GPU: the same network with numpy, so that no worker waits for torch to load."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
from safetensors import SafetensorError
from safetensors.numpy import load_file
from threadpoolctl import ThreadpoolController

from tasks.encoders.profile import ProfileTable
from tasks.encoders.registry import CONFIG_FILE, WEIGHTS_FILE
from tasks.encoders.sequences import Sequences
from tasks.errors import InvalidEncoder

MODEL_TYPE = "strandloop-kmer-mlp"
KMER_LENGTHS = (4, 5)
PROFILES = ProfileTable(KMER_LENGTHS)
BATCH_READS = 2_048  # 5 MB of features stay in the cache: 1.5 times as fast as 16,384
SHORTEST_NORM = np.float32(1e-12)
THREADS = ThreadpoolController()


class KmerMlpOnCpu:
    """Encodes only; :class:`tasks.encoders.kmer.KmerMlp` is what is trained, and what runs on GPUs.

    :param weights: tensors of the weights file, by name.
    """

    strand_symmetric = True
    uri = ""
    revision = ""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        # The standardisation is multiplied into the first layer.
        self._first = np.ascontiguousarray((weights["layers.0.weight"] * weights["scale"]).T)
        self._first_bias = weights["layers.0.bias"] - weights["centre"] @ self._first
        self._last = np.ascontiguousarray(weights["layers.2.weight"].T)
        self._last_bias = weights["layers.2.bias"]
        self.dim = len(self._last_bias)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read config.json and model.safetensors; raises InvalidEncoder where they do not fit together."""
        config = read_config(directory)
        try:
            weights = load_file(directory / WEIGHTS_FILE)
            shapes = {name: tensor.shape for name, tensor in weights.items()}
            if shapes != _shapes(config["dim"], config["hidden"]):
                raise InvalidEncoder(
                    f"the files in {directory} are no {MODEL_TYPE} encoder: tensors {shapes}"
                )
            return cls(weights)
        except (KeyError, SafetensorError) as error:
            raise InvalidEncoder(f"the files in {directory} are no {MODEL_TYPE} encoder: {error}") from error

    def encode(self, reads: pa.Table) -> np.ndarray:
        """See :meth:`tasks.encoders.protocol.Encoder.encode`."""
        return self.encode_sequences(Sequences.from_arrow(reads["sequence"]))

    def encode_sequences(self, sequences: Sequences) -> np.ndarray:
        """Unit vectors, float32 (sequences, dim), in batches of 2,048 reads."""
        # A product by two threads is rounded otherwise, and a vector must not depend on who computes it.
        with THREADS.limit(limits=1, user_api="blas"):
            return self._encoded(sequences)

    def _encoded(self, sequences: Sequences) -> np.ndarray:
        vectors = np.empty((len(sequences), self.dim), dtype=np.float32)
        for start in range(0, len(sequences), BATCH_READS):
            batch = sequences[start : start + BATCH_READS]
            hidden = PROFILES.of(batch) @ self._first
            hidden += self._first_bias
            np.maximum(hidden, 0, out=hidden)
            out = vectors[start : start + len(batch)]
            np.matmul(hidden, self._last, out=out)
            out += self._last_bias
            norms = np.sqrt(np.einsum("nd,nd->n", out, out))
            out /= np.maximum(norms, SHORTEST_NORM)[:, None]
        return vectors


def gpu_in_reach() -> bool:
    """Whether this machine has NVIDIA's driver or is a Mac: a guess that costs nothing, where torch would know."""
    return sys.platform == "darwin" or Path("/dev/nvidiactl").exists()


def read_config(directory: Path) -> dict[str, int]:
    """``dim`` and ``hidden`` of config.json; raises InvalidEncoder for another network or other k-mers."""
    try:
        config = json.loads((directory / CONFIG_FILE).read_text())
        if config["kmer_lengths"] != list(KMER_LENGTHS):
            raise InvalidEncoder(
                f"{directory} profiles k-mers of lengths {config['kmer_lengths']}, "
                f"but only {list(KMER_LENGTHS)} can be loaded"
            )
        return {name: int(config[name]) for name in ("dim", "hidden")}
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidEncoder(f"the files in {directory} are no {MODEL_TYPE} encoder: {error!r}") from error


def _shapes(dim: int, hidden: int) -> dict[str, tuple[int, ...]]:
    return {
        "centre": (PROFILES.width,),
        "scale": (PROFILES.width,),
        "layers.0.weight": (hidden, PROFILES.width),
        "layers.0.bias": (hidden,),
        "layers.2.weight": (dim, hidden),
        "layers.2.bias": (dim,),
    }
