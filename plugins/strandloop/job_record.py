"""What a task hands on about its remote job: by XCom to sensors and to the cost report."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Self


@dataclass(frozen=True)
class JobRecord:
    """One attempt of a remote job, alive or ended. All times are ISO 8601 in UTC.

    :param system: ``ray`` or ``slurm``.
    :param id: the remote system's own name for this attempt: a Ray submission id, a Slurm job number.
    :param name: the job identity, common to all attempts.
    :param state: last state that was seen, ``SUCCEEDED`` once the job was seen to succeed.
    :param nodes: number of nodes that the job held; 0 while that is not known.
    :param attempt: counts the submissions under this identity, from 1.
    :param cluster: which Slurm controller gave the number; a rebuilt one counts from 1 again.
    :param job_dir: directory of this attempt on the cluster's shared file system (Slurm).
    :param array: elements of this attempt of a Slurm job array, as ``sbatch --array`` takes them. Those
        that an earlier attempt brought to success are not among them.
    """

    system: str
    id: str
    name: str
    state: str
    submitted_at: str
    attempt: int
    nodes: int = 0
    started_at: str | None = None
    ended_at: str | None = None
    cluster: str | None = None
    job_dir: str | None = None
    array: str | None = None

    def to_xcom(self) -> dict[str, Any]:
        """Return plain JSON values; what is only Slurm's is left out where it has no meaning."""
        optional = ("cluster", "job_dir", "array")
        return {k: v for k, v in asdict(self).items() if not (k in optional and v is None)}

    @classmethod
    def from_xcom(cls, value: dict[str, Any]) -> Self:
        """Read what :meth:`to_xcom` wrote; keys of a later version are ignored.

        :raises ValueError: if a required key is missing.
        """
        known = {f.name for f in fields(cls)}
        try:
            return cls(**{k: v for k, v in value.items() if k in known})
        except TypeError as error:
            raise ValueError(f"not a job record: {value!r} ({error})") from error


def iso_utc(seconds: float) -> str:
    """Format seconds since the epoch as ISO 8601 UTC, to the second: ``2026-11-20T04:05:06Z``."""
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc_now() -> str:
    """Return the present as ISO 8601 UTC."""
    return iso_utc(datetime.now(tz=UTC).timestamp())
