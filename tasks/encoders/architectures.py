"""The networks that can be loaded and trained; each is imported only where it is asked for."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

from tasks.encoders.model import EncoderModel
from tasks.encoders.registry import CONFIG_FILE, WEIGHTS_FILE
from tasks.errors import InvalidEncoder

BY_NAME = {
    "kmer-mlp": ("tasks.encoders.kmer", "KmerMlp"),
    "dna-transformer": ("tasks.encoders.transformer", "DnaTransformer"),
}
BY_MODEL_TYPE = {"strandloop-kmer-mlp": "kmer-mlp", "bert": "dna-transformer"}


def architecture_named(name: str) -> type[EncoderModel]:
    """The network whose first version is registered as ``name``; raises :class:`InvalidEncoder` for others."""
    if name not in BY_NAME:
        raise InvalidEncoder(
            f"no encoder called {name!r} is registered, and none of that name can be trained here; "
            f"choose one of {', '.join(sorted(BY_NAME))}"
        )
    module, attribute = BY_NAME[name]
    architecture: type[EncoderModel] = getattr(import_module(module), attribute)
    return architecture


def architecture_in(directory: Path) -> type[EncoderModel]:
    """The network whose files are in ``directory``, told by ``model_type`` in its config.json."""
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (directory / file).is_file():
            raise InvalidEncoder(f"{directory} holds no encoder: {file} is missing")
    try:
        model_type = json.loads((directory / CONFIG_FILE).read_text())["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidEncoder(f"{directory / CONFIG_FILE} names no model_type: {error!r}") from error
    if model_type not in BY_MODEL_TYPE:
        raise InvalidEncoder(
            f"{directory / CONFIG_FILE} is of model_type {model_type!r}, but only "
            f"{', '.join(sorted(BY_MODEL_TYPE))} can be loaded"
        )
    return architecture_named(BY_MODEL_TYPE[model_type])
