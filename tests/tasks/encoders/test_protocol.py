import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tasks.encoders.kmer import KmerMlp
from tasks.encoders.protocol import Encoder, EncoderUri, load_encoder
from tasks.encoders.registry import Registry
from tasks.encoders.sequences import Sequences
from tasks.errors import InvalidEncoder
from tasks.object_store import ObjectStore, ObjectUri

READS = pa.table({"sequence": ["ACGTTGCAACGT" * 5, "GGGCCATTTACA" * 5]})


@pytest.fixture
def encoders(s3_root: str) -> ObjectUri:
    return ObjectUri.parse(s3_root) / "encoders"


def load(uri: str, encoders: ObjectUri) -> Encoder:
    return load_encoder(uri, encoders=encoders, store=ObjectStore())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    KmerMlp.untrained(Sequences.from_arrow(READS["sequence"]), seed=1).save(tmp_path)
    return tmp_path


def test_registered_current_and_file_are_one_encoder(encoders: ObjectUri, saved: Path) -> None:
    registry = Registry(ObjectStore(), encoders)
    version = registry.register("kmer-mlp", saved, {}, parent=None)
    registry.promote("kmer-mlp", version, expected=None)
    current, pinned, file = (
        load(uri, encoders)
        for uri in ("registry://kmer-mlp", f"registry://kmer-mlp@{version}", saved.as_uri())
    )
    assert current.uri == pinned.uri == f"registry://kmer-mlp@{version}"
    assert file.uri == saved.as_uri()
    weights = hashlib.sha256((saved / "model.safetensors").read_bytes()).hexdigest()
    assert current.revision == pinned.revision == file.revision == weights
    assert current.dim == 128
    np.testing.assert_array_equal(current.encode(READS), file.encode(READS))


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "kmer-mlp",
        "registry://",
        "registry://A B",
        "registry://kmer-mlp@latest",
        "file://relative",
        "hf://x/y",
    ],
)
def test_what_is_no_address_is_refused(uri: str) -> None:
    with pytest.raises(InvalidEncoder, match="is not the address of an encoder; write registry://NAME"):
        EncoderUri.parse(uri)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("registry://kmer-mlp", "has no promoted version"),
        ("registry://kmer-mlp@v1-00000000", "there is no encoder registry://kmer-mlp@v1-00000000"),
        ("file:///nowhere", "config.json is missing"),
    ],
)
def test_what_is_not_there_is_named(uri: str, message: str, encoders: ObjectUri) -> None:
    with pytest.raises(InvalidEncoder, match=message):
        load(uri, encoders)


def test_an_unknown_model_type_is_refused(encoders: ObjectUri, saved: Path) -> None:
    (saved / "config.json").write_text(json.dumps({"model_type": "esm"}))
    with pytest.raises(InvalidEncoder, match="is of model_type 'esm', but only bert, strandloop-kmer-mlp"):
        load(saved.as_uri(), encoders)


def test_weights_of_another_shape_are_refused(encoders: ObjectUri, saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"hidden": 7}))
    with pytest.raises(InvalidEncoder, match="are no strandloop-kmer-mlp encoder"):
        load(saved.as_uri(), encoders)


def test_damaged_weights_are_refused(encoders: ObjectUri, saved: Path) -> None:
    (saved / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(InvalidEncoder, match="are no strandloop-kmer-mlp encoder"):
        load(saved.as_uri(), encoders)
