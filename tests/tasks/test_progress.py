import json
import time

import pytest

from tasks.object_store import ObjectStore, ObjectUri
from tasks.progress import PROGRESS_MARK, Progress


@pytest.fixture
def uri(s3_root: str) -> ObjectUri:
    return ObjectUri.parse(s3_root) / "progress.json"


def progress_of(uri: ObjectUri, *, records: int | None = 1000, every_seconds: float = 3600) -> Progress:
    capacity = {"CPU": 4.0, "GPU": 1.0}
    return Progress(
        ObjectStore(), uri, records=records, capacity=lambda: capacity, every_seconds=every_seconds
    )


def test_a_report_has_what_is_done_what_is_left_and_who_is_busy(
    uri: ObjectUri, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = progress_of(uri)
    now += 10
    progress.embedded(reads=200, vectors=250, busy_seconds={"read": 5, "encode": 15, "gpu": 4})
    progress.embedded(reads=200, vectors=100, busy_seconds={})
    progress.resumed(reads=100)
    report = progress.report()
    expected = {
        "percent": 50,
        "rate": 40,
        "unit": "reads",
        "seconds_left": 12.0,
        "reads": 500,
        "vectors": 350,
    }
    expected |= {"parts": 2, "parts_resumed": 1, "cpus_busy": 2, "cpus": 4, "gpus_busy": 0.4, "gpus": 1}
    assert {name: report[name] for name in expected} == pytest.approx(expected, abs=1) and report[
        "rate"
    ] == 40


def test_nobody_counted_the_reads(uri: ObjectUri) -> None:
    assert not {"percent", "seconds_left", "reads_total"} & progress_of(uri, records=None).report().keys()


def test_reports_come_also_while_nothing_arrives_and_leave_nothing_behind(
    uri: ObjectUri, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = ""
    deadline = time.monotonic() + 30
    with progress_of(uri, every_seconds=0.001) as progress:
        while (printed.count("\n") < 4 or not ObjectStore().head(uri)) and time.monotonic() < deadline:
            printed += capsys.readouterr().out
        assert ObjectStore().get_json(uri)["status"] == "running"
        progress.embedded(reads=1000, vectors=1000, busy_seconds={})
    said, marked = capsys.readouterr().out.splitlines()[-2:]
    assert said.startswith("1,000 of 1,000 reads in 1 parts; ")
    assert json.loads(marked.removeprefix(PROGRESS_MARK))["percent"] == 100
    assert ObjectStore().head(uri) is None


def test_a_job_that_failed_says_why_where_its_progress_was(uri: ObjectUri) -> None:
    with pytest.raises(ValueError, match="no luck"), progress_of(uri):
        raise ValueError("no luck")
    report = ObjectStore().get_json(uri)
    assert (report["status"], report["error"]) == ("failed", "no luck")


def test_a_report_that_cannot_be_stored_does_not_fail_the_job(
    s3_root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_of(ObjectUri("no-such-bucket", "progress.json")) as progress:
        progress.embedded(reads=7, vectors=7, busy_seconds={})
    assert "its progress cannot be stored" in capsys.readouterr().out
