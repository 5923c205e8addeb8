"""The networks that are trained here, and how a directory of files tells what loads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.encoders.kmer_on_cpu import KmerMlpOnCpu, gpu_in_reach
from tasks.encoders.node_cache import sha256_of
from tasks.encoders.protocol import Encoder, EncoderUri
from tasks.encoders.registry import CONFIG_FILE, WEIGHTS_FILE
from tasks.errors import InvalidEncoder

if TYPE_CHECKING:  # torch is loaded only where it is needed
    from tasks.encoders.model import EncoderModel

BY_NAME = {
    "kmer-mlp": ("tasks.encoders.kmer", "KmerMlp"),
    "dna-transformer": ("tasks.encoders.transformer", "DnaTransformer"),
    "dna-transformer-character": ("tasks.encoders.transformer", "CharacterTransformer"),
    "dna-transformer-bpe": ("tasks.encoders.transformer", "BpeTransformer"),
}


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


def load_directory(directory: Path, address: EncoderUri, *, to_train: bool) -> Encoder:
    """The encoder whose files are in ``directory``; what was not trained here goes to :mod:`tasks.encoders.hf`.

    :param to_train: what was trained here comes as the network that can be trained further.
    :raises InvalidEncoder: its files do not fit together, or an option does not apply to it.
    """
    name = _trained_here(_config_in(directory))
    if name is None:
        from tasks.encoders import hf

        return hf.load(directory, uri=str(address), options=address.options)
    if address.options:
        raise InvalidEncoder(f"{address}: the only option of {name} is average=reverse-complement")
    if not (directory / WEIGHTS_FILE).is_file():
        raise InvalidEncoder(f"{directory} holds no encoder: {WEIGHTS_FILE} is missing")
    model: EncoderModel | KmerMlpOnCpu
    if name == "kmer-mlp" and not to_train and not gpu_in_reach():
        model = KmerMlpOnCpu.load(directory)
    else:
        model = architecture_named(name).load(directory)
    model.uri = str(address)
    model.revision = sha256_of(directory / WEIGHTS_FILE)
    return model


def _config_in(directory: Path) -> Mapping[str, Any]:
    file = directory / CONFIG_FILE
    if not file.is_file():
        raise InvalidEncoder(f"{directory} holds no encoder: {CONFIG_FILE} is missing")
    try:
        config: Mapping[str, Any] = dict(json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise InvalidEncoder(f"{file} holds no JSON object: {error!r}") from error
    return config


def _trained_here(config: Mapping[str, Any]) -> str | None:
    """The network that wrote this config.json, or None where it came from elsewhere."""
    if config.get("model_type") == "strandloop-kmer-mlp":
        return "kmer-mlp"
    return "dna-transformer" if "dna_word_length" in config else None
