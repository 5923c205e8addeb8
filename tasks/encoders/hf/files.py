"""Which files make up a model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks.errors import InvalidEncoder

CONFIG_FILE = "config.json"
DESCRIPTIONS = (
    CONFIG_FILE,
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
WEIGHTS = (
    re.compile(r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"),
    re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin|pytorch_model\.bin\.index\.json"),
)
"""In the order of preference: where a model has its weights in both forms, only the first is taken."""


def model_files(names: Iterable[str]) -> list[str]:
    """Of all files of a model, those that decide its vectors: config, tokenizer, one form of the weights, code."""
    names = sorted(names)
    forms = [[name for name in names if form.fullmatch(name)] for form in WEIGHTS]
    weights = next((form for form in forms if form), [])
    return [name for name in names if name in DESCRIPTIONS or re.fullmatch(r"\w+\.py", name)] + weights


def weights_files(directory: Path) -> list[Path]:
    """The file of weights in ``directory``, or all that its index (``….index.json``) names.

    :raises InvalidEncoder: there are no weights, or not all files of them.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = directory / f"{name}.index.json"
        if (directory / name).is_file():
            return [directory / name]
        if index.is_file():
            return _indexed(index)
    raise InvalidEncoder(
        f"{directory} holds neither model.safetensors nor pytorch_model.bin, nor an index of one"
    )


def _indexed(index: Path) -> list[Path]:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise InvalidEncoder(f"{index} names no files: it has no weight_map")
    names = sorted(set(map(str, shards.values())))
    missing = [name for name in names if Path(name).name != name or not (index.parent / name).is_file()]
    if missing:
        raise InvalidEncoder(
            f"{index} names {len(names)} files of weights, but {', '.join(missing[:3])} is not beside it"
        )
    return [index.parent / name for name in names]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, empty where there is no file; raises InvalidEncoder where it is damaged."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise InvalidEncoder(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InvalidEncoder(f"{path} holds no JSON object")
    return content
