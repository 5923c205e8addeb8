"""AWS ParallelCluster, called in an environment of its own: its packages and Airflow's exclude each other.

What is asked and answered crosses the process boundary as JSON; see :mod:`strandloop.pcluster_program`.

RemoteJobError
├── PclusterFailed          it answered with an error that has no class of its own
│   ├── BadConfiguration    the configuration or the request was refused; a retry cannot help
│   ├── Conflict            the cluster exists already, or something else changes it at this moment
│   ├── NotFound            no such cluster
│   ├── LimitReached        a service quota of the account is used up
│   ├── Throttled           AWS was asked too often; the same call works later
│   └── NoCredentials       the credentials are missing, expired, wrong, or lack a right
└── PclusterUnavailable     it could not be started, took too long, or said something unreadable
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from strandloop.errors import InvalidJob, RemoteJobError

PROGRAM = Path(__file__).with_name("pcluster_program.py")

#: Names the interpreter of the environment that has ParallelCluster; see :func:`interpreter`.
PYTHON_VARIABLE = "STRANDLOOP_PCLUSTER_PYTHON"

#: Seconds for one call. Validation of a large cluster asks AWS some hundred questions.
TIMEOUT_SECONDS = 600.0

# What the process gets of Airflow's environment, which holds secrets. Nothing of it says who asks AWS.
_VARIABLES = (
    *("HOME", "LANG", "LC_ALL", "TMPDIR", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)

# Lines of the process's own words that an error shows.
_LAST_LINES = 20


class PclusterFailed(RemoteJobError):
    """ParallelCluster answered with an error.

    :param operation: what it was asked, for example ``create_cluster``.
    :param reason: its message.
    :param validation: what its validators said: ``level``, ``type`` and ``message`` of each.
    """

    def __init__(self, operation: str, reason: str, validation: Sequence[Mapping[str, str]] = ()) -> None:
        self.operation = operation
        self.reason = reason
        self.validation = [dict(finding) for finding in validation]
        # Errors first; what is only for information is left out of the words.
        told = [
            finding
            for level in ("ERROR", "WARNING")
            for finding in self.validation
            if finding["level"] == level
        ]
        lines = [f"  - {_finding(finding)}" for finding in told]
        super().__init__("\n".join([f"pcluster {operation.replace('_', '-')}: {reason}", *lines]))


class BadConfiguration(PclusterFailed, InvalidJob):
    """The cluster configuration or the request was refused; all findings of the validators are named."""


class Conflict(PclusterFailed):
    """The cluster exists already, or its stack is being changed by somebody else."""


class NotFound(PclusterFailed):
    """There is no such cluster."""


class LimitReached(PclusterFailed):
    """A quota of the AWS account is used up."""


class Throttled(PclusterFailed):
    """AWS was asked too often.

    Of the calls that AWS answers with ``Throttling`` ParallelCluster itself tries some again without an end;
    there the time limit of the call is what ends it.
    """


class NoCredentials(PclusterFailed):
    """AWS credentials are missing, expired, not accepted, or do not give the right to do this."""


class PclusterUnavailable(RemoteJobError):
    """ParallelCluster did not answer: not installed, too slow, or ended without a word."""


ERRORS: Mapping[str, type[PclusterFailed]] = {
    "bad_configuration": BadConfiguration,
    "conflict": Conflict,
    "not_found": NotFound,
    "limit": LimitReached,
    "throttled": Throttled,
    "credentials": NoCredentials,
    "other": PclusterFailed,
}


class Pcluster:
    """ParallelCluster in one region, with the credentials of one environment.

    Every call is a process of its own, so objects can be shared by threads, and calls run side by side.

    :param region: AWS region, for example ``us-east-1``.
    :param environment: variables for the process: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``,
        ``AWS_SESSION_TOKEN``, ``AWS_ENDPOINT_URL``. No other AWS credentials reach it.
    """

    def __init__(self, *, region: str, environment: Mapping[str, str] | None = None) -> None:
        self.region = region
        self.environment = dict(environment or {})

    def call(
        self, operation: str, *, timeout_seconds: float = TIMEOUT_SECONDS, **arguments: Any
    ) -> dict[str, Any]:
        """Do what the function of that name in ``pcluster.lib`` does, and give its answer.

        :param operation: for example ``create_cluster``, ``describe_cluster``, ``get_cluster_stack_events``.
        :param timeout_seconds: after this the process is ended; what it began at AWS may go on there.
        :param arguments: as ``pcluster.lib`` takes them; ``cluster_configuration`` is the YAML text.
        :return: the answer with the names that the ``pcluster`` command prints (``clusterStatus``). A dry run
            that found nothing wrong answers ``{"message": ..., "validationMessages": [...]}``.
        :raises PclusterFailed: it refused or failed; a subclass says how, where that is known.
        :raises PclusterUnavailable: it did not answer.
        """
        python = interpreter()
        request = {"operation": operation, "arguments": {"region": self.region, **arguments}}
        try:
            process = subprocess.Popen(
                # Isolated: neither PYTHON* variables nor this folder's modules reach the other environment.
                [python, "-I", str(PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._process_environment(python),
                # A group of its own, which can be ended as a whole: Node.js runs below it.
                start_new_session=True,
            )
        except OSError as error:
            raise PclusterUnavailable(
                f"ParallelCluster's Python cannot be started: {error}. Install {_ENVIRONMENT} and name its "
                f"interpreter in ${PYTHON_VARIABLE}"
            ) from error
        try:
            stdout, stderr = process.communicate(json.dumps(request).encode(), timeout=timeout_seconds)
        except subprocess.TimeoutExpired as error:
            raise PclusterUnavailable(
                f"pcluster {operation} did not end within {timeout_seconds:.0f} s and was ended; "
                "what it began at AWS may go on there"
            ) from error
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        return _answer(operation, process.returncode, stdout, stderr)

    def _process_environment(self, python: str) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
        # Node.js may have been installed into the environment itself.
        path = os.pathsep.join([str(Path(python).parent), os.environ.get("PATH", os.defpath)])
        return {**inherited, "PATH": path, **self.environment, "AWS_DEFAULT_REGION": self.region}


_ENVIRONMENT = "infra/parallelcluster/requirements.txt into a virtual environment"


def interpreter() -> str:
    """The Python that has ParallelCluster: ``$STRANDLOOP_PCLUSTER_PYTHON``.

    Without that variable it is ``pcluster/bin/python`` in Airflow's home.
    """
    home = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()
    return os.environ.get(PYTHON_VARIABLE) or str(home / "pcluster" / "bin" / "python")


def _answer(operation: str, rc: int, stdout: bytes, stderr: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(stdout)
        if "result" in answer:
            return dict(answer["result"])
        error = answer["error"]
        kind, message, validation = ERRORS[error["kind"]], error["message"], error.get("validation", [])
    except (ValueError, TypeError, KeyError) as broken:
        lines = (stdout + stderr).decode("utf-8", "replace").splitlines()[-_LAST_LINES:]
        words = "\n".join(f"  | {line}" for line in lines)
        raise PclusterUnavailable(
            f"pcluster {operation} ended with exit status {rc} and without an answer; its last lines:\n{words}"
        ) from broken
    raise kind(operation, message, validation)


def _finding(finding: Mapping[str, str]) -> str:
    words = " ".join(finding["message"].split())
    return f"{finding['level']}: {words} ({finding['type']})"
