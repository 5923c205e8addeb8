"""The mark of a DAG run on what it has made elsewhere: on clusters, EC2 instances and Slurm jobs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

#: The tag of AWS resources; its value is ``<dag id>/<run id>``.
TAG = "strandloop:run-id"

_WORD = "strandloop"

#: Template of the comment of a run's Slurm jobs.
JOB_COMMENT = _WORD + " {{ dag.dag_id }} {{ run_id }}"


@dataclass(frozen=True)
class RunTag:
    """A DAG run, as AWS tags and Slurm comments name it."""

    dag_id: str
    run_id: str

    @classmethod
    def of(cls, ti: Any) -> Self:
        """Return that of a running task instance."""
        return cls(ti.dag_id, ti.run_id)

    @classmethod
    def of_tags(cls, tags: Mapping[str, str]) -> Self | None:
        """Read the tags of an AWS resource; None where it is not ours."""
        dag_id, slash, run_id = tags.get(TAG, "").partition("/")
        return cls(dag_id, run_id) if slash else None

    @classmethod
    def of_comment(cls, comment: str) -> Self | None:
        """Read a Slurm job's comment; None where the job is not ours."""
        words = comment.split()
        return cls(words[1], words[2]) if len(words) == 3 and words[0] == _WORD else None

    @property
    def value(self) -> str:
        """The value of the tag."""
        return f"{self.dag_id}/{self.run_id}"

    @property
    def comment(self) -> str:
        """The comment of this run's Slurm jobs; the ids of Airflow hold no blanks."""
        return f"{_WORD} {self.dag_id} {self.run_id}"

    @property
    def cluster_name(self) -> str:
        """The name of the run's own cluster: the same for all tries, and no other run's."""
        digest = hashlib.sha256(json.dumps([self.dag_id, self.run_id]).encode()).hexdigest()
        return f"{_WORD}-{digest[:12]}"

    def __str__(self) -> str:
        return f"run {self.run_id} of {self.dag_id}"
