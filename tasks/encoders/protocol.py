"""What an encoder is, and how a URI becomes one.

==============================  ====================================================================
``registry://NAME``             the promoted version of a registered encoder
``registry://NAME@VERSION``     one version of it, whatever is promoted
``file:///DIRECTORY``           an encoder's files in a directory: of the registry, or of Hugging Face
``hf://ORG/MODEL@REVISION``     a model of the Hugging Face Hub at one commit (40 hexadecimal digits)
``kmer://K[+K]``                the untrained canonical k-mer profile, for example ``kmer://4+5``
``sketch://DIM[?k=K]``          signed hashing of canonical k-mers, for example ``sketch://256?k=11``
==============================  ====================================================================

Options follow as a query. ``?average=reverse-complement`` gives the normalised mean of a read's vector and that of
its reverse complement, for every encoder that does not already give both strands the same vector. All other options
of ``hf://`` and ``file://`` go to :mod:`tasks.encoders.hf`, which loads every directory in Hugging Face layout that
is not an encoder trained here. That package has two functions:

``fetch(model: str, revision: str) -> Path``
    The files of ``ORG/MODEL`` at that commit, on this node (see :mod:`tasks.encoders.node_cache`).
``load(directory: Path, *, uri: str, options: Mapping[str, str]) -> Encoder``
    The encoder in a directory. ``options`` is the query without ``average``; the encoder's ``uri`` is ``uri``, and
    its ``revision`` covers the weights and every option that changes vectors. Raises InvalidEncoder for an option
    or a ``model_type`` that it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl, quote, unquote, urlencode

import numpy as np
import pyarrow as pa

from tasks.encoders.registry import Registry
from tasks.errors import InvalidEncoder
from tasks.object_store import ObjectStore, ObjectUri

ADDRESSES = {
    "registry": re.compile(r"(?P<target>[a-z0-9][a-z0-9-]{0,62})(@(?P<version>v\d+-[0-9a-f]{8}))?"),
    "file": re.compile(r"(?P<target>/[^?#]*)"),
    "hf": re.compile(r"(?P<target>[\w-][\w.-]*/[\w-][\w.-]*)@(?P<version>[0-9a-f]{40})"),
    "kmer": re.compile(r"(?P<target>\d(\+\d)?)"),
    "sketch": re.compile(r"(?P<target>\d{1,5})"),
}


class Encoder(Protocol):
    """Turns reads into unit vectors whose dot product is their similarity."""

    dim: int
    uri: str
    """Where it came from, resolved: ``registry://kmer-mlp@v1-1a2b3c4d``."""
    revision: str
    """SHA-256, in hexadecimal, of the weights and of all else that decides: equal revisions give equal vectors."""
    strand_symmetric: bool
    """Whether a read and its reverse complement have the same vector."""

    def encode(self, reads: pa.Table) -> np.ndarray:
        """Vectors of ``reads``' column ``sequence`` (string, ACGTN): float32 (rows, dim), L2-normalised.

        Several threads may call it at once.
        """
        ...


@dataclass(frozen=True)
class EncoderUri:
    """An encoder's address, taken apart.

    :param target: registered name, absolute directory, ``ORG/MODEL``, k-mer lengths or sketch width.
    :param version: of a registered encoder, or commit of a Hub model.
    :param options: the query.
    """

    scheme: str
    target: str
    version: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> EncoderUri:
        """Read one of the forms above; raises :class:`InvalidEncoder` for anything else."""
        scheme, _, rest = text.partition("://")
        place, _, query = rest.partition("?")
        found = ADDRESSES[scheme].fullmatch(place) if scheme in ADDRESSES else None
        options = parse_qsl(query, keep_blank_values=True)
        if found is None or len(dict(options)) < len(options):
            raise InvalidEncoder(f"{text!r} is not the address of an encoder; {_advice(scheme)}")
        parts = found.groupdict()
        return cls(scheme, unquote(parts["target"]), parts.get("version"), dict(options))

    def one_strand(self) -> EncoderUri:
        """The same encoder without averaging over strands."""
        options = {name: value for name, value in self.options.items() if name != "average"}
        return replace(self, options=options)

    def __str__(self) -> str:
        version = f"@{self.version}" if self.version else ""
        query = f"?{urlencode(sorted(self.options.items()))}" if self.options else ""
        return f"{self.scheme}://{quote(self.target, safe='/+')}{version}{query}"


def load_encoder(uri: str, *, encoders: ObjectUri, store: ObjectStore, to_train: bool = False) -> Encoder:
    """Load the encoder that ``uri`` names, checksums verified.

    :param encoders: the registry's root (:attr:`tasks.batches.Batch.encoders`).
    :param to_train: a network of ours comes as :class:`tasks.encoders.model.EncoderModel`.
    :raises InvalidEncoder: the URI cannot be understood, there is no such encoder or version, its files are
        not what their checksums say, or an option does not apply to it.
    :raises StorageError: its files are not on this node and cannot be fetched now.
    """
    address = EncoderUri.parse(uri)
    if address.scheme == "registry" and address.version is None:
        address = replace(address, version=Registry(store, encoders).current(address.target))
        if address.version is None:
            raise InvalidEncoder(
                f"{uri} has no promoted version below {encoders}; a batch that asks for it trains the first one"
            )
    encoder = _load(address.one_strand(), Registry(store, encoders), to_train=to_train)
    encoder.uri = str(address)
    if "average" not in address.options:
        return encoder
    from tasks.encoders.strands import StrandAverage

    return StrandAverage(encoder, address.options["average"])


def _load(address: EncoderUri, registry: Registry, *, to_train: bool) -> Encoder:
    # What an encoder needs is loaded only where it is: torch above all.
    if address.scheme == "kmer":
        from tasks.encoders.profile import KmerProfile

        return KmerProfile.from_address(address)
    if address.scheme == "sketch":
        from tasks.encoders.sketch import KmerSketch

        return KmerSketch.from_address(address)
    if address.scheme == "hf":
        from tasks.encoders import hf

        directory = hf.fetch(address.target, str(address.version))
        return hf.load(directory, uri=str(address), options=address.options)
    from tasks.encoders.architectures import load_directory

    if address.scheme == "file":
        directory = Path(address.target)
    else:
        directory = registry.on_this_node(address.target, str(address.version))
    return load_directory(directory, address, to_train=to_train)


def _advice(scheme: str) -> str:
    """How to write it, for the person who wrote it wrongly."""
    return {
        "hf": "write hf://ORG/MODEL@REVISION, where REVISION is the commit's 40 hexadecimal digits (not a branch "
        "or a tag: those move); the model's page shows it under 'Files and versions', 'History'",
        "kmer": "write kmer://K or kmer://K+K with lengths from 1 to 6, for example kmer://4+5",
        "sketch": "write sketch://DIM or sketch://DIM?k=K, for example sketch://256?k=11",
        "file": "write file:///DIRECTORY, an absolute path",
    }.get(
        scheme,
        "write registry://NAME, registry://NAME@VERSION (for example registry://kmer-mlp@v1-1a2b3c4d), "
        "file:///DIRECTORY, hf://ORG/MODEL@REVISION, kmer://4+5 or sketch://256",
    )
