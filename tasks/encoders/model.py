"""An encoder that is a torch network here: it can be trained, saved and loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch

from tasks.encoders.sequences import Sequences


class EncoderModel(torch.nn.Module, ABC):
    """Base of the networks that :mod:`tasks.encoders.protocol` loads and :mod:`tasks.learning` trains.

    Encoding uses the threads that torch was given (Ray sets OMP_NUM_THREADS to a task's CPUs) and runs on
    the device that the weights are on.
    """

    name: str
    """The name under which a first version is registered, for example ``kmer-mlp``."""
    dim: int
    uri: str = ""
    revision: str = ""
    strand_symmetric: bool

    @classmethod
    @abstractmethod
    def untrained(cls, sequences: Sequences, *, seed: int) -> Self:
        """Random weights, with whatever is estimated from data before training taken from ``sequences``."""

    @classmethod
    @abstractmethod
    def load(cls, directory: Path) -> Self:
        """Read what :meth:`save` wrote; raises InvalidEncoder where the files do not fit together."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write ``config.json``, ``model.safetensors`` and tokenizer files into ``directory``."""

    @abstractmethod
    def prepare(self, sequences: Sequences) -> Any:
        """What :meth:`forward` takes, computed on the CPU."""

    @abstractmethod
    def forward(self, prepared: Any) -> torch.Tensor:
        """Unit vectors, float32 (sequences, dim), with gradients."""

    @abstractmethod
    def encode_sequences(self, sequences: Sequences) -> np.ndarray:
        """Unit vectors, float32 (sequences, dim), in batches of bounded memory and without gradients."""

    def encode(self, reads: pa.Table) -> np.ndarray:
        """See :meth:`tasks.encoders.protocol.Encoder.encode`."""
        return self.encode_sequences(Sequences.from_arrow(reads["sequence"]))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device
