from __future__ import annotations

import random

import pytest

from strandloop.slurm_log import LONGEST_LINE, LogTail, printable


@pytest.mark.parametrize("seed", range(5))
def test_every_line_comes_once_however_the_log_is_cut(seed: int) -> None:
    rng = random.Random(seed)
    log = b"".join(b"line %d %s\n" % (n, b"x" * rng.randrange(40)) for n in range(200)) + b"no line end"
    tail, seen, written = LogTail(), [], 0
    while written < len(log):
        written = min(len(log), written + rng.randrange(200))
        seen += tail.feed(log[tail.offset : written])
    seen += tail.feed(log[tail.offset :]) + tail.finish()
    assert seen == log.decode().split("\n")
    assert tail.offset == len(log)


def test_another_reader_goes_on_at_the_offset() -> None:
    log = b"one\ntwo\nthr"
    first = LogTail()
    assert first.feed(log) == ["one", "two"]
    assert LogTail(first.offset).feed(log[first.offset :] + b"ee\n") == ["three"]


def test_a_line_without_end_is_cut_so_that_memory_stays_bounded() -> None:
    lines = LogTail().feed(b"A" * (3 * LONGEST_LINE + 5))
    assert [len(line) for line in lines] == [LONGEST_LINE] * 3


def test_bytes_that_are_no_text_do_no_harm() -> None:
    assert printable(b"\x1b[31mred\x1b[0m \xff\x00\r\n") == "[31mred[0m \ufffd"
    assert printable(b" 10%\r 50%\r100%\n") == "100%"


@pytest.mark.parametrize("before", range(4))
def test_a_line_that_is_cut_is_cut_between_characters(before: int) -> None:
    text = "x" * before + "\N{DNA DOUBLE HELIX}" * 5000
    tail = LogTail()
    seen = tail.feed(text.encode()) + tail.finish()
    assert "".join(seen) == text and tail.offset == len(text.encode())


def test_a_cut_makes_progress_in_bytes_that_are_no_text() -> None:
    assert len(LogTail().feed(b"\x80" * (LONGEST_LINE + 1))) == 1
