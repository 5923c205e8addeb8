"""The architecture of DNABERT-2 and DNABERT-S (MosaicBERT), under the names of their published weights.

BERT with layer normalisation after each block, but: no positions in the embedding, instead each head lowers its
attention by its slope times the distance of two tokens (ALiBi, in both directions); and gated linear units in place
of the feed-forward layer. Zhou et al. 2024 (DNABERT-2, arXiv:2306.15006), Portes et al. 2023 (MosaicBERT,
arXiv:2312.17482), Press et al. 2022 (ALiBi, arXiv:2108.12409).

Tokens of all rows are packed one after the other, without any padding: dense layers run over all of them, attention
over one group of equally long rows after the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from tasks.encoders.hf.files import weights_files
from tasks.encoders.hf.network import Network
from tasks.errors import InvalidEncoder

MAX_TOKENS = 2048
"""ALiBi has no limit; the paper goes to sequences of 10,000 bases, which are about this many tokens."""
HEADS = ("pooler.", "cls.", "classifier.")
"""Weights that do not reach the states of the last layer."""


class MosaicBert(Network):
    """See the module; ``config`` is config.json."""

    max_tokens = MAX_TOKENS

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.dim = int(config["hidden_size"])
        self.embeddings = _Embeddings(config)
        self.encoder = nn.ModuleDict(
            {"layer": nn.ModuleList(_Layer(config) for _ in range(config["num_hidden_layers"]))}
        )
        self._slopes = alibi_slopes(config["num_attention_heads"])

    @classmethod
    def load(cls, directory: Path, config: Mapping[str, Any], dtype: torch.dtype) -> MosaicBert:
        """The network with the weights in ``directory``; raises InvalidEncoder where they are not all there."""
        files = weights_files(directory)
        try:
            weights: dict[str, Tensor] = {}
            for file in files:
                weights |= (
                    load_file(file)
                    if file.suffix == ".safetensors"
                    else torch.load(file, map_location="cpu", weights_only=True)
                )
            with torch.device("meta"):
                network = cls(config)
            weights = {name.removeprefix("bert."): tensor for name, tensor in weights.items()}
            weights = {name: tensor for name, tensor in weights.items() if not name.startswith(HEADS)}
            network.load_state_dict(weights, assign=True)
        except (OSError, RuntimeError, KeyError, ValueError, SafetensorError, AttributeError) as error:
            raise InvalidEncoder(
                f"the weights in {directory} are not those of a DNABERT-2: {error}"
            ) from error
        except Exception as error:  # pickle.UnpicklingError: what weights_only refuses
            raise InvalidEncoder(f"{file} holds more than tensors, which is not loaded: {error}") from error
        return network.to(dtype)

    def forward(self, ids: Tensor, lengths: list[int]) -> Tensor:
        """See :class:`tasks.encoders.hf.network.Network`."""
        groups = [(length, len(list(rows))) for length, rows in groupby(lengths)]
        # A multiple of 8: attention on a GPU takes slices of such a bias as they are, and copies others.
        positions = torch.arange(-(-max(lengths) // 8) * 8, device=ids.device)
        slopes = torch.tensor(self._slopes, device=ids.device)[:, None, None]
        states: Tensor = self.embeddings(ids)
        bias = (-slopes * (positions[:, None] - positions).abs()).to(states.dtype)
        for layer in self.encoder["layer"].children():
            states = layer(states, groups, bias)
        return states


def alibi_slopes(heads: int) -> list[float]:
    """The slope of each head: a geometric sequence; heads beyond a power of two come from the next one."""
    whole = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (head + 1) / whole) for head in range(whole)]
    return slopes if whole == heads else slopes + alibi_slopes(2 * whole)[0::2][: heads - whole]


class _Embeddings(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.token_type_embeddings = nn.Embedding(config["type_vocab_size"], config["hidden_size"])
        self.LayerNorm = nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"])

    def forward(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.LayerNorm(self.word_embeddings(ids) + self.token_type_embeddings.weight[0])
        return embedded


class _Layer(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": _SelfAttention(config), "output": _AttentionOutput(config)})
        self.mlp = _GatedMlp(config)

    def forward(self, states: Tensor, groups: list[tuple[int, int]], bias: Tensor) -> Tensor:
        attended = self.attention["self"](states, groups, bias)
        mixed: Tensor = self.mlp(self.attention["output"](attended, states))
        return mixed


class _SelfAttention(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.heads = config["num_attention_heads"]
        self.Wqkv = nn.Linear(config["hidden_size"], 3 * config["hidden_size"])

    def forward(self, states: Tensor, groups: list[tuple[int, int]], bias: Tensor) -> Tensor:
        projected = self.Wqkv(states).unflatten(-1, (3, self.heads, -1))
        attended = torch.empty_like(states)
        start = 0
        for length, rows in groups:
            stop = start + length * rows
            query, key, value = projected[start:stop].unflatten(0, (rows, length)).permute(2, 0, 3, 1, 4)
            distance_bias = bias[None, :, :length, :length]
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=distance_bias)
            attended[start:stop] = mixed.transpose(1, 2).reshape(length * rows, -1)
            start = stop
        return attended


class _AttentionOutput(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.dense = nn.Linear(config["hidden_size"], config["hidden_size"])
        self.LayerNorm = nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"])

    def forward(self, attended: Tensor, states: Tensor) -> Tensor:
        normalised: Tensor = self.LayerNorm(self.dense(attended) + states)
        return normalised


class _GatedMlp(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.gated_layers = nn.Linear(config["hidden_size"], 2 * config["intermediate_size"], bias=False)
        self.wo = nn.Linear(config["intermediate_size"], config["hidden_size"])
        self.layernorm = nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"])

    def forward(self, states: Tensor) -> Tensor:
        gate, value = self.gated_layers(states).chunk(2, dim=-1)
        normalised: Tensor = self.layernorm(self.wo(functional.gelu(gate) * value) + states)
        return normalised
