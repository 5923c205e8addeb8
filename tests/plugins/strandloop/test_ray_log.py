from __future__ import annotations

import random

import pytest

from strandloop.ray_log import HELD_BYTES, WINDOW_BYTES, LogTail, log_path


def read(tail: LogTail, log: bytes, *, piece: int = 7, finish: bool = False) -> list[str]:
    """Read the log from its start, as each look does."""
    tail.begin()
    shown = [line for start in range(0, len(log), piece) for line in tail.take(log[start : start + piece])]
    return [*shown, *(tail.finish() if finish else [])]


def test_a_log_is_shown_once_and_by_complete_lines() -> None:
    tail = LogTail()
    assert read(tail, b"one\ntw") == ["one"]
    assert read(tail, b"one\ntw") == []
    assert read(tail, b"one\ntwo\n\nthree") == ["two", ""]
    assert read(tail, b"one\ntwo\n\nthree", finish=True) == ["three"]
    assert read(tail, b"one\ntwo\n\nthree", finish=True) == []
    assert tail.last_lines == ("one", "two", "", "three")


@pytest.mark.parametrize("piece", [1, 2, 3, 1_000])
def test_pieces_of_any_size_give_the_same_lines(piece: int) -> None:
    log = "é\n\r\nzwölf\n\n".encode() + b"bad \xff byte\nend"
    assert read(LogTail(), log, piece=piece, finish=True) == ["é", "", "zwölf", "", "bad � byte", "end"]


def test_one_who_goes_on_somewhere_shows_what_is_behind_it() -> None:
    generator = random.Random(7)
    lines = ["x" * generator.randrange(40) for _ in range(200)]
    log = "".join(f"{line}\n" for line in lines).encode()
    for _ in range(20):
        first = LogTail()
        shown = read(first, log[: generator.randrange(len(log))])
        assert shown + read(LogTail(first.offset), log, finish=True) == lines


def test_a_log_that_is_shorter_than_before_shows_nothing_twice() -> None:
    tail = LogTail()
    read(tail, b"one\ntwo\n")
    assert read(tail, b"one\n", finish=True) == []
    assert read(tail, b"one\ntwo\nthree\n") == ["three"]


def test_the_last_lines_are_the_last_thirty_whoever_showed_them() -> None:
    log = "".join(f"{n}\n" for n in range(100)).encode()
    tail = LogTail(len(log))
    assert read(tail, log, finish=True) == []
    assert tail.last_lines == tuple(str(n) for n in range(70, 100))


def test_progress_bars_long_lines_and_binary_bytes_do_no_harm() -> None:
    log = b"10%\r50%\r100%\r\n" + b"x" * 9_000 + b"\na\x00b\x1b[31mred\tend\n"
    shown = read(LogTail(), log)
    assert shown[0] == "100%"
    assert shown[1] == "x" * 4_000 + " … (9,000 bytes)"
    assert shown[2] == "a\N{REPLACEMENT CHARACTER}b\x1b[31mred\tend"


def test_a_line_without_end_is_not_held_in_memory() -> None:
    tail = LogTail()
    assert read(tail, b"x" * 1_000_000, piece=10_000) == []
    assert len(tail._held) <= HELD_BYTES
    assert len(tail._window) <= WINDOW_BYTES
    assert tail.offset == 0
    assert read(tail, b"x" * 1_000_000 + b"\n", piece=10_000) == ["x" * 4_000 + " … (1,000,000 bytes)"]
    bar = b"".join(b"\r%d of 100000" % n for n in range(100_001))
    assert read(LogTail(), bar, piece=1_000, finish=True) == ["100000 of 100000"]


def test_progress_has_its_own_line_and_what_only_looks_like_it_is_shown() -> None:
    clock = iter(range(0, 1_000, 30))
    tail = LogTail(clock=lambda: float(next(clock)))
    log = b"".join(b'@progress {"percent": %d}\n' % n for n in range(4)) + b"@progress soon\n"
    assert read(tail, log) == ["progress: 0.0 % done", "progress: 2.0 % done", "@progress soon"]


def test_the_whole_log_is_asked_for() -> None:
    assert log_path("id-1", node_id="ab12") == (
        "/api/v0/logs/file?node_id=ab12&filename=job-driver-id-1.log&lines=-1&timeout=600"
    )
