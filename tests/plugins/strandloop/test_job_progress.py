"""What a job says of its progress, and when it is shown."""

from __future__ import annotations

import json

import pytest

from strandloop.job_progress import PACE_SECONDS, JobProgress, ProgressPace


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (
            {"percent": 41.66, "rate": 12500, "unit": "reads", "seconds_left": 95},
            "41.7 % done, 12,500 reads/s, 1 min 35 s left",
        ),
        ({"percent": 0}, "0.0 % done"),
        ({"rate": 3, "seconds_left": 7260}, "3 per second, 2 h 1 min left"),
    ],
)
def test_progress_reads_as_one_line(value: dict[str, object], line: str) -> None:
    assert str(JobProgress.read(json.dumps(value))) == line


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "{}", '{"percent": "many"}', '{"percent": NaN}', '{"rate": true}', "\x00\xff"]
)
def test_what_is_no_progress_is_passed_over(text: str) -> None:
    assert JobProgress.read(text) is None


def test_lines_come_at_a_pace_and_with_large_steps() -> None:
    pace = ProgressPace()

    def at(seconds: float, percent: float) -> bool:
        return pace.line(json.dumps({"percent": percent}), now=seconds) is not None

    assert at(0, 1)
    assert not at(1, 2)
    assert at(2, 11)
    assert not at(PACE_SECONDS, 12)
    assert at(PACE_SECONDS + 2, 12)
    assert not at(10 * PACE_SECONDS, 12)  # nothing new
