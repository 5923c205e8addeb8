from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tasks.batches import Batch, BatchRequest
from tasks.errors import InvalidReads, StorageError
from tasks.landing import LandedSample, LandingManifest
from tasks.object_store import ObjectStore
from tasks.parts import READS_SCHEMA, Part, SkippedPart, parts_of

Land = Callable[..., LandingManifest]
Fastq = Callable[..., bytes]


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
    land: Land, fastq: Fastq, store: ObjectStore, batch: Batch, request_of: Callable[..., BatchRequest]
) -> None:
    [sample] = land({"a": [fastq(20_001, length=24)]}).samples
    first, last = parts_of(store, batch, request_of(), sample, skip={"a-00000"})
    assert first == SkippedPart("a-00000", records=20_000)
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
    with pytest.raises(InvalidReads, match=r"a_[12]\.fq"):
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


def test_a_file_that_was_changed_after_it_was_landed_is_noticed(
    land: Land, fastq: Fastq, read_parts: Callable[..., list[Part]], store: ObjectStore, batch: Batch
) -> None:
    landing = land({"a": [fastq(3)]})
    store.put_bytes(batch.landing / "a_1.fq", fastq(3, seed=2))
    with pytest.raises(StorageError, match=r"a_1\.fq"):
        read_parts(landing)


def test_every_vector_knows_its_read_offset_and_mate(
    land: Land, fastq: Fastq, read_parts: Callable[..., list[Part]], request_of: Callable[..., BatchRequest]
) -> None:
    """Reads of 40 bases in windows of 30 that share 10: two each. Accounting counts reads all the same."""
    request = request_of(window_bases=30, window_overlap_bases=10)
    landing = land({"pair": [fastq(2), fastq(2, length=30, seed=2)]})
    [part] = read_parts(landing, request)
    assert part.reads.schema.equals(READS_SCHEMA)
    rows = part.reads.select(["read_id", "record", "mate", "offset", "length"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("pair:1/1@0", 1, 1, 0, 30),
        ("pair:1/1@10", 1, 1, 10, 30),
        ("pair:2/1@0", 2, 1, 0, 30),
        ("pair:2/1@10", 2, 1, 10, 30),
        ("pair:1/2", 1, 2, 0, 30),
        ("pair:2/2", 2, 2, 0, 30),
    ]
    [whole] = read_parts(landing)
    first, second = part.reads["sequence"].to_pylist()[:2]
    assert whole.reads["sequence"].to_pylist()[0] == first + second[-10:]
    assert set(whole.reads["mate"].to_pylist()) == {1, 2}
    part.accounting.check_closed()
    assert (part.accounting.kept, part.reads.num_rows) == (4, 6)


def test_mates_in_one_file_are_a_pair(
    land: Land, fastq: Fastq, store: ObjectStore, batch: Batch, request_of: Callable[..., BatchRequest]
) -> None:
    text = b"".join(b"@r%d/%d\n%s\n+\n%s\n" % (n, m, b"ACGT" * 10, b"I" * 40) for n in (1, 2) for m in (1, 2))
    [single] = land({"a": [text]}, records=4).samples
    sample = LandedSample("a", "interleaved", "phred+33", single.files)
    [part] = parts_of(store, batch, request_of(), sample, skip=set())
    assert isinstance(part, Part)
    assert part.reads["read_id"].to_pylist() == ["a:1/1", "a:2/1", "a:1/2", "a:2/2"]
    assert part.accounting.records == 4


def test_duplicates_are_known_across_parts_also_after_a_restart(
    land: Land, fastq: Fastq, store: ObjectStore, batch: Batch, request_of: Callable[..., BatchRequest]
) -> None:
    text = fastq(20_000, length=24)
    [sample] = land({"a": [text + text[: text.index(b"@read11")]]}).samples
    request = request_of(remove_duplicates=True)
    for skip in (set(), {"a-00000"}):
        *_, last = parts_of(store, batch, request, sample, skip=skip)
        assert isinstance(last, Part)
        assert last.accounting.rejected["duplicate"] == last.accounting.records == 10


def test_names_that_are_no_text_and_names_that_are(land: Land, read_parts: Callable[..., list[Part]]) -> None:
    record = b"@%s\n" + b"ACGT" * 10 + b"\n+\n" + b"I" * 40 + b"\n"
    [part] = read_parts(land({"a": [record % "café".encode() + record % b"caf\xe9"]}))
    assert part.reads["name"].to_pylist() == ["café", "caf\\xe9"]


def test_reads_do_not_depend_on_the_other_samples(
    land: Land, fastq: Fastq, read_parts: Callable[..., list[Part]]
) -> None:
    landing = land({"a": [fastq(20_002, length=24)], "b": [fastq(5, seed=2)]})
    parts = {part.name: part for part in read_parts(landing)}
    [again] = read_parts(replace(landing, samples=landing.samples[1:]))
    assert again.reads.equals(parts["b-00000"].reads)
