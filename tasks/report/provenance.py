"""What made the results: input, request, encoder, code. Pairs of label and text for a table."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from hpc_jobs.store import StoreManifest
from tasks.batches import Batch
from tasks.encoders.protocol import EncoderUri
from tasks.encoders.registry import Registry
from tasks.object_store import ObjectStore

LIBRARIES = ("numpy", "pyarrow", "scikit-learn", "matplotlib", "jinja2")


def provenance(
    store: ObjectStore, batch: Batch, request: Mapping[str, Any], embeddings: StoreManifest
) -> list[tuple[str, str]]:
    """The facts, most asked for first; raises InvalidEncoder where a registered encoder has no card.

    :param request: the content of ``request.json``.
    """
    asked = {name: value for name, value in request.items() if name != "landing_sha256"}
    return [
        ("Batch", batch.batch_id),
        ("Results", str(batch.results)),
        ("Landing manifest", f"SHA-256 {request['landing_sha256']}"),
        ("Request", _pairs(asked)),
        ("Encoder", embeddings.encoder_uri),
        ("Encoder revision", embeddings.encoder_revision),
        *_card_facts(store, batch, embeddings.encoder_uri),
        ("Code version", os.environ.get("STRANDLOOP_CODE_VERSION", "not recorded")),
        (
            "Libraries of this page",
            _pairs(
                {"Python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES}
            ),
        ),
    ]


def _card_facts(store: ObjectStore, batch: Batch, encoder_uri: str) -> list[tuple[str, str]]:
    """What the encoder's card says; nothing for an encoder that is no registered one."""
    encoder = EncoderUri.parse(encoder_uri)
    if encoder.scheme != "registry" or encoder.version is None:
        return []
    card = Registry(store, batch.encoders).card(encoder.target, encoder.version)
    facts = [
        ("Encoder parent", card["parent"] or "none: a first version"),
        ("Encoder created", card["created_at"]),
    ]
    told_already = {"name", "version", "parent", "created_at", "files"}
    for field in sorted(card.keys() - told_already):
        facts.append((f"Encoder {field.replace('_', ' ')}", _text(card[field])))
    return facts


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in values.items())


def _text(value: Any) -> str:
    """A JSON value as a person writes it."""
    if isinstance(value, Mapping):
        return _pairs(value)
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
