"""A look through a sample's files before they are landed."""

from __future__ import annotations

import io

import pytest

from tasks.errors import InvalidReads
from tasks.reads.inspection import QualityRange, SampleInspection, inspect_sample

RECORD = b"@%s\nACGT\n+\n%s\n"


def look(*files: bytes) -> SampleInspection:
    named = [(f"file{n}.fq", io.BytesIO(text)) for n, text in enumerate(files, 1)]
    return inspect_sample(named, layout="paired" if len(files) == 2 else "single")


@pytest.mark.parametrize(
    ("lowest", "highest", "encoding"),
    [
        ("!", "~", "phred+33"),
        ("#", "J", "phred+33"),
        (":", "J", "phred+33"),
        ("B", "h", "phred+64"),
        ("@", "K", "phred+64"),
        ("B", "J", "phred+33"),
        (";", "h", "phred+33"),
    ],
)
def test_the_encoding_shows_in_lowest_and_highest_character(lowest: str, highest: str, encoding: str) -> None:
    assert QualityRange(ord(lowest), ord(highest)).encoding == encoding


def test_the_encoding_is_that_of_all_files_of_the_sample() -> None:
    high, low = RECORD % (b"r1", b"hhhB"), RECORD % (b"r1", b"hh#B")
    assert look(high, high).quality_encoding == "phred+64"
    assert look(high, low).quality_encoding == "phred+33"
    assert look(low, high).quality_encoding == "phred+33"


def test_records_and_quarantine_are_counted() -> None:
    bad = b"@r2\nACGT\n+\nIII\n"
    (file,) = look(RECORD % (b"r1", b"II#I") + bad * 7 + RECORD % (b"r9", b"IIII")).files
    assert (file.records, file.quarantined) == (9, 7)
    assert [record.record_number for record in file.first_quarantined] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b"r7/1", b"r7/2"),
        (b"r7 1:N:0", b"r7 2:N:0"),
        (b"SRR1.7.1 x", b"SRR1.7.2 x"),
        (b"r7", b"r7"),
        (b"r7_1", b"r7_2"),
    ],
)
def test_mates_are_known_by_their_names(first: bytes, second: bytes) -> None:
    assert len(look(RECORD % (first, b"IIII"), RECORD % (second, b"IIII")).files) == 2


@pytest.mark.parametrize(
    ("first", "second"), [(b"r1", b"r2"), (b"r7/1", b"r8/2"), (b"r7/2", b"r7/1"), (b"a/1", b"a/3")]
)
def test_files_that_are_no_pair_are_refused(first: bytes, second: bytes) -> None:
    same = RECORD % (b"same", b"IIII")
    with pytest.raises(
        InvalidReads, match=r"file1.fq and file2.fq are not the two files of one pair: record 2"
    ):
        look(same + RECORD % (first, b"IIII"), same + RECORD % (second, b"IIII"))


def test_mates_of_a_bad_record_are_passed_over() -> None:
    one, other, bad = RECORD % (b"a", b"IIII"), RECORD % (b"b", b"IIII"), RECORD % (b"x", b"III")
    assert [file.quarantined for file in look(one + bad + other, one * 2 + other).files] == [1, 0]


def test_mates_must_be_as_many() -> None:
    record = RECORD % (b"a", b"IIII")
    why = r"as many records each, but file1.fq ends after record 2 and file2.fq goes on"
    with pytest.raises(InvalidReads, match=why):
        look(record * 2, record * 3)


def test_what_is_nothing_but_bad_records_is_refused() -> None:
    with pytest.raises(
        InvalidReads, match=r"file1.fq has no record that can be read: record 1: the header line"
    ):
        look(b"<html>\n")


def test_a_file_without_records_is_taken() -> None:
    (file,) = look(b"").files
    assert (file.records, file.quarantined) == (0, 0)
