"""DNABERT-2 against a plain reference in float64: every product, position and head by itself."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from tasks.encoders.hf.mosaic_bert import alibi_slopes
from tasks.encoders.protocol import Encoder

Weights = dict[str, np.ndarray]


@pytest.mark.parametrize(
    ("heads", "slopes"),
    [
        (8, [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]),
        (3, [1 / 16, 1 / 256, 1 / 4]),
        (12, [2**-power for power in (1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5)]),
    ],
)
def test_slopes(heads: int, slopes: list[float]) -> None:
    assert alibi_slopes(heads) == pytest.approx(slopes)


@pytest.mark.parametrize(("kind", "prefix"), [("dnabert-2", "bert."), ("dnabert-s", "")])
def test_vectors_are_those_of_the_reference(
    kind: str, prefix: str, model_of: Callable[[str], Path], load: Callable[[str], Encoder]
) -> None:
    directory = model_of(kind)
    stored = (
        torch.load(directory / "pytorch_model.bin", weights_only=True)
        if prefix
        else load_file(directory / "model.safetensors")
    )
    weights = {name.removeprefix(prefix): tensor.double().numpy() for name, tensor in stored.items()}
    config = json.loads((directory / "config.json").read_text())
    read = "ACGTTGCANAACGGT" * 3
    tokens = Tokenizer.from_file(str(directory / "tokenizer.json")).encode(read)
    counted = [name not in ("[CLS]", "[SEP]", "[UNK]") for name in tokens.tokens]
    assert tokens.tokens[0] == "[CLS]" and not all(counted[1:-1])
    mean = reference_states(weights, config["num_attention_heads"], tokens.ids)[counted].mean(axis=0)
    # Other reads in the batch, one of them of the same length: the reference knows only one.
    vectors = load(directory.as_uri()).encode(pa.table({"sequence": ["ACGT", read, "T" * 90, read]}))
    np.testing.assert_allclose(vectors[1], mean / np.linalg.norm(mean), atol=1e-5)
    np.testing.assert_allclose(vectors[3], mean / np.linalg.norm(mean), atol=1e-5)


def reference_states(weights: Weights, heads: int, tokens: list[int]) -> np.ndarray:
    """Last states (tokens, hidden), as MosaicBERT's published code computes them without flash attention."""
    states = weights["embeddings.word_embeddings.weight"][tokens]
    states = states + weights["embeddings.token_type_embeddings.weight"][0]
    states = layer_norm(states, weights, "embeddings.LayerNorm")
    width = states.shape[1] // heads
    for layer in ("encoder.layer.0", "encoder.layer.1"):
        projected = states @ weights[f"{layer}.attention.self.Wqkv.weight"].T
        projected = projected + weights[f"{layer}.attention.self.Wqkv.bias"]
        attended = np.zeros_like(states)
        for head, slope in enumerate([2**-4, 2**-8, 2**-2]):
            query, key, value = (
                projected[:, part * states.shape[1] + head * width :][:, :width] for part in range(3)
            )
            for i in range(len(tokens)):
                scores = [
                    query[i] @ key[j] / math.sqrt(width) - slope * abs(i - j) for j in range(len(tokens))
                ]
                shares = np.exp(scores) / np.exp(scores).sum()
                attended[i, head * width : (head + 1) * width] = shares @ value
        dense = attended @ weights[f"{layer}.attention.output.dense.weight"].T
        dense = dense + weights[f"{layer}.attention.output.dense.bias"]
        states = layer_norm(dense + states, weights, f"{layer}.attention.output.LayerNorm")
        both = states @ weights[f"{layer}.mlp.gated_layers.weight"].T
        gate, passed = both[:, : both.shape[1] // 2], both[:, both.shape[1] // 2 :]
        gelu = gate * 0.5 * (1 + np.vectorize(math.erf)(gate / math.sqrt(2)))
        out = (gelu * passed) @ weights[f"{layer}.mlp.wo.weight"].T + weights[f"{layer}.mlp.wo.bias"]
        states = layer_norm(out + states, weights, f"{layer}.mlp.layernorm")
    return states


def layer_norm(states: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    centred = states - states.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-12)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]
