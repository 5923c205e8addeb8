"""A model's files as an encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from tasks.encoders.batching import token_batches
from tasks.encoders.devices import best_device, inference_dtype
from tasks.encoders.hf.architectures import network_in
from tasks.encoders.hf.files import CONFIG_FILE, model_files, read_json
from tasks.encoders.hf.network import Network
from tasks.encoders.hf.tokens import Cutter
from tasks.encoders.hf.translation import longest_open_reading_frames
from tasks.encoders.hf.vocabulary import cutter_in, reads_protein, vocabulary_in
from tasks.encoders.node_cache import sha256_of
from tasks.encoders.sequences import Sequences
from tasks.errors import InvalidEncoder

OPTIONS = {"translate": "longest-orf", "trust_remote_code": "true"}
TOKENS_PER_BATCH = {"cpu": 2_048, "mps": 16_384, "cuda": 65_536}
"""On a CPU what stays near its caches (a fifth faster than 8,192 for DNABERT-2); on a GPU what fills it: the widest
layer of DNABERT-2 takes 12 kB a token in bfloat16."""


class HubEncoder:
    """Mean of the last states over a read's tokens, as a unit vector.

    Special tokens, unknown words and padding do not count; of a read that is nothing else, all of its tokens do.
    """

    def __init__(
        self, network: Network, cutter: Cutter, *, translated: bool, uri: str, revision: str
    ) -> None:
        self.dim = network.dim
        self.uri = uri
        self.revision = revision
        self.strand_symmetric = translated  # the longest frame of six is that of both strands
        self._network = network
        self._cutter = cutter
        self._translated = translated
        self._device = best_device()
        self._special = torch.from_numpy(cutter.special).to(self._device)

    def encode(self, reads: pa.Table) -> np.ndarray:
        """See :meth:`tasks.encoders.protocol.Encoder.encode`."""
        sequences = Sequences.from_arrow(reads["sequence"])
        if self._translated:
            sequences = longest_open_reading_frames(sequences)
        tokens = self._cutter.cut(sequences, max_tokens=self._network.max_tokens)
        vectors = np.empty((len(sequences), self.dim), dtype=np.float32)
        lengths = tokens.lengths
        vectors[lengths == 0] = self.dim**-0.5  # nothing to read, and a tokenizer without special tokens
        filled = np.flatnonzero(lengths)
        with torch.inference_mode():
            for batch in token_batches(lengths[filled], budget=TOKENS_PER_BATCH[self._device.type]):
                rows = filled[batch]
                ids = torch.from_numpy(tokens.take(rows).astype(np.int64)).to(self._device)
                vectors[rows] = self._unit_vectors(ids, lengths[rows]).cpu().numpy()
        return vectors

    def _unit_vectors(self, ids: torch.Tensor, lengths: np.ndarray) -> torch.Tensor:
        """Float32 (rows, dim) of packed rows."""
        states = self._network(ids, lengths.tolist()).float()
        counted = ~self._special[ids]
        row = torch.repeat_interleave(torch.from_numpy(lengths).to(self._device))
        nothing = torch.zeros(len(lengths), device=self._device).index_add_(0, row, counted.float()) == 0
        counted |= nothing[row]
        sums = torch.zeros((len(lengths), self.dim), device=self._device)
        sums.index_add_(0, row, states * counted[:, None])
        return torch.nn.functional.normalize(sums, dim=-1)  # the mean has the direction of the sum


def load(directory: Path, *, uri: str, options: Mapping[str, str]) -> HubEncoder:
    """The encoder in ``directory``, on this worker's device. See :mod:`tasks.encoders.hf` for ``options``.

    :raises InvalidEncoder: an unknown option, a model that nothing here can read, or one of proteins asked to read
        DNA, or one of DNA asked to read proteins.
    """
    for name, value in options.items():
        if OPTIONS.get(name) != value:
            known = ", ".join(f"{name}={value}" for name, value in OPTIONS.items())
            raise InvalidEncoder(f"{uri}: the option {name}={value} is unknown; known are {known}")
    config = read_json(directory / CONFIG_FILE)
    if not config:
        raise InvalidEncoder(f"{directory} holds no model: {CONFIG_FILE} is missing or empty")
    device = best_device()
    translated = "translate" in options
    network: Network
    cutter: Cutter
    if "trust_remote_code" in options:
        from tasks.encoders.hf.remote_code import load_remote

        network, cutter = load_remote(directory, inference_dtype(device))
    else:
        _check_alphabet(vocabulary_in(directory), translated, uri)
        network, cutter = network_in(directory, config, inference_dtype(device)), cutter_in(directory)
    network.eval().to(device)
    return HubEncoder(network, cutter, translated=translated, uri=uri, revision=_revision(directory, options))


def _check_alphabet(vocabulary: Mapping[str, int], translated: bool, uri: str) -> None:
    protein = reads_protein(vocabulary)
    if protein and not translated:
        raise InvalidEncoder(
            f"{uri} is a model of proteins: its vocabulary is amino acids, and A, C, G and T would be read as "
            "alanine, cysteine, glycine and threonine; add ?translate=longest-orf to let it read the longest open "
            "reading frame"
        )
    if translated and not protein:
        raise InvalidEncoder(
            f"{uri} is a model of DNA: its vocabulary has no amino acids; leave out translate=longest-orf"
        )


def _revision(directory: Path, options: Mapping[str, str]) -> str:
    """SHA-256 of the files that decide the vectors, and of the options."""
    names = model_files(path.name for path in directory.iterdir() if path.is_file())
    lines = [f"{sha256_of(directory / name)} {name}" for name in names]
    lines += [f"{name}={options[name]}" for name in sorted(options)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
