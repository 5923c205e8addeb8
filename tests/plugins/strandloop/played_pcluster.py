"""ParallelCluster that is played: a program that replays answers from a folder, in the place of its Python.

It is started as a process and asked in JSON like the real one. Beside it a web server stands for S3 (the
signed address of a cluster's configuration) and for EC2 (a head node's console). The head node is whatever SSH
server the caller has; ``bin`` in the folder holds a Slurm of a few lines for it.
"""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import asyncssh

UID = "arn:aws:cloudformation:us-east-1:123456789012:stack/{name}/51af3dc0-da77-11e4-872e-1234567db123"

# Answers of an operation are used up one by one; the last is given again and again.
PROGRAM = """#!{python} -IS
import fcntl, json, os, sys, time
from pathlib import Path
folder = Path({folder!r})
request = json.load(sys.stdin)
hold = folder / (request["operation"] + ".hold")
while hold.exists():
    (folder / (request["operation"] + ".held")).touch()
    time.sleep(0.05)
with open(folder / "lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    with open(folder / "asked.jsonl", "a") as asked:
        asked.write(json.dumps({{**request, "environment": dict(os.environ)}}) + "\\n")
    answers = sorted((folder / request["operation"]).glob("*.json"))
    text = answers[0].read_text()
    if len(answers) > 1:
        answers[0].unlink()
sys.stdout.write(text)
"""
SLURM = {
    "scontrol": "printf 'BOOT_TIME = t\\nClusterName = parallelcluster\\n'",
    "sinfo": "echo 'cpu-efa-dy-large-1|idle~'",
    "squeue": 'cat "$dir/queue" 2>/dev/null; exit 0',
}


def described(
    status: str,
    fleet: str = "RUNNING",
    *,
    name: str = "c",
    stack: str | None = None,
    url: str = "",
    tags: dict[str, str] | None = None,
) -> dict[str, Any]:
    """What ``describe_cluster`` answers of a cluster (recorded of 3.16.1, shortened)."""
    return {
        "result": {
            "creationTime": "2026-11-25T03:00:00.000Z",
            "headNode": {
                "launchTime": "2026-11-25T03:04:00.000Z",
                "instanceId": "i-0123456789abcdef0",
                "instanceType": "m7i.xlarge",
                "state": "running",
                "privateIpAddress": "127.0.0.1",
            },
            "version": "3.16.1",
            "clusterConfiguration": {"url": url},
            "tags": [{"key": key, "value": value} for key, value in (tags or {}).items()],
            "cloudFormationStackStatus": stack or status,
            "clusterName": name,
            "computeFleetStatus": fleet,
            "cloudformationStackArn": UID.format(name=name),
            "lastUpdatedTime": "2026-11-25T03:00:00.000Z",
            "region": "us-east-1",
            "clusterStatus": status,
            "scheduler": {"type": "slurm"},
        }
    }


def event(number: int, resource: str, status: str, reason: str = "", *, name: str = "c") -> dict[str, Any]:
    """One stack event; that of the stack itself bears the cluster's name."""
    kind = "AWS::CloudFormation::Stack" if resource == name else "AWS::EC2::Instance"
    return {
        "eventId": f"event-{number}",
        "stackName": name,
        "logicalResourceId": resource,
        "resourceType": kind,
        "timestamp": f"2026-11-25T03:00:{number:02d}.000Z",
        "resourceStatus": status,
        **({"resourceStatusReason": reason} if reason else {}),
    }


def events(*oldest_first: dict[str, Any]) -> dict[str, Any]:
    """What ``get_cluster_stack_events`` answers: the newest first."""
    return {"result": {"events": list(reversed(oldest_first))}}


def error(kind: str, message: str = "no", *validation: str) -> dict[str, Any]:
    """An error of the process boundary."""
    findings = [{"level": "ERROR", "type": "Some", "message": words} for words in validation]
    return {"error": {"kind": kind, "message": message, "validation": findings}}


NOT_FOUND = error("not_found", "Cluster 'c' does not exist")
ACCEPTED = {"result": {"cluster": {"clusterName": "c", "clusterStatus": "CREATE_IN_PROGRESS"}}}


@dataclass
class PlayedPcluster:
    """The answers, what was asked, and what the head node's console and the bucket show."""

    folder: Path
    configuration: str = ""
    console: str = ""
    url: str = ""
    _numbers: dict[str, int] = field(default_factory=dict)

    def answers(self, operation: str, *answers: dict[str, Any]) -> None:
        """Append answers of an operation."""
        (self.folder / operation).mkdir(exist_ok=True)
        for answer in answers:
            number = self._numbers[operation] = self._numbers.get(operation, 0) + 1
            path = self.folder / operation / f"{number:03d}.json"
            path.with_suffix(".part").write_text(json.dumps(answer))
            path.with_suffix(".part").replace(path)

    def described(self, status: str, fleet: str = "RUNNING", **more: Any) -> dict[str, Any]:
        """As :func:`described`, with the address of the configuration."""
        return described(status, fleet, url=f"{self.url}/cluster-config.yaml?X-Amz-Signature=secret", **more)

    def asked(self, *operations: str) -> list[dict[str, Any]]:
        """The requests so far, of these operations or of all."""
        path = self.folder / "asked.jsonl"
        requests = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [request for request in requests if not operations or request["operation"] in operations]

    @property
    def running_configuration(self) -> str:
        """The configuration that the cluster is said to run with: that of its creation where none is set."""
        created = self.asked("create_cluster")
        return self.configuration or (created[0]["arguments"]["cluster_configuration"] if created else "")

    @property
    def changes(self) -> list[str]:
        """The operations that change something, in their order."""
        return [
            request["operation"]
            for request in self.asked(
                "create_cluster", "update_cluster", "delete_cluster", "update_compute_fleet"
            )
        ]

    def queue(self, *rows: str) -> None:
        """Jobs of the head node's Slurm, ``id|state|user|comment``."""
        (self.folder / "queue").write_text("".join(f"{row}\n" for row in rows))


@contextmanager
def played_pcluster(folder: Path, login: str) -> Iterator[tuple[PlayedPcluster, dict[str, str]]]:
    """The player, and the environment in which Airflow finds it and its head node.

    :param login: the Airflow connection of an SSH server on 127.0.0.1, which is the head node.
    """
    played = PlayedPcluster(folder)
    program = folder / "python"
    program.write_text(PROGRAM.format(python=sys.executable, folder=str(folder)))
    program.chmod(0o755)
    (folder / "bin").mkdir()
    for name, text in SLURM.items():
        path = folder / "bin" / name
        path.write_text(f"#!/bin/sh\ndir={folder}\n{text}\n")
        path.chmod(0o755)
    connection = json.loads(login)
    key = connection["extra"].pop("host_key")
    other = asyncssh.generate_private_key("ecdsa-sha2-nistp256").export_public_key().decode().strip()
    played.console = (
        f"[   21.1] cloud-init: ready\r\n-----BEGIN SSH HOST KEY KEYS-----\r\n{other} root@ip-10-0-3-7\r\n"
        f"{key} root@ip-10-0-3-7\r\n-----END SSH HOST KEY KEYS-----\r\nip-10-0-3-7 login: "
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send("text/yaml", played.running_configuration)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            output = b64encode(played.console.encode()).decode()
            self._send(
                "text/xml", f"<GetConsoleOutputResponse><output>{output}</output></GetConsoleOutputResponse>"
            )

        def _send(self, kind: str, text: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            """Say nothing on stderr."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    played.url = f"http://127.0.0.1:{http.server_port}"
    extra = {"region_name": "us-east-1", "endpoint_url": played.url}
    aws = {"conn_type": "aws", "login": "AKIDEXAMPLE", "password": "wJalrXUtnFEMI", "extra": extra}
    del connection["host"]
    environment = {
        "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(aws),
        "AIRFLOW_CONN_CLUSTER_KEY": json.dumps(connection),
        "STRANDLOOP_PCLUSTER_PYTHON": str(program),
    }
    try:
        yield played, environment
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
