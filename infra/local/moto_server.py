"""A moto server, for checks of AWS control planes; it keeps everything in memory."""

from __future__ import annotations

from typing import ClassVar

from infra.local.part import Part, ask, service_environment


class MotoServer(Part):
    """Started only when asked for (``up --with moto``); MOTO_* variables of the caller reach it."""

    name: ClassVar = "moto"
    port_of: ClassVar = {"moto": ("moto",)}

    def missing(self) -> list[str]:
        """moto's console script."""
        script = self.layout.python_bin / "moto_server"
        return [] if script.exists() else [str(script)]

    def start(self) -> None:
        """Start the server."""
        if self.down():
            command = [str(self.layout.python_bin / "moto_server"), "-H", "127.0.0.1"]
            env = service_environment(self.layout, self.ports)
            del env["AWS_ENDPOINT_URL"]
            self.processes.start("moto", [*command, "-p", str(self.ports["moto"])], env=env)

    def problem(self) -> str | None:
        """The data page must answer."""
        status, _ = ask(f"{self.url}/moto-api/data.json")
        return None if status == 200 else f"its data page answers {status}"

    def describe(self) -> str:
        """The endpoint."""
        return self.url

    @property
    def url(self) -> str:
        """The endpoint for AWS clients."""
        return f"http://127.0.0.1:{self.ports['moto']}"
