import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, BertTokenizer, EsmConfig, EsmModel, EsmTokenizer

from tasks.encoders import hf
from tasks.encoders.hf import encoder as hf_encoder
from tasks.encoders.protocol import Encoder
from tasks.encoders.sequences import Sequences
from tasks.errors import InvalidEncoder

DNA = ["dnabert-2", "dnabert-s", "nucleotide-transformer", "nucleotide-transformer-v2", "dnabert", "roberta"]
PROTEIN = ["esm", "prot-bert"]
TRANSLATE = "?translate=longest-orf"

Load = Callable[[str], Encoder]
ModelOf = Callable[[str], Path]


def reads(*lengths: int) -> pa.Table:
    random = np.random.default_rng(3)
    return pa.table({"sequence": ["".join(random.choice(list("ACGT"), length)) for length in lengths]})


@pytest.mark.parametrize("kind", [*DNA, *PROTEIN])
def test_neither_padding_nor_neighbours_reach_a_vector(
    kind: str, model_of: ModelOf, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = model_of(kind).as_uri() + (TRANSLATE if kind in PROTEIN else "")
    encoder = load(uri)
    block = pa.concat_tables(
        [reads(90, 7, 90, 1, 33, 120, 0, 64), pa.table({"sequence": ["N" * 50, "ACGNNT"]})]
    )
    together = encoder.encode(block)
    assert together.dtype == np.float32
    assert together.shape == (10, encoder.dim) == (10, 24)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([encoder.encode(block.slice(row, 1)) for row in range(10)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    monkeypatch.setitem(hf_encoder.TOKENS_PER_BATCH, "cpu", 60)
    np.testing.assert_allclose(together, encoder.encode(block), atol=1e-5)
    assert np.abs(together[0] - together[2]).max() > 1e-3
    assert encoder.encode(block.slice(0, 0)).shape == (0, 24)


@pytest.mark.parametrize("kind", ["dnabert-2", "nucleotide-transformer", "dnabert"])
def test_several_threads_may_encode_at_once(kind: str, model_of: ModelOf, load: Load) -> None:
    encoder = load(model_of(kind).as_uri())
    blocks = [reads(*range(number, 90, 3)) for number in range(1, 41)]
    alone = [encoder.encode(block) for block in blocks]
    with ThreadPoolExecutor(4) as pool:
        for expected, found in zip(alone, pool.map(encoder.encode, blocks), strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", DNA)
def test_bfloat16_where_hardware_has_it_gives_nearly_the_same_vectors(
    kind: str, model_of: ModelOf, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = reads(90, 7, 33, 120)
    exact = load(model_of(kind).as_uri()).encode(block)
    monkeypatch.setattr(hf_encoder, "inference_dtype", lambda device: torch.bfloat16)
    rounded = load(model_of(kind).as_uri()).encode(block)
    assert rounded.dtype == np.float32
    cosines = (exact * rounded).sum(axis=1)
    assert cosines.min() > 0.999
    assert np.abs(exact - rounded).max() > 1e-5


def spaced(read: str, word_bases: int) -> str:
    return " ".join(read[i : i + word_bases] for i in range(len(read) - word_bases + 1))


@pytest.mark.parametrize(
    ("kind", "tokenizer", "text"),
    [
        ("nucleotide-transformer", EsmTokenizer, str),
        ("dnabert", BertTokenizer, lambda read: spaced(read, 3)),
    ],
)
def test_dna_models_agree_with_transformers(
    kind: str, tokenizer: type, text: Callable[[str], str], model_of: ModelOf, load: Load
) -> None:
    block = pa.table({"sequence": [*reads(100, 31, 5)["sequence"].to_pylist(), "ACGTNNACGTTTGCANA", "TTN"]})
    expected = [
        vector_by_transformers(model_of(kind), tokenizer, text(read))
        for read in block["sequence"].to_pylist()
    ]
    np.testing.assert_allclose(load(model_of(kind).as_uri()).encode(block), expected, atol=1e-5)


@pytest.mark.parametrize(("kind", "tokenizer"), [("esm", EsmTokenizer), ("prot-bert", BertTokenizer)])
def test_protein_models_agree_with_transformers(
    kind: str, tokenizer: type, model_of: ModelOf, load: Load
) -> None:
    encoder = load(model_of(kind).as_uri() + TRANSLATE)
    protein = "MKVLAAGWTRENDFPSYHIC"
    read = "ATGAAAGTCCTAGCAGCCGGATGGACCCGTGAGAATGACTTTCCCTCATATCACATTTGC"
    expected = vector_by_transformers(model_of(kind), tokenizer, spaced(protein, 1))
    reverse_complement = read[::-1].translate(str.maketrans("ACGT", "TGCA"))
    for strand in (read, reverse_complement):
        np.testing.assert_allclose(encoder.encode(pa.table({"sequence": [strand]}))[0], expected, atol=1e-5)
    assert encoder.strand_symmetric


def vector_by_transformers(directory: Path, tokenizer_class: type, text: str) -> np.ndarray:
    """Mean over tokens that are not special of AutoModel's last states."""
    tokenizer = tokenizer_class.from_pretrained(directory)
    model = AutoModel.from_pretrained(directory).eval()
    tokens = tokenizer(text, return_tensors="pt")
    with torch.inference_mode():
        states = model(**tokens).last_hidden_state[0]
    real = [token not in tokenizer.all_special_ids for token in tokens["input_ids"][0].tolist()]
    mean = states[real if any(real) else slice(None)].mean(dim=0)
    return (mean / mean.norm()).numpy()


def test_nucleotide_transformer_v2_gates_its_feed_forward_layers(model_of: ModelOf, load: Load) -> None:

    directory = model_of("nucleotide-transformer-v2")

    weights = load_file(directory / "model.safetensors")
    config = EsmConfig.from_dict(json.loads((directory / "config.json").read_text()))
    model = EsmModel(config, add_pooling_layer=False)
    shared = {name: tensor for name, tensor in weights.items() if "dense" not in name or "attention" in name}
    model.load_state_dict(
        {name.removeprefix("esm."): tensor for name, tensor in shared.items()}, strict=False
    )
    for number, layer in enumerate(model.encoder.layer):
        up = weights[f"esm.encoder.layer.{number}.intermediate.dense.weight"]
        down = weights[f"esm.encoder.layer.{number}.output.dense.weight"]

        def gated(states: torch.Tensor, up: torch.Tensor = up) -> torch.Tensor:
            first, second = states @ up[:40].T, states @ up[40:].T
            return first / (1 + torch.exp(-first)) * second

        def projected(
            states: torch.Tensor, residual: torch.Tensor, down: torch.Tensor = down
        ) -> torch.Tensor:
            return states @ down.T + residual

        layer.intermediate.forward, layer.output.forward = gated, projected
    block = reads(60)
    tokens = EsmTokenizer.from_pretrained(directory)(block["sequence"][0].as_py(), return_tensors="pt")
    with torch.inference_mode():
        states = model.eval()(**tokens).last_hidden_state[0, 1:]
    mean = states.mean(dim=0)
    np.testing.assert_allclose(load(directory.as_uri()).encode(block)[0], mean / mean.norm(), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "longest"), [("nucleotide-transformer", 127 * 3), ("dnabert", 130), ("roberta", None)]
)
def test_what_is_beyond_the_longest_input_is_left_out(
    kind: str, longest: int | None, model_of: ModelOf, load: Load
) -> None:
    encoder = load(model_of(kind).as_uri())
    long = reads(2000)["sequence"][0].as_py()
    vectors = encoder.encode(pa.table({"sequence": [long, long[:1900], long[: longest or 1000], long[:60]]}))
    np.testing.assert_allclose(vectors[1:3], vectors[[0, 0]], atol=1e-5)
    assert np.abs(vectors[3] - vectors[0]).max() > 1e-3


def test_both_strands_are_averaged_where_that_is_asked_for(model_of: ModelOf, load: Load) -> None:
    encoder = load(model_of("dnabert-2").as_uri() + "?average=reverse-complement")
    forward = reads(80, 200)
    backward = Sequences.from_arrow(forward["sequence"]).reverse_complement().to_arrow()
    np.testing.assert_allclose(
        encoder.encode(forward), encoder.encode(pa.table({"sequence": backward})), atol=1e-5
    )
    plain = load(model_of("dnabert-2").as_uri())
    assert np.abs(plain.encode(forward) - encoder.encode(forward)).max() > 1e-3
    assert plain.revision != encoder.revision


def test_a_revision_covers_weights_and_tokenizer_but_not_the_readme(
    model_of: ModelOf, tmp_path: Path
) -> None:
    def revision(name: str, change: Callable[[Path], object]) -> str:
        directory = shutil.copytree(model_of("esm"), tmp_path / name)
        change(directory)
        return hf.load(directory, uri="file:///x", options={"translate": "longest-orf"}).revision

    same = revision("same", lambda directory: (directory / "README.md").write_text("hello"))
    other = revision("other", lambda directory: (directory / "tokenizer_config.json").write_text("{}"))
    assert len({same, other, revision("copy", lambda directory: None)}) == 2
    assert len(same) == 64


@pytest.mark.parametrize(
    ("kind", "query", "message"),
    [
        ("esm", "", "is a model of proteins.* add \\?translate=longest-orf"),
        ("prot-bert", "", "is a model of proteins"),
        ("dnabert-2", TRANSLATE, "is a model of DNA.* leave out translate=longest-orf"),
        ("nucleotide-transformer", TRANSLATE, "is a model of DNA"),
        ("dnabert", "?translate=frame-1", "translate=frame-1 is unknown; known are translate=longest-orf"),
        ("dnabert", "?pooling=cls", "pooling=cls is unknown"),
    ],
)
def test_alphabets_and_options_that_do_not_fit_are_refused(
    kind: str, query: str, message: str, model_of: ModelOf, load: Load
) -> None:
    with pytest.raises(InvalidEncoder, match=message):
        load(model_of(kind).as_uri() + query)


def change_config(directory: Path, **changes: object) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize(
    ("kind", "damage", "message"),
    [
        ("dnabert", lambda model: change_config(model, num_hidden_layers=3), "are missing"),
        ("dnabert", lambda model: change_config(model, num_hidden_layers=1), "16 belong to something else"),
        ("dnabert", lambda model: change_config(model, hidden_size=12), "are no BertModel"),
        (
            "dnabert",
            lambda model: change_config(model, model_type="t5"),
            "of model_type 't5'; known are bert",
        ),
        ("dnabert", lambda model: (model / "model.safetensors").write_bytes(b"damaged"), "are no BertModel"),
        ("dnabert", lambda model: (model / "vocab.txt").unlink(), "neither vocab.txt nor tokenizer.json"),
        (
            "dnabert",
            lambda model: (model / "vocab.txt").write_text("[CLS]\nAC\nACG"),
            "neither single letters nor",
        ),
        (
            "dnabert-2",
            lambda model: change_config(model, num_hidden_layers=3),
            "(?s)Missing key.*if you trust it",
        ),
        ("dnabert-2", lambda model: (model / "pytorch_model.bin").unlink(), "neither model.safetensors nor"),
        (
            "dnabert-2",
            lambda model: torch.save(EvilWeights(), model / "pytorch_model.bin"),
            "more than tensors",
        ),
        ("dnabert-2", lambda model: (model / "tokenizer.json").write_text('{"model": {}}'), "cannot be read"),
    ],
)
def test_files_that_are_no_whole_model_are_refused(
    kind: str, damage: Callable[[Path], object], message: str, model_of: ModelOf, load: Load, tmp_path: Path
) -> None:
    directory = shutil.copytree(model_of(kind), tmp_path / "model")
    damage(directory)
    with pytest.raises(InvalidEncoder, match=message):
        load(directory.as_uri())


class EvilWeights:
    """Would end the process when unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        import os

        return os._exit, (7,)


REMOTE_CODE = """
from pathlib import Path
import torch
from transformers import PretrainedConfig, PreTrainedModel

class OwnConfig(PretrainedConfig):
    model_type = "own"

class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.table = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.post_init()

    def forward(self, input_ids):
        return (self.table(input_ids),)
"""


def test_a_models_own_code_runs_only_where_that_is_asked_for(
    model_of: ModelOf, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    directory = tmp_path / "model"
    directory.mkdir()
    shutil.copy(model_of("dnabert-2") / "tokenizer.json", directory)
    table = torch.randn(64, 24)
    torch.save({"table.weight": table}, directory / "pytorch_model.bin")
    (directory / "own_code.py").write_text(REMOTE_CODE)
    special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **special})
    )
    code = {"AutoConfig": "own_code.OwnConfig", "AutoModel": "own_code.OwnModel"}
    config = {"model_type": "own", "vocab_size": 64, "hidden_size": 24, "auto_map": code}
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidEncoder, match="if you trust it, add \\?trust_remote_code=true"):
        load(directory.as_uri())
    encoder = load(directory.as_uri() + "?trust_remote_code=true")
    tokens = json.loads((directory / "tokenizer.json").read_text())["model"]["vocab"]
    vector = encoder.encode(pa.table({"sequence": ["A", "ACGTA"]}))[0]
    np.testing.assert_allclose(vector, torch.nn.functional.normalize(table[tokens["A"]], dim=0), atol=1e-6)
