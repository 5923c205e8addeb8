"""Part 3: networks on reads of mixed lengths, against the Hugging Face pipeline and sentence-transformers.

All weights are random: what they are does not change the speed. Reads are drawn from the vectors that both
inputs give together: four of five are short reads, the others windows of at most 2,000 bases of long ones.

``dna-transformer``
    Our small transformer. All three load the same directory; that ours and sentence-transformers give the same
    vectors is checked. The rivals are given the words of a read, for Hugging Face's tokenizers cannot cut a text
    into words that overlap; the time that takes is not counted.
``bert-base``
    BERT of DNABERT-2's size (12 layers of 768) with byte-pair tokens. All three load the same directory.
``dnabert-2``
    Its architecture, in its published layout. Rivals load that only by running the Python code that comes with
    the published weights, so ``bert-base`` stands in for it there.

``ours, compiled`` is ours with ``torch.compile`` around the network, for shapes that change; what compiling takes
is in ``warm_seconds``, the time of the first pass over the same sequences.

The pipeline is ``feature-extraction`` with batch_size 64, its states averaged; sentence-transformers sorts by
length by itself. Tokens are the real ones, without padding, and without what is beyond the model's longest input.

On a GPU ``share_of_peak`` is the model's own arithmetic (two operations for each weight of a matrix and token,
and attention's) over the peak of the card's data sheet for dense bfloat16.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dnaio
import numpy as np

from tests.benchmarks.phase1.inputs import Input
from tests.benchmarks.processes import MeasurementFailed, measured

SEQUENCES = {"cpu": {"dna-transformer": 4096, "bert-base": 96, "dnabert-2": 96}}
SEQUENCES["cuda"] = {"dna-transformer": 65_536, "bert-base": 16_384, "dnabert-2": 16_384}
SHORT_SHARE = 0.8
WINDOW_BASES, OVERLAP_BASES = 2000, 200
DNABERT_2 = {
    "model_type": "bert",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 4096,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}
SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
PEAK_BF16 = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10G": 70e12}
"""Operations per second, dense, by the data sheets; H100 and H200 as SXM."""
TOLERANCE = 2e-3
COMPILED = "ours, compiled"


def compare(inputs: dict[str, Input], share: float) -> dict[str, Any]:
    """Rows for each model and way; the vectors of one model are compared.

    :param share: of the usual number of sequences, for a small run.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "sequences.json"
        for model, count in SEQUENCES[device].items():
            directory = Path(folder) / model
            directory.mkdir()
            sequences = mixed(inputs, max(16, round(count * share)))
            sample.write_text(json.dumps(sequences))
            BUILDERS[model](directory, sequences)
            ways = WAYS if model != "dnabert-2" else ["ours"]
            rows += [one_way(model, way, directory, sample) for way in ways]
            if model == "dna-transformer":
                first, second = (
                    np.load(directory / f"{way}.npy") for way in ("ours", "sentence-transformers")
                )
                apart = float(np.abs(first - second).max())
                if apart > TOLERANCE:
                    raise AssertionError(f"{model}: the vectors differ by up to {apart}")
    bases = [len(sequence) for sequence in sequences]
    mix = {"mean_bases": round(float(np.mean(bases))), "longest_bases": max(bases)}
    return {"device": device, "threads": os.cpu_count(), "mix": mix, "rows": rows}


def one_way(model: str, way: str, directory: Path, sample: Path) -> dict[str, Any]:
    """One measurement with all of the machine's cores."""
    row = {"model": model, "way": way}
    try:
        found = measured(
            "phase1.models",
            *(way, str(directory), str(sample)),
            environment={"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"},
            threads=os.cpu_count() or 1,
        )
    except MeasurementFailed as error:
        if way == "ours":
            raise
        return {**row, "not_measured": str(error)[-300:]}
    return {**row, **found}


def mixed(inputs: dict[str, Input], count: int) -> list[str]:
    """Sequences of both inputs, without N, in random order."""
    short = round(count * SHORT_SHARE)
    drawn: list[str] = []
    for name, wanted in (("short", short), ("long", count)):
        with dnaio.open(inputs[name].paths[0], open_threads=0) as reader:
            for record in reader:
                for start in range(0, max(1, len(record) - OVERLAP_BASES), WINDOW_BASES - OVERLAP_BASES):
                    window = record.sequence[start : start + WINDOW_BASES]
                    if "N" not in window and len(drawn) < wanted:
                        drawn.append(window)
                if len(drawn) == wanted:
                    break
    order = np.random.default_rng(1).permutation(len(drawn))
    return [drawn[row] for row in order]


def build_dna_transformer(directory: Path, sequences: list[str]) -> None:
    """As it is before its first training."""
    import pyarrow as pa

    from tasks.encoders.sequences import Sequences
    from tasks.encoders.transformer import DnaTransformer

    DnaTransformer.untrained(Sequences.from_arrow(pa.array(sequences)), seed=1).save(directory)


def build_bert_base(directory: Path, sequences: list[str]) -> None:
    """BERT in the sizes of DNABERT-2."""
    import torch
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(1)
    tokenizer = byte_pairs(sequences)
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "cls", "sep", "pad", "mask")}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **special)
    wrapped.save_pretrained(directory)
    sizes = {**DNABERT_2, "pad_token_id": SPECIAL.index("[PAD]")}
    BertModel(BertConfig(**sizes), add_pooling_layer=False).save_pretrained(directory)


def build_dnabert_2(directory: Path, sequences: list[str]) -> None:
    """config.json, tokenizer.json and weights under the names that DNABERT-2 was published with."""
    import torch
    from safetensors.torch import save_file

    byte_pairs(sequences).save(str(directory / "tokenizer.json"))
    code = {"AutoModel": "bert_layers.BertModel", "AutoConfig": "configuration_bert.BertConfig"}
    config = {**DNABERT_2, "alibi_starting_size": 512, "auto_map": code}
    (directory / "config.json").write_text(json.dumps(config))
    hidden, width = 768, 3072
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (4096, hidden),
        "embeddings.token_type_embeddings.weight": (2, hidden),
        "embeddings.LayerNorm.weight": (hidden,),
        "embeddings.LayerNorm.bias": (hidden,),
    }
    for layer in (f"encoder.layer.{number}." for number in range(12)):
        blocks = {
            "attention.self.Wqkv": (3 * hidden, hidden),
            "attention.output.dense": (hidden, hidden),
            "mlp.wo": (hidden, width),
        }
        shapes |= {f"{layer}{block}.weight": shape for block, shape in blocks.items()}
        shapes |= {f"{layer}{block}.bias": shape[:1] for block, shape in blocks.items()}
        shapes[f"{layer}mlp.gated_layers.weight"] = (2 * width, hidden)
        for norm in ("attention.output.LayerNorm", "mlp.layernorm"):
            shapes |= {f"{layer}{norm}.{what}": (hidden,) for what in ("weight", "bias")}
    torch.manual_seed(1)
    weights = {f"bert.{name}": torch.randn(shape) * 0.02 for name, shape in shapes.items()}
    save_file(weights, directory / "model.safetensors")


BUILDERS: dict[str, Callable[[Path, list[str]], None]] = {
    "dna-transformer": build_dna_transformer,
    "bert-base": build_bert_base,
    "dnabert-2": build_dnabert_2,
}


def byte_pairs(sequences: list[str]) -> Any:
    """A byte-pair tokenizer of 4,096 words, as DNABERT-2's, trained on these sequences."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=4096, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator([text[:200] for text in sequences[:2000]], trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer


def ours(directory: Path) -> Callable[[list[str]], np.ndarray]:
    """Through the address ``file:///…``."""
    return encoding(load(directory))


def compiled(directory: Path) -> Callable[[list[str]], np.ndarray]:
    """The same, the network compiled in place."""
    from torch import nn
    from transformers import PreTrainedModel

    encoder = load(directory)
    [network] = [part for part in (encoder, *vars(encoder).values()) if isinstance(part, nn.Module)][:1]
    [transformer] = [part for part in network.modules() if isinstance(part, PreTrainedModel)][:1]
    transformer.compile(dynamic=True)
    return encoding(encoder)


def load(directory: Path) -> Any:
    """The encoder in ``directory``."""
    from tasks.encoders.protocol import load_encoder
    from tasks.object_store import ObjectStore, ObjectUri

    return load_encoder(
        directory.as_uri(), encoders=ObjectUri.parse("s3://none/encoders"), store=ObjectStore()
    )


def encoding(encoder: Any) -> Callable[[list[str]], np.ndarray]:
    """What takes sequences as the rivals do."""
    import pyarrow as pa

    return lambda texts: encoder.encode(pa.table({"sequence": texts}))


def hugging_face_pipeline(directory: Path) -> Callable[[list[str]], np.ndarray]:
    """``feature-extraction``; the mean of all states that it gives."""
    import torch
    from transformers import pipeline

    extract = pipeline(
        "feature-extraction",
        model=str(directory),
        tokenizer=str(directory),
        batch_size=64,
        device=0 if torch.cuda.is_available() else -1,
        tokenize_kwargs={"truncation": True},
        return_tensors=True,
    )
    return lambda texts: np.stack([states[0].float().mean(dim=0).cpu().numpy() for states in extract(texts)])


def sentence_transformers(directory: Path) -> Callable[[list[str]], np.ndarray]:
    """Mean pooling, batches of 64 sorted by length."""
    from sentence_transformers import SentenceTransformer, models

    words = models.Transformer(str(directory))
    pooling = models.Pooling(words.get_embedding_dimension(), pooling_mode="mean")
    model = SentenceTransformer(modules=[words, pooling, models.Normalize()])
    return lambda texts: np.asarray(model.encode(texts, batch_size=64, show_progress_bar=False))


WAYS: dict[str, Callable[[Path], Callable[[list[str]], np.ndarray]]] = {
    "ours": ours,
    COMPILED: compiled,
    "Hugging Face pipeline": hugging_face_pipeline,
    "sentence-transformers": sentence_transformers,
}


def tokens_of(directory: Path, texts: list[str]) -> list[int]:
    """Real tokens of each sequence, at most as many as the model has positions."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"))
    longest = json.loads((directory / "config.json").read_text())["max_position_embeddings"]
    return [min(len(ids), longest) for ids in tokenizer(texts)["input_ids"]]


def as_words(directory: Path, texts: list[str]) -> list[str]:
    """The sequences as the model's tokenizer.json takes them: dna-transformer's with a space between words."""
    bases = json.loads((directory / "config.json").read_text()).get("dna_word_length", 0)
    if not bases:
        return texts
    return [" ".join(text[i : i + bases] for i in range(len(text) - bases + 1)) for text in texts]


def operations(directory: Path, tokens: list[int]) -> float:
    """Multiplications and additions that the model needs for sequences of so many tokens."""
    config = json.loads((directory / "config.json").read_text())
    hidden, layers, width = (
        config[name] for name in ("hidden_size", "num_hidden_layers", "intermediate_size")
    )
    gated = 3 if "alibi_starting_size" in config else 2
    weights = layers * (4 * hidden**2 + gated * hidden * width)
    return float(sum(2 * weights * count + 4 * layers * hidden * count**2 for count in tokens))


def main() -> None:
    """One way with one model, warmed by a few sequences of every length."""
    import torch

    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("directory", type=Path)
    parser.add_argument("sample", type=Path)
    options = parser.parse_args()
    texts = json.loads(options.sample.read_text())
    words = as_words(options.directory, texts)
    tokens = tokens_of(options.directory, words)
    if options.way != "ours":
        texts = words
    on_gpu = torch.cuda.is_available()
    encode = WAYS[options.way](options.directory)
    started = time.perf_counter()
    encode(texts if on_gpu or options.way == COMPILED else texts[:8])
    warm = time.perf_counter() - started
    started = time.perf_counter()
    vectors = encode(texts)
    seconds = time.perf_counter() - started
    np.save(options.directory / f"{options.way}.npy", vectors)
    result = {
        "sequences": len(texts),
        "warm_seconds": round(warm, 3),
        "seconds": round(seconds, 3),
        "reads_per_second": round(len(texts) / seconds, 1),
        "tokens_per_second": round(sum(tokens) / seconds),
    }
    if on_gpu:
        name = torch.cuda.get_device_name()
        peak = next((value for card, value in PEAK_BF16.items() if card in name), None)
        rate = operations(options.directory, tokens) / seconds
        result |= {"gpu": name, "teraflops": round(rate / 1e12, 1)}
        result["share_of_peak"] = None if peak is None else round(rate / peak, 3)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
