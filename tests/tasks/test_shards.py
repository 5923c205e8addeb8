from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from hpc_jobs.store import shard_bytes
from tasks.batches import Batch, BatchRequest
from tasks.encoders.kmer import KmerMlp
from tasks.errors import InvalidEncoder, InvalidReads
from tasks.landing import LandingManifest
from tasks.object_store import ObjectStore
from tasks.reads.quality import QualityFilter
from tasks.shards import Commit, Part, commit_part, committed, parts_of, quality_filter, read_commit

Land = Callable[..., LandingManifest]
Fastq = Callable[..., bytes]


@pytest.fixture
def quality(request_of: Callable[..., BatchRequest]) -> QualityFilter:
    return quality_filter(request_of())


@pytest.fixture
def read_parts(store: ObjectStore, batch: Batch, quality: QualityFilter) -> Callable[..., list[Part]]:
    """Every part of every sample of a landed batch."""

    def parts(landing: LandingManifest) -> list[Part]:
        found = [
            part
            for sample in landing.samples
            for part in parts_of(store, batch.landing, sample, quality, skip=set())
        ]
        assert all(isinstance(part, Part) for part in found)
        return [part for part in found if isinstance(part, Part)]

    return parts


@pytest.fixture
def encoder() -> KmerMlp:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    return KmerMlp(dim=8, hidden=8)


def test_a_batch_may_mix_layouts_compressions_and_encodings(
    land: Land, fastq: Fastq, zipped: Callable[[bytes], bytes], read_parts: Callable[..., list[Part]]
) -> None:
    landing = land(
        {
            "single": [fastq(4, seed=1)],
            "pair": [zipped(fastq(3, seed=2)), zipped(fastq(3, seed=3))],
            "old": [fastq(4, seed=1, offset=64)],
        },
        encodings={"old": "phred+64"},
    )
    single, pair, old = read_parts(landing)
    assert [part.name for part in (single, pair, old)] == ["single-00000", "pair-00000", "old-00000"]
    assert single.reads["read_id"].to_pylist() == [f"single:{number}" for number in range(1, 5)]
    assert pair.reads["read_id"].to_pylist() == [
        *(f"pair:{number}/1" for number in (1, 2, 3)),
        *(f"pair:{number}/2" for number in (1, 2, 3)),
    ]
    assert pair.reads["name"].to_pylist() == ["read1", "read2", "read3"] * 2
    assert set(pair.reads["sample"].to_pylist()) == {"pair"}
    for column in ("sequence", "length", "mean_quality"):
        assert old.reads[column].equals(single.reads[column])
    assert [part.accounting.records for part in (single, pair, old)] == [4, 6, 4]


def test_a_part_is_a_block_of_records(
    land: Land, fastq: Fastq, read_parts: Callable[..., list[Part]], store: ObjectStore, batch: Batch
) -> None:
    text = fastq(20_003, length=24)
    landing = land({"a": [text, text]}, records=20_003)
    first, last = read_parts(landing)
    assert (first.name, last.name) == ("a-00000", "a-00001")
    assert (first.accounting.records, last.accounting.records) == (40_000, 6)
    assert last.reads["read_id"].to_pylist()[::3] == ["a:20001/1", "a:20001/2"]


def test_what_is_committed_is_not_made_again(
    land: Land, fastq: Fastq, store: ObjectStore, batch: Batch, quality: QualityFilter
) -> None:
    [sample] = land({"a": [fastq(20_001, length=24)]}).samples
    first, last = parts_of(store, batch.landing, sample, quality, skip={"a-00000"})
    assert first == "a-00000"
    assert isinstance(last, Part) and last.reads["read_id"].to_pylist() == ["a:20001"]


def test_where_every_record_went(land: Land, fastq: Fastq, read_parts: Callable[..., list[Part]]) -> None:
    bad = b"@broken\nACGT\n+\nIII\n"
    poor = b"@poor\n" + b"A" * 40 + b"\n+\n" + b"#" * 40 + b"\n"
    [part] = read_parts(land({"a": [fastq(2) + bad + poor + fastq(1)]}))
    part.accounting.check_closed()
    assert (part.accounting.records, part.accounting.kept, part.accounting.quarantined) == (5, 3, 1)
    assert part.accounting.rejected["too_short"] == 1
    assert part.reads["read_id"].to_pylist() == ["a:1", "a:2", "a:5"]
    [record] = part.quarantined
    assert (record.source, record.record_number, record.byte_offset) == ("a_1.fq", 3, len(fastq(2)))


@pytest.mark.parametrize(("first", "second"), [(3, 5), (5, 3), (20_000, 20_001), (0, 1)])
def test_mates_of_different_number_are_no_pair(
    first: int, second: int, land: Land, fastq: Fastq, read_parts: Callable[..., list[Part]]
) -> None:
    landing = land({"a": [fastq(first, length=24), fastq(second, length=24)]})
    with pytest.raises(
        InvalidReads, match=r"a_1\.fq and a_2\.fq are a pair, but do not hold the same number"
    ):
        read_parts(landing)


def test_a_truncated_file_is_named(
    land: Land, fastq: Fastq, zipped: Callable[[bytes], bytes], read_parts: Callable[..., list[Part]]
) -> None:
    landing = land({"a": [zipped(fastq(500))[:-900]]})
    with pytest.raises(InvalidReads, match=r"a_1\.fq\.gz: the gzip data is cut off; the last good record"):
        read_parts(landing)


def test_a_cut_between_gzip_members_is_seen_by_the_count(
    land: Land, fastq: Fastq, zipped: Callable[[bytes], bytes], read_parts: Callable[..., list[Part]]
) -> None:
    members = zipped(fastq(30)) + zipped(fastq(20))
    assert [part.accounting.records for part in read_parts(land({"a": [members]}, records=50))] == [50]
    landing = land({"a": [zipped(fastq(30))]}, records=50)
    with pytest.raises(InvalidReads, match=r"a_1\.fq\.gz holds 30 records, but 50 were landed: it was cut"):
        read_parts(landing)


def test_an_object_that_is_gone_is_named(
    land: Land, fastq: Fastq, read_parts: Callable[..., list[Part]], store: ObjectStore, batch: Batch
) -> None:
    landing = land({"a": [fastq(3)]})
    store.delete(batch.landing / "a_1.fq")
    with pytest.raises(InvalidReads, match=r"a_1\.fq is named in the landing manifest, but is not there"):
        read_parts(landing)


def test_an_empty_file_has_no_parts(land: Land, read_parts: Callable[..., list[Part]]) -> None:
    assert read_parts(land({"a": [b""]}, records=0)) == []


def test_a_commit_is_the_shard_the_reads_and_then_the_record(
    land: Land,
    fastq: Fastq,
    read_parts: Callable[..., list[Part]],
    store: ObjectStore,
    batch: Batch,
    encoder: KmerMlp,
) -> None:
    [part] = read_parts(land({"a": [fastq(7) + b"@broken\nA\n+\nII\n"]}))
    assert committed(store, batch) == set()
    commit = commit_part(store, batch, part, encoder)
    assert committed(store, batch) == {"a-00000"}
    assert read_commit(store, batch, "a-00000").to_json() == commit.to_json()
    assert commit.shard and commit.shard.rows == 7

    reads = pq.read_table(io.BytesIO(store.get_bytes(batch.results / "reads" / "a-00000.parquet")))
    assert reads.schema.equals(part.reads.schema) and reads.equals(part.reads.combine_chunks())
    shard = store.get_bytes(batch.results / "embeddings" / commit.shard.name)
    assert shard == shard_bytes(reads["read_id"].combine_chunks(), encoder.encode(reads))

    before = list(store.list(batch.results))
    assert commit_part(store, batch, part, encoder).to_json() == commit.to_json()
    assert list(store.list(batch.results)) == before


def test_a_part_without_kept_reads_is_committed_too(
    land: Land,
    read_parts: Callable[..., list[Part]],
    store: ObjectStore,
    batch: Batch,
    encoder: KmerMlp,
) -> None:
    [part] = read_parts(land({"a": [b"@short\nACGT\n+\nIIII\n"]}))
    commit = commit_part(store, batch, part, encoder)
    assert (commit.shard, commit.reads, commit.accounting.kept) == (None, None, 0)
    assert [info.uri.name for info in store.list(batch.results)] == ["a-00000.json"]


def test_what_an_interrupted_run_wrote_stays(
    land: Land,
    fastq: Fastq,
    read_parts: Callable[..., list[Part]],
    store: ObjectStore,
    batch: Batch,
    encoder: KmerMlp,
) -> None:
    """Another machine may compute another last bit: the record describes the object that stands."""
    [part] = read_parts(land({"a": [fastq(3)]}))
    other = np.roll(encoder.encode(part.reads), 1, axis=1)
    stands = shard_bytes(part.reads["read_id"].combine_chunks(), other)
    uri = batch.results / "embeddings" / "a-00000.parquet"
    store.put_bytes(uri, stands)
    commit = commit_part(store, batch, part, encoder)
    assert store.get_bytes(uri) == stands
    assert commit.shard and commit.shard.bytes == len(stands)


def test_the_record_that_stands_is_the_one_that_counts(
    land: Land,
    fastq: Fastq,
    read_parts: Callable[..., list[Part]],
    store: ObjectStore,
    batch: Batch,
    encoder: KmerMlp,
) -> None:
    [part] = read_parts(land({"a": [fastq(3)]}))
    stands = commit_part(store, batch, part, encoder)
    [other] = read_parts(land({"a": [fastq(4)]}))
    assert commit_part(store, batch, other, encoder).to_json() == stands.to_json()
    assert read_commit(store, batch, "a-00000").to_json() == stands.to_json()


def test_two_runs_at_once_commit_once(
    land: Land,
    fastq: Fastq,
    read_parts: Callable[..., list[Part]],
    store: ObjectStore,
    batch: Batch,
    encoder: KmerMlp,
) -> None:
    """Both end with the record that stands, also where their vectors differ."""
    [part] = read_parts(land({"a": [fastq(50)]}))
    torch.manual_seed(2)
    encoders = [encoder, KmerMlp(dim=8, hidden=8)]
    together = threading.Barrier(2)
    commits: list[Commit] = []

    def run(own: KmerMlp) -> None:
        together.wait(timeout=60)
        commits.append(commit_part(ObjectStore(), batch, part, own))

    runs = [threading.Thread(target=run, args=(own,)) for own in encoders]
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join()
    stands = read_commit(store, batch, "a-00000")
    assert [commit.to_json() for commit in commits] == [stands.to_json()] * 2
    reads = part.reads["read_id"].combine_chunks()
    bodies = [shard_bytes(reads, own.encode(part.reads)) for own in encoders]
    assert store.get_bytes(batch.results / "embeddings" / "a-00000.parquet") in bodies


def test_vectors_that_are_no_unit_vectors_are_refused(
    land: Land,
    fastq: Fastq,
    read_parts: Callable[..., list[Part]],
    store: ObjectStore,
    batch: Batch,
    encoder: KmerMlp,
) -> None:
    [part] = read_parts(land({"a": [fastq(3)]}))
    with torch.no_grad():
        encoder.layers[2].bias[0] = float("nan")
    with pytest.raises(
        InvalidEncoder, match=r"not of length 1: 3 of the 3 of a-00000, the first for its row 0"
    ):
        commit_part(store, batch, part, encoder)
    assert list(store.list(batch.results)) == []


def test_reads_and_vectors_do_not_depend_on_the_other_parts(
    land: Land, fastq: Fastq, read_parts: Callable[..., list[Part]], encoder: KmerMlp
) -> None:
    landing = land({"a": [fastq(20_002, length=24)], "b": [fastq(5, seed=2)]})
    parts = {part.name: part for part in read_parts(landing)}
    alone = replace(landing, samples=landing.samples[1:])
    [again] = read_parts(alone)
    assert again.reads.equals(parts["b-00000"].reads)
    assert np.array_equal(encoder.encode(again.reads), encoder.encode(parts["b-00000"].reads))
