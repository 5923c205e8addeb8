"""Models of every architecture in their published layout, small and with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    EsmConfig,
    EsmForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from tasks.encoders.protocol import Encoder, load_encoder
from tasks.object_store import ObjectStore, ObjectUri

SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
AMINO_ACIDS = list("LAGVSERTIDPKQNFYMHWCXBUZO")


def kmers(length: int) -> list[str]:
    return ["".join(kmer) for kmer in product("ATCG", repeat=length)]


@pytest.fixture(scope="session")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a model by its kind, one of BUILDERS; read only."""
    made: dict[str, Path] = {}

    def directory(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            torch.manual_seed(1)
            BUILDERS[kind](made[kind])
        return made[kind]

    return directory


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Encoder]:
    """The encoder of a URI that needs no registry."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return lambda uri: load_encoder(uri, encoders=ObjectUri.parse("s3://none/encoders"), store=ObjectStore())


def write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content))


def write_bpe(directory: Path, special: list[str], before: str, after: str) -> None:
    """tokenizer.json as DNABERT-2 has it: byte-pair encoding of whole sequences, special tokens at both ends."""
    random = np.random.default_rng(0)
    tokenizer = Tokenizer(models.BPE(unk_token=special[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = ["".join(random.choice(list("ACGT"), 200, p=[0.4, 0.3, 0.2, 0.1])) for _ in range(50)]
    trainer = trainers.BpeTrainer(vocab_size=64, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in (before, after)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{before} $A {after}", special_tokens=ends
    )
    tokenizer.save(str(directory / "tokenizer.json"))


def write_mosaic_bert(directory: Path, prefix: str) -> dict[str, torch.Tensor]:
    """config.json and tokenizer.json of DNABERT-2; gives weights under the names of its pytorch_model.bin."""
    write_bpe(directory, ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"], "[CLS]", "[SEP]")
    code = {"AutoModel": "bert_layers.BertModel", "AutoConfig": "configuration_bert.BertConfig"}
    config = {
        **SMALL,
        "alibi_starting_size": 512,
        "auto_map": code,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    }
    write_json(
        directory / "config.json",
        {
            **config,
            "model_type": "bert",
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
            "vocab_size": 64,
        },
    )
    hidden, width = SMALL["hidden_size"], SMALL["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (64, hidden),
        "embeddings.token_type_embeddings.weight": (2, hidden),
        "embeddings.LayerNorm.weight": (hidden,),
        "embeddings.LayerNorm.bias": (hidden,),
    }
    for layer in (f"encoder.layer.{number}" for number in range(SMALL["num_hidden_layers"])):
        shapes |= {
            f"{layer}.attention.self.Wqkv.weight": (3 * hidden, hidden),
            f"{layer}.attention.self.Wqkv.bias": (3 * hidden,),
            f"{layer}.attention.output.dense.weight": (hidden, hidden),
            f"{layer}.attention.output.dense.bias": (hidden,),
            f"{layer}.attention.output.LayerNorm.weight": (hidden,),
            f"{layer}.attention.output.LayerNorm.bias": (hidden,),
            f"{layer}.mlp.gated_layers.weight": (2 * width, hidden),
            f"{layer}.mlp.wo.weight": (hidden, width),
            f"{layer}.mlp.wo.bias": (hidden,),
            f"{layer}.mlp.layernorm.weight": (hidden,),
            f"{layer}.mlp.layernorm.bias": (hidden,),
        }
    return {prefix + name: torch.randn(shape) * 0.3 for name, shape in shapes.items()}


def write_dnabert_2(directory: Path) -> None:
    weights = write_mosaic_bert(directory, "bert.")
    weights["cls.predictions.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"]
    torch.save(weights, directory / "pytorch_model.bin")


def write_dnabert_s(directory: Path) -> None:
    weights = write_mosaic_bert(directory, "")
    save_file(weights | {"pooler.dense.bias": torch.zeros(24)}, directory / "model.safetensors")


def esm_config(vocabulary: int, **changes: object) -> EsmConfig:
    usual = {"vocab_size": vocabulary, "pad_token_id": 1, "mask_token_id": 2, "max_position_embeddings": 130}
    return EsmConfig(**{**SMALL, **usual, "position_embedding_type": "rotary", **changes})


def write_nucleotide_tokenizer(directory: Path) -> None:
    words = ["<unk>", "<pad>", "<mask>", "<cls>", *kmers(3), *"ATCGN", "<eos>", "<bos>"]
    (directory / "vocab.txt").write_text("\n".join(words))
    tokenizer = {"eos_token": None, "model_max_length": 1000, "tokenizer_class": "EsmTokenizer"}
    write_json(directory / "tokenizer_config.json", tokenizer)


def write_nucleotide_transformer(directory: Path) -> None:
    write_nucleotide_tokenizer(directory)
    config = esm_config(4 + 64 + 5, position_embedding_type="absolute", token_dropout=True)
    EsmForMaskedLM(config).save_pretrained(directory)


def write_nucleotide_transformer_v2(directory: Path) -> None:
    write_nucleotide_tokenizer(directory)
    config = esm_config(4 + 64 + 7, add_bias_fnn=False, auto_map={"AutoConfig": "esm_config.EsmConfig"})
    weights = {name: tensor.contiguous() for name, tensor in EsmForMaskedLM(config).state_dict().items()}
    for number in range(SMALL["num_hidden_layers"]):
        layer = f"esm.encoder.layer.{number}"
        weights[f"{layer}.intermediate.dense.weight"] = torch.randn(2 * 40, 24) * 0.3
        del weights[f"{layer}.intermediate.dense.bias"], weights[f"{layer}.output.dense.bias"]
    del weights["lm_head.decoder.weight"]
    save_file(weights, directory / "model.safetensors")
    published = config.to_dict()
    del published["model_type"]
    write_json(directory / "config.json", published)


def write_esm(directory: Path) -> None:
    words = ["<cls>", "<pad>", "<eos>", "<unk>", *AMINO_ACIDS, ".", "-", "<null_1>", "<mask>"]
    (directory / "vocab.txt").write_text("\n".join(words))
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "EsmTokenizer"})
    EsmForMaskedLM(esm_config(33, mask_token_id=32, token_dropout=True)).save_pretrained(directory)


def write_bert(directory: Path, words: Iterable[str]) -> None:
    vocabulary = [*BERT_SPECIAL, *words]
    (directory / "vocab.txt").write_text("\n".join(vocabulary))
    write_json(directory / "tokenizer_config.json", {"do_lower_case": False})
    config = BertConfig(**SMALL, vocab_size=len(vocabulary), max_position_embeddings=130)
    BertForMaskedLM(config).save_pretrained(directory)


def write_roberta(directory: Path) -> None:
    write_bpe(directory, ["<unk>", "<s>", "<pad>", "</s>", "<mask>"], "<s>", "</s>")
    config = RobertaConfig(**SMALL, vocab_size=64, max_position_embeddings=130, pad_token_id=2)
    RobertaForMaskedLM(config).save_pretrained(directory)


BUILDERS: dict[str, Callable[[Path], None]] = {
    "dnabert-2": write_dnabert_2,
    "dnabert-s": write_dnabert_s,
    "nucleotide-transformer": write_nucleotide_transformer,
    "nucleotide-transformer-v2": write_nucleotide_transformer_v2,
    "dnabert": lambda directory: write_bert(directory, kmers(3)),
    "roberta": write_roberta,
    "esm": write_esm,
    "prot-bert": lambda directory: write_bert(directory, AMINO_ACIDS),
}
