"""Errors of remote jobs, written for the person who reads the task log.

RemoteJobError
├── JobFailed           the job was seen to end, and not well; a retry submits the next attempt
│   └── JobTimeout      a limit of this task passed, and the job was cancelled for it
├── JobLost             the remote system was asked and proves not to know the job any more
├── StateUnknown        nobody could say how the job stands: neither green nor a reason to submit again
├── SubmitRefused       the remote system answered a submission with no
├── ConnectionBroken    the remote system could not be reached, or did not answer
└── InvalidJob          the task's own arguments or connection are wrong; a retry cannot help

All can be retried by Airflow except InvalidJob: a retry looks the job up by its identity first.
"""

from __future__ import annotations

from collections.abc import Sequence

from airflow.sdk.exceptions import AirflowException, AirflowFailException


class RemoteJobError(AirflowException):
    """Base of every error about a remote job."""


class JobFailed(RemoteJobError):
    """A remote job ended without success.

    :param job: the job in words, for example ``Slurm job 42 (<identity>)``.
    :param reason: why it is said to have failed, in words.
    :param exit_code: of its process, where one is known.
    :param nodes: where it ran.
    :param last_lines: end of its log.
    """

    def __init__(
        self,
        job: str,
        *,
        reason: str,
        exit_code: int | None = None,
        nodes: str = "",
        last_lines: Sequence[str] = (),
    ) -> None:
        self.job = job
        self.reason = reason
        self.exit_code = exit_code
        self.nodes = nodes
        self.last_lines = tuple(last_lines)
        message = f"{job}: {reason}"
        if exit_code is not None:
            message += f"; exit code {exit_code}"
        if nodes:
            message += f"; on {nodes}"
        if last_lines:
            message += "\nlast lines of its log:\n" + "\n".join(f"  | {line}" for line in last_lines)
        super().__init__(message)


class JobTimeout(JobFailed):
    """A limit of the task (time in the queue, time running) passed; the job was told to stop."""


class JobLost(RemoteJobError):
    """The remote system restarted without its memory: the job is proven to be gone."""


class StateUnknown(RemoteJobError):
    """The job's state could not be established; the message says what was asked and what answered."""


class SubmitRefused(RemoteJobError):
    """The remote system refused to take the job."""


class ConnectionBroken(RemoteJobError):
    """The remote system could not be reached, or the connection broke before it answered."""


class InvalidJob(RemoteJobError, AirflowFailException):
    """The task asks for something that cannot work as it is written; Airflow does not retry it."""
