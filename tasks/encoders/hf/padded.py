"""Networks of transformers (BERT, RoBERTa, ESM) and Nucleotide Transformer v2, on padded batches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import EsmConfig, EsmModel, PreTrainedModel

from tasks.encoders.hf.network import Network
from tasks.errors import InvalidEncoder

HEADS = ("cls.", "lm_head.", "classifier.", "qa_outputs.", "pooler.", "contact_head.")
"""Weights that do not reach the states of the last layer, without the prefix ``bert.`` and the like."""


class Padded(Network):
    """A network of transformers on rows that are padded to the longest; padding is masked and given to nobody."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        config = model.config
        self.model = model
        self.dim = int(config.hidden_size)
        self.padding = int(config.pad_token_id or 0)
        # RoBERTa and ESM count positions from the one after the padding token's number.
        first = 0 if config.model_type == "bert" else self.padding + 1
        self.max_tokens = int(config.max_position_embeddings) - first

    def forward(self, ids: Tensor, lengths: list[int]) -> Tensor:
        """See :class:`tasks.encoders.hf.network.Network`."""
        rows = pad_sequence(list(ids.split(lengths)), batch_first=True, padding_value=self.padding)
        position = torch.arange(rows.shape[1], device=ids.device)
        real = position < torch.tensor(lengths, device=ids.device)[:, None]
        states: Tensor = self.model(input_ids=rows, attention_mask=real.long()).last_hidden_state
        return states[real]


class GatedEsmModel(EsmModel):
    """Nucleotide Transformer v2: ESM with gated linear units (SiLU) without biases as feed-forward layers."""

    def __init__(self, config: EsmConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config, add_pooling_layer=add_pooling_layer)
        width, hidden, bias = config.intermediate_size, config.hidden_size, config.add_bias_fnn
        for layer in self.encoder.layer:
            layer.intermediate = _GatedLayer(hidden, width, bias)
            layer.output.dense = nn.Linear(width, hidden, bias=bias)


class _GatedLayer(nn.Module):
    def __init__(self, hidden: int, width: int, bias: bool) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, 2 * width, bias=bias)

    def forward(self, states: Tensor) -> Tensor:
        gate, value = self.dense(states).chunk(2, dim=-1)
        return nn.functional.silu(gate) * value


def load_padded(
    network: type[PreTrainedModel], directory: Path, config: Mapping[str, Any], dtype: torch.dtype
) -> Padded:
    """A network of transformers from ``directory``; raises InvalidEncoder where its weights are not all there."""
    model: PreTrainedModel
    report: dict[str, set[str]]
    try:
        model, report = network.from_pretrained(  # type: ignore[misc]
            directory,
            config=network.config_class.from_dict(dict(config)),  # type: ignore[union-attr]
            add_pooling_layer=False,
            attn_implementation="sdpa",
            dtype=dtype,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # OSError, ValueError, UnpicklingError, ...: the files are no such model
        raise InvalidEncoder(f"the files in {directory} are no {network.__name__}: {error}") from error
    missing = _without_heads(report["missing_keys"], network)
    left_over = _without_heads(report["unexpected_keys"], network)
    if missing or left_over:
        raise InvalidEncoder(
            f"the weights in {directory} are not those of a {network.__name__}: {len(missing)} are missing "
            f"({', '.join(missing[:3])}) and {len(left_over)} belong to something else "
            f"({', '.join(left_over[:3])})"
        )
    return Padded(model)


def _without_heads(names: set[str], network: type[PreTrainedModel]) -> list[str]:
    inner = {name.removeprefix(f"{network.base_model_prefix}.") for name in names}
    return sorted(name for name in inner if not name.startswith(HEADS) and not name.endswith("position_ids"))
