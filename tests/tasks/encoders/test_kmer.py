import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from threadpoolctl import threadpool_limits

from tasks.encoders.kmer import KmerMlp
from tasks.encoders.kmer_on_cpu import KmerMlpOnCpu
from tasks.encoders.sequences import Sequences
from tasks.errors import InvalidEncoder

LOADS_WITHOUT_TORCH = """
import sys
from tasks.encoders import architectures
from tasks.encoders.protocol import load_encoder
from tasks.object_store import ObjectStore, ObjectUri
architectures.gpu_in_reach = lambda: False
encoder = load_encoder(sys.argv[1], encoders=ObjectUri.parse("s3://none/encoders"), store=ObjectStore())
print("torch" in sys.modules)
print(type(encoder).__name__)
"""
PAIRS = {"A": "T", "C": "G", "G": "C", "T": "A"}


def reverse_complement(read: str) -> str:
    return "".join(PAIRS.get(base, base) for base in reversed(read))


def sequences(*reads: str) -> Sequences:
    return Sequences.from_arrow(pa.array(reads))


def random_read(length: int, alphabet: str = "ACGT", seed: int = 0) -> str:
    return "".join(np.random.default_rng(seed).choice(list(alphabet), length))


def test_both_strands_have_one_vector() -> None:
    read = random_read(120, "ACGTN")
    model = KmerMlp.untrained(sequences(random_read(90, seed=1), random_read(90, seed=2)), seed=1)
    there, back = model.encode_sequences(sequences(read, reverse_complement(read)))
    np.testing.assert_allclose(there, back, atol=1e-6)


def test_every_read_gets_a_unit_vector() -> None:
    reads = pa.table({"sequence": ["", "A", "NNNN", random_read(150)], "read_id": ["1", "2", "3", "4"]})
    vectors = KmerMlp.untrained(sequences(random_read(500)), seed=1).encode(reads)
    assert vectors.shape == (4, 128)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_neither_batch_size_nor_order_changes_a_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = sequences(*(random_read(40 + seed, seed=seed) for seed in range(70)))
    model = KmerMlp.untrained(reads, seed=1)
    whole = model.encode_sequences(reads)
    order = np.random.default_rng(0).permutation(70)
    for batch_reads in (1, 3, 64):
        monkeypatch.setattr("tasks.encoders.kmer_on_cpu.BATCH_READS", batch_reads)
        np.testing.assert_allclose(model.encode_sequences(reads.take(order)), whole[order], atol=1e-6)


def test_encoding_is_what_is_trained() -> None:
    reads = sequences(*(random_read(150, seed=seed) for seed in range(9)))
    model = KmerMlp.untrained(reads, seed=1)
    trained = model(model.prepare(reads)).detach().numpy()
    np.testing.assert_allclose(model.encode_sequences(reads), trained, atol=2e-6)


def test_no_reads_no_vectors() -> None:
    assert KmerMlp().encode(pa.table({"sequence": pa.array([], pa.string())})).shape == (0, 128)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    reads = sequences(random_read(100), random_read(80, seed=1))
    model = KmerMlp.untrained(reads, seed=3)
    model.save(tmp_path)
    np.testing.assert_array_equal(
        KmerMlp.load(tmp_path).encode_sequences(reads), model.encode_sequences(reads)
    )


def test_no_worker_without_a_gpu_loads_torch(tmp_path: Path) -> None:
    KmerMlp(dim=8).save(tmp_path)
    told = subprocess.run(
        [sys.executable, "-c", LOADS_WITHOUT_TORCH, tmp_path.as_uri()],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert told.splitlines() == ["False", KmerMlpOnCpu.__name__]


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    KmerMlp(dim=8).save(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"dim": 8', '"dim": 9'))
    for network in (KmerMlp, KmerMlpOnCpu):
        with pytest.raises(InvalidEncoder, match="no strandloop-kmer-mlp encoder"):
            network.load(tmp_path)


def test_no_vector_depends_on_the_number_of_threads() -> None:
    reads = sequences(*(random_read(60, seed=seed) for seed in range(300)))
    model = KmerMlp.untrained(reads, seed=1)
    found = []
    for threads in (1, 2, 3):
        with threadpool_limits(threads, user_api="blas"):
            found.append(model.encode_sequences(reads))
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()


def test_the_seed_decides_the_weights() -> None:
    first, again, other = (KmerMlp.untrained(sequences(random_read(99)), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.layers[0].weight, again.layers[0].weight)
    assert not torch.equal(first.layers[0].weight, other.layers[0].weight)
