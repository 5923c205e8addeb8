"""``python -m tasks.reads check``: the accounting of files before they are landed."""

from __future__ import annotations

import ast
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.reads.__main__ import _QUALITY, main
from tasks.reads.check import check_files
from tasks.reads.quality import QualityFilter

ROOT = Path(__file__).parents[3]
QUALITY = QualityFilter(trim_quality=20, min_length=5, min_mean_quality=20, max_n_fraction=0.1)
GOOD, SHORT, BAD = b"@r%d\nACGTACGT\n+\nIIIIIIII\n", b"@r%d\nAC\n+\nII\n", b"@r%d\nACGT\n+\nIII\n"


def check(*paths: Path, layout: str = "single", **options: Any) -> dict[str, Any]:
    found = check_files(paths, layout=layout, quality=QUALITY, **options)
    answer = found.to_json()
    assert answer["records"] == answer["kept"] + sum(answer["rejected"].values()) + len(answer["quarantined"])
    assert found.is_clean == (not answer["quarantined"] and not answer["errors"])
    return answer


def test_every_record_is_accounted_for(tmp_path: Path) -> None:
    path = tmp_path / "reads.fq"
    path.write_bytes(GOOD % 1 + SHORT % 2 + BAD % 3 + GOOD % 4)
    found = check(path)
    assert (found["records"], found["kept"], found["rejected"]["too_short"]) == (4, 2, 1)
    (bad,) = found["quarantined"]
    assert (bad["source"], bad["record_number"], bad["byte_offset"]) == (
        str(path),
        3,
        len(GOOD % 1 + SHORT % 2),
    )
    assert "different lengths" in bad["reason"]
    assert found["errors"] == []


def test_an_error_comes_with_the_accounting_up_to_it(tmp_path: Path) -> None:
    path, other = tmp_path / "r1.fq.gz", tmp_path / "r2.fq"
    text = b"".join(GOOD % n for n in range(3000))
    body = gzip.compress(text)
    path.write_bytes(body[:-9])
    found = check(path)
    assert (found["records"], found["kept"]) == (3000, 3000)
    assert "the gzip data is cut off; the last good record before it is number 3000" in found["errors"][0]
    other.write_bytes(text[: len(GOOD % 1) * 7])
    path.write_bytes(body)
    found = check(path, other, layout="paired")
    assert (found["records"], found["kept"]) == (14, 14)
    assert f"{other} ends after record 7" in found["errors"][0]


def test_duplicates_and_interleaved_pairs(tmp_path: Path) -> None:
    path = tmp_path / "pairs.fq"
    path.write_bytes(b"".join(GOOD % (n // 2) for n in range(6)))
    found = check(path, layout="interleaved", remove_duplicates=True)
    assert (found["records"], found["kept"], found["rejected"]["duplicate"]) == (6, 2, 4)


def test_the_quality_encoding_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "old.fq"
    path.write_bytes(b"@r1\nACGTACGT\n+\nhhhhhBBB\n" + b"@r2\nACGTACGT\n+\nhhhhhhhh\n")
    found = check(path)
    assert (found["quality_encoding"], found["kept"]) == ("phred+64", 2)
    assert check(path, quality_encoding="phred+33")["quality_encoding"] == "phred+33"


@pytest.mark.parametrize(
    ("body", "errors"), [(None, "No such file"), (b"", ""), (b"BZh9", "bzip2"), (b"\x1f\x8b", "cut off")]
)
def test_what_cannot_be_read_is_an_error_in_the_answer(
    tmp_path: Path, body: bytes | None, errors: str
) -> None:
    path = tmp_path / "reads.fq"
    if body is not None:
        path.write_bytes(body)
    found = check(path)
    assert found["records"] == 0
    assert errors in "".join(found["errors"])
    assert bool(found["errors"]) == bool(errors)


def test_a_directory_is_no_file_of_reads(tmp_path: Path) -> None:
    assert check(tmp_path)["errors"] == [f"{tmp_path}: Is a directory"]


@pytest.mark.parametrize(
    ("body", "options", "status"),
    [
        (SHORT % 1, [], 0),
        (BAD % 1, [], 1),
        (b"BZh9", [], 1),
        (SHORT % 1, ["--interleaved"], 1),
        (SHORT % 1, ["MATE", "--interleaved"], 2),
        (SHORT % 1, ["--adapter", "XYZ"], 2),
        (SHORT % 1, ["--min-length", "long"], 2),
    ],
)
def test_the_exit_status_says_what_was_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    body: bytes,
    options: list[str],
    status: int,
) -> None:
    path = tmp_path / "reads.fq"
    path.write_bytes(body)
    monkeypatch.setattr(sys, "argv", ["tasks.reads", "check", str(path), *options])
    if status == 2:
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2
        return
    assert main() == status
    assert json.loads(capsys.readouterr().out)["files"] == [str(path)]


def test_the_command_prints_json(tmp_path: Path) -> None:
    path = tmp_path / "reads.fq"
    path.write_bytes(BAD % 1)
    command = [sys.executable, "-m", "tasks.reads", "check", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout)["quarantined"][0]["record_number"] == 1


def test_a_reader_that_leaves_early_sees_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "reads.fq"
    path.write_text("@a\nACGT\n+\nIIII\n")
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "tasks.reads", "check", str(path)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_defaults_are_those_of_the_dag() -> None:
    tree = ast.parse((ROOT / "dags/genomics_batch.py").read_text())
    (params,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PARAMS"
    )
    assert isinstance(params, ast.Dict)
    defaults = {
        ast.literal_eval(key): ast.literal_eval(value.args[0])
        for key, value in zip(params.keys, params.values, strict=True)
        if key is not None and isinstance(value, ast.Call) and isinstance(value.args[0], ast.Constant)
    }
    assert {name: defaults[name] for name in _QUALITY} == {
        name: default for name, (_, default, _) in _QUALITY.items()
    }
