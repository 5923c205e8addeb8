import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from threadpoolctl import threadpool_limits

from tasks.encoders.kmer import KmerMlp
from tasks.encoders.protocol import Encoder, EncoderUri, load_encoder
from tasks.encoders.registry import Registry
from tasks.encoders.sequences import Sequences
from tasks.encoders.transformer import BpeTransformer
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


@pytest.mark.parametrize("uri", ["kmer-mlp", "kmer://4+5", "sketch://64"])
def test_several_threads_may_encode_at_once(uri: str, encoders: ObjectUri, saved: Path) -> None:
    encoder = load(saved.as_uri() if uri == "kmer-mlp" else uri, encoders)
    random = np.random.default_rng(2)
    blocks = [
        pa.table({"sequence": ["".join(random.choice(list("ACGT"), 70)) for _ in range(rows)]})
        for rows in range(100, 140)
    ]
    with threadpool_limits(limits=1):  # as a worker has it
        alone = [encoder.encode(block) for block in blocks]
        with ThreadPoolExecutor(4) as pool:
            for expected, found in zip(alone, pool.map(encoder.encode, blocks), strict=True):
                np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "uri",
    [
        "registry://kmer-mlp",
        "registry://kmer-mlp@v1-1a2b3c4d?average=reverse-complement",
        "file:///models/with%20space?translate=longest-orf",
        "hf://zhihan1996/DNABERT-2-117M@7bce263b15377fc15361f52cfab88f8b586abda0?average=reverse-complement&x=%26",
        "kmer://4+5",
        "sketch://256?k=15",
    ],
)
def test_an_address_is_written_as_it_was_read(uri: str) -> None:
    assert str(EncoderUri.parse(uri)) == uri


@pytest.mark.parametrize(
    ("uri", "advice"),
    [
        ("", "write registry://NAME"),
        ("kmer-mlp", "write registry://NAME"),
        ("s3://bucket/encoder", "write registry://NAME"),
        ("registry://", "write registry://NAME"),
        ("registry://A B", "write registry://NAME"),
        ("registry://kmer-mlp@latest", "write registry://NAME"),
        ("registry://kmer-mlp?average=a&average=b", "write registry://NAME"),
        ("file://relative", "an absolute path"),
        ("hf://org/model", "where REVISION is the commit's 40 hexadecimal digits"),
        ("hf://org/model@main", "not a branch or a tag: those move"),
        ("kmer://", "kmer://4\\+5"),
        ("sketch://wide", "sketch://256"),
    ],
)
def test_what_is_no_address_is_refused(uri: str, advice: str) -> None:
    with pytest.raises(InvalidEncoder, match=f"is not the address of an encoder; .*{advice}"):
        EncoderUri.parse(uri)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("registry://kmer-mlp", "has no promoted version"),
        ("registry://kmer-mlp@v1-00000000", "there is no encoder registry://kmer-mlp@v1-00000000"),
        ("file:///nowhere", "config.json is missing"),
        ("kmer://5+4", "the smaller first"),
        ("kmer://4+7", "from 1 to 6"),
        ("kmer://4?k=4", "nothing else"),
        ("sketch://4", "8 to 16384 columns"),
        ("sketch://256?k=99", "4 to 31 bases"),
        ("sketch://256?seed=1", "nothing else can be chosen"),
        ("sketch://256?average=reverse-complement", "gives both strands of a read the same vector already"),
    ],
)
def test_what_is_not_there_is_named(uri: str, message: str, encoders: ObjectUri) -> None:
    with pytest.raises(InvalidEncoder, match=message):
        load(uri, encoders)


@pytest.mark.parametrize(
    ("uri", "dim"), [("kmer://2", 10), ("kmer://4+5", 648), ("sketch://64", 64), ("sketch://64?k=9", 64)]
)
def test_untrained_encoders_need_no_files(uri: str, dim: int, encoders: ObjectUri) -> None:
    encoder = load(uri, encoders)
    assert (encoder.uri, encoder.dim) == (uri, dim)
    assert encoder.encode(READS).shape == (2, dim)


def test_what_decides_the_vectors_is_in_the_revision(encoders: ObjectUri) -> None:
    uris = ["kmer://4", "kmer://4+5", "sketch://64", "sketch://64?k=9", "sketch://65"]
    assert len({load(uri, encoders).revision for uri in uris}) == len(uris)
    assert load("sketch://64", encoders).revision == load("sketch://64?k=11", encoders).revision


def test_an_option_that_an_encoder_does_not_have_is_refused(encoders: ObjectUri, saved: Path) -> None:
    with pytest.raises(InvalidEncoder, match="the only option of kmer-mlp is average=reverse-complement"):
        load(f"{saved.as_uri()}?pooling=max", encoders)


def test_weights_of_another_shape_are_refused(encoders: ObjectUri, saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"hidden": 7}))
    with pytest.raises(InvalidEncoder, match="are no strandloop-kmer-mlp encoder"):
        load(saved.as_uri(), encoders)


def test_damaged_weights_are_refused(encoders: ObjectUri, saved: Path) -> None:
    (saved / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(InvalidEncoder, match="are no strandloop-kmer-mlp encoder"):
        load(saved.as_uri(), encoders)


def test_a_registered_transformer_may_average_strands(encoders: ObjectUri, tmp_path: Path) -> None:
    BpeTransformer.untrained(Sequences.from_arrow(READS["sequence"]), seed=1).save(tmp_path)
    version = Registry(ObjectStore(), encoders).register("dna-transformer-bpe", tmp_path, {}, parent=None)
    plain = load(f"registry://dna-transformer-bpe@{version}", encoders)
    average = load(f"registry://dna-transformer-bpe@{version}?average=reverse-complement", encoders)
    assert (plain.strand_symmetric, average.strand_symmetric) == (False, True)
    assert average.uri == f"{plain.uri}?average=reverse-complement"
    assert not np.allclose(plain.encode(READS), average.encode(READS), atol=1e-3)


def test_a_version_is_downloaded_once(encoders: ObjectUri, saved: Path) -> None:
    store = ObjectStore()
    version = Registry(store, encoders).register("kmer-mlp", saved, {}, parent=None)
    uri = f"registry://kmer-mlp@{version}"
    first = load(uri, encoders)
    store.delete(encoders / "kmer-mlp" / version / "model.safetensors")
    np.testing.assert_array_equal(load(uri, encoders).encode(READS), first.encode(READS))
