from __future__ import annotations

import pytest

from strandloop.slurm_array import JobArray, ranges


@pytest.mark.parametrize(
    ("text", "indices", "written"),
    [
        ("5", [5], "5"),
        ("0-3%2", [0, 1, 2, 3], "0-3%2"),
        ("1,3,7", [1, 3, 7], "1,3,7"),
        ("0-20:5", [0, 5, 10, 15, 20], "0,5,10,15,20"),
        ("7,1-2,2-3%4", [1, 2, 3, 7], "1-3,7%4"),
    ],
)
def test_expressions_of_sbatch(text: str, indices: list[int], written: str) -> None:
    array = JobArray.parse(text)
    assert (list(array.indices), str(array)) == (indices, written)
    assert JobArray.parse(written) == array


@pytest.mark.parametrize(
    "text", ["", "%4", "a", "1-", "3-1", "-1", "1,,2", "0-9:0", "0-9%0", "0-9%", "4294967294", "0-3,...%2"]
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="array"):
        JobArray.parse(text)


def test_a_part_of_an_array_keeps_its_limit() -> None:
    assert str(JobArray.parse("0-19%4").only([13, 7, 99])) == "7,13%4"


def test_ranges_are_written_as_slurm_does() -> None:
    assert ranges([]) == "" and ranges([3, 1, 2, 9]) == "1-3,9"
