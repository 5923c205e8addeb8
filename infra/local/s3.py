"""The S3 server: MiniStack, a pure Python server that keeps its objects on disk."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from infra.local.part import Part, ask, service_environment

BUCKET = "strandloop"


class S3Server(Part):
    """MiniStack with one bucket; what was written is there again after a restart."""

    name: ClassVar = "s3"
    port_of: ClassVar = {"ministack": ("s3",)}

    def missing(self) -> list[str]:
        """MiniStack's console script."""
        return [] if self._console_script.exists() else [str(self._console_script)]

    def start(self) -> None:
        """Start the server and create the bucket."""
        if self.down():
            data = self.layout.state / "s3"
            settings = {
                "BIND_HOST": "127.0.0.1",
                "GATEWAY_PORT": str(self.ports["s3"]),
                "SERVICES": "s3",
                "S3_PERSIST": "1",
                "S3_DATA_DIR": str(data / "objects"),
                "PERSIST_STATE": "1",
                "STATE_DIR": str(data / "state"),
            }
            env = service_environment(self.layout, self.ports) | settings
            # Its own calls must not be sent to itself.
            del env["AWS_ENDPOINT_URL"]
            self.processes.start("ministack", [str(self._console_script)], env=env)
        self.processes.wait_until(
            self._ill_health, what="the S3 server", watch=("ministack",), timeout_s=self.patience_s
        )
        ask(self._bucket_url, method="PUT")

    def problem(self) -> str | None:
        """The server must answer and have the bucket."""
        if ill_health := self._ill_health():
            return ill_health
        status, _ = ask(self._bucket_url, method="HEAD")
        return None if status == 200 else f"HEAD of bucket {BUCKET} answers {status}"

    def describe(self) -> str:
        """The endpoint and the bucket."""
        return f"{self._url} bucket {BUCKET}"

    def _ill_health(self) -> str | None:
        status, _ = ask(f"{self._url}/_ministack/health")
        return None if status == 200 else f"its health page answers {status}"

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3']}"

    @property
    def _bucket_url(self) -> str:
        return f"{self._url}/{BUCKET}"

    @property
    def _console_script(self) -> Path:
        return self.layout.programs / "ministack" / "bin" / "ministack"
