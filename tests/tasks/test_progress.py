import time

import pytest

from tasks.progress import Progress


def test_the_line_tells_this_run_from_an_earlier_one() -> None:
    progress = Progress()
    progress.embedded(20_000)
    progress.embedded(500)
    assert progress.line().startswith("20,500 reads embedded in 2 parts, ")
    progress.resumed()
    assert progress.line().startswith("20,500 reads embedded in 2 parts (and 1 of an earlier run), ")


def test_lines_come_also_while_nothing_arrives(capsys: pytest.CaptureFixture[str]) -> None:
    printed = ""
    deadline = time.monotonic() + 30
    with Progress(every_s=0.001):
        while printed.count("\n") < 2 and time.monotonic() < deadline:
            printed += capsys.readouterr().out
    assert printed.count("0 reads embedded in 0 parts, 0 reads/s") >= 2


def test_the_last_line_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(every_s=3600) as progress:
        progress.embedded(7)
    assert capsys.readouterr().out.startswith("7 reads embedded in 1 parts, ")
