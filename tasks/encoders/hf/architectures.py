"""Which network reads a model, told by its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import BertModel, EsmModel, RobertaModel

from tasks.encoders.hf.files import CONFIG_FILE
from tasks.encoders.hf.mosaic_bert import MosaicBert
from tasks.encoders.hf.network import Network
from tasks.encoders.hf.padded import GatedEsmModel, load_padded
from tasks.errors import InvalidEncoder

MODEL_TYPES = {"bert": BertModel, "roberta": RobertaModel, "esm": EsmModel}


def network_in(directory: Path, config: Mapping[str, Any], dtype: torch.dtype) -> Network:
    """The network in ``directory``, on the CPU; raises InvalidEncoder where nothing here reads it."""
    model_type = config.get("model_type")
    try:
        if "alibi_starting_size" in config:
            return MosaicBert.load(directory, config, dtype)
        if "add_bias_fnn" in config:  # Nucleotide Transformer v2, which names no model_type
            return load_padded(GatedEsmModel, directory, config, dtype)
        if model_type not in MODEL_TYPES:
            raise InvalidEncoder(
                f"{directory / CONFIG_FILE} is of model_type {model_type!r}; known are {', '.join(MODEL_TYPES)}, "
                "DNABERT-2 and Nucleotide Transformer v2"
            )
        return load_padded(MODEL_TYPES[model_type], directory, config, dtype)
    except InvalidEncoder as error:
        if "auto_map" not in config:
            raise
        raise InvalidEncoder(
            f"{error}. The model brings Python code of its own: if you trust it, add ?trust_remote_code=true"
        ) from error
