"""What is left of a command that was run on a login node, and what one command may take."""

from __future__ import annotations

from dataclasses import dataclass

#: Seconds that one command may take; the commands limit themselves to less.
COMMAND_TIMEOUT = 120.0

#: Bytes that one command may answer, far more than the largest job array needs.
OUTPUT_LIMIT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Completed:
    """A command that ran to its end."""

    rc: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Both outputs, for a person."""
        return (self.stdout + self.stderr).decode("utf-8", "replace").strip()
