"""What each row of the fault matrix showed, and the four counts that must be zero."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

#: Headings of the four counts.
COUNTS = ("false greens", "duplicate jobs", "orphans", "lost results")


@dataclass(frozen=True)
class Row:
    """One fault as one task met it.

    :param number: of the row in the matrix, 1 to 10.
    :param setting: what it ran on: Slurm without or with accounting, or Ray; and how the task waited.
    :param expected: final state that is right: ``success`` or ``failed``.
    :param state: final state that was seen.
    :param jobs: how many jobs did the work, counted by the jobs themselves.
    :param expected_jobs: how many should have.
    :param alive: jobs of the task that were still alive after its end.
    :param result_right: whether the job's result is there and whole, where there must be one.
    """

    number: int
    fault: str
    setting: str
    expected: str
    state: str
    jobs: int
    expected_jobs: int
    alive: int
    result_right: bool

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """False greens, duplicate jobs, orphans, lost results."""
        green = self.state == "success"
        return (
            int(green and (self.expected != "success" or not self.result_right)),
            max(0, self.jobs - self.expected_jobs),
            self.alive,
            int(self.expected == "success" and not (green and self.result_right)),
        )

    @property
    def right(self) -> bool:
        """Whether all was as it should be."""
        return self.state == self.expected and self.jobs == self.expected_jobs and not any(self.counts)

    def __str__(self) -> str:
        verdict = "ok" if self.right else "WRONG"
        seen = f"{self.state}, {self.jobs} of {self.expected_jobs} jobs, {self.alive} alive"
        return f"{self.number:>3}  {self.fault[:64]:<64}  {self.setting:<34}  {seen:<34}  {verdict}"


def table(rows: list[Row]) -> str:
    """The matrix as text, its counts below."""
    lines = [str(row) for row in sorted(rows, key=lambda row: (row.number, row.fault, row.setting))]
    sums = [sum(row.counts[index] for row in rows) for index in range(len(COUNTS))]
    wrong = sum(not row.right for row in rows)
    counts = ", ".join(f"{count} {name}" for count, name in zip(sums, COUNTS, strict=True))
    return "\n".join([*lines, f"{len(rows)} rows, {wrong} wrong: {counts}"])


def write(rows: list[Row], path: Path) -> None:
    """Keep the matrix as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = [{**asdict(row), "counts": dict(zip(COUNTS, row.counts, strict=True))} for row in rows]
    path.write_text(json.dumps(values, indent=2) + "\n")
