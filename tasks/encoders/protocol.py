"""What an encoder is, and how a URI becomes one.

=============================  =====================================================================
``registry://NAME``            the promoted version of a registered encoder
``registry://NAME@VERSION``    one version of it, whatever is promoted
``file:///directory``          an encoder's files in a directory, in the layout of the registry
=============================  =====================================================================
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa

from tasks.encoders.registry import WEIGHTS_FILE, Registry
from tasks.errors import InvalidEncoder
from tasks.object_store import ObjectStore, ObjectUri

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class Encoder(Protocol):
    """Turns reads into unit vectors whose dot product is their similarity."""

    dim: int
    uri: str
    """Where it came from, resolved: ``registry://kmer-mlp@v1-1a2b3c4d``."""
    revision: str
    """SHA-256 of the weights, in hexadecimal: equal revisions give equal vectors."""

    def encode(self, reads: pa.Table) -> np.ndarray:
        """Vectors of ``reads``' column ``sequence`` (string, ACGTN): float32 (rows, dim), L2-normalised."""
        ...


@dataclass(frozen=True)
class EncoderUri:
    """An encoder's address, taken apart: either ``name`` (and maybe ``version``), or ``directory``."""

    name: str = ""
    version: str | None = None
    directory: Path | None = None

    @classmethod
    def parse(cls, text: str) -> EncoderUri:
        """Read one of the forms above; raises :class:`InvalidEncoder` for anything else."""
        scheme, _, rest = text.partition("://")
        if scheme == "registry":
            name, at, version = rest.partition("@")
            if NAME.fullmatch(name) and (not at or re.fullmatch(r"v\d+-[0-9a-f]{8}", version)):
                return cls(name=name, version=version or None)
        if scheme == "file" and rest.startswith("/"):
            return cls(directory=Path(unquote(urlsplit(text).path)))
        raise InvalidEncoder(
            f"{text!r} is not the address of an encoder; write registry://NAME, registry://NAME@VERSION "
            "(for example registry://kmer-mlp@v1-1a2b3c4d) or file:///directory"
        )

    def __str__(self) -> str:
        if self.directory is not None:
            return self.directory.as_uri()
        return f"registry://{self.name}" + (f"@{self.version}" if self.version else "")


def load_encoder(uri: str, *, encoders: ObjectUri, store: ObjectStore) -> Encoder:
    """Load the encoder that ``uri`` names, checksums verified.

    :param encoders: the registry's root (:attr:`tasks.batches.Batch.encoders`).
    :raises InvalidEncoder: the URI cannot be understood, there is no such encoder or version, its files are
        not what its card says, or nothing here knows its ``model_type``.
    """
    address = EncoderUri.parse(uri)
    if address.directory is not None:
        return _load(address.directory, address)
    registry = Registry(store, encoders)
    resolved = EncoderUri(address.name, address.version or registry.current(address.name))
    if resolved.version is None:
        raise InvalidEncoder(
            f"{uri} has no promoted version below {encoders}; a batch that asks for it trains the first one"
        )
    with tempfile.TemporaryDirectory(prefix="strandloop-encoder-") as directory:
        registry.fetch(resolved.name, resolved.version, Path(directory))
        return _load(Path(directory), resolved)


def _load(directory: Path, address: EncoderUri) -> Encoder:
    from tasks.encoders.architectures import architecture_in  # torch is loaded only where an encoder is

    model = architecture_in(directory).load(directory)
    model.uri = str(address)
    model.revision = hashlib.sha256((directory / WEIGHTS_FILE).read_bytes()).hexdigest()
    return model
