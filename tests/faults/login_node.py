"""The login node of the local Slurm with commands that misbehave when told to.

sshd's sessions find a folder of shims first in their PATH. A shim looks for faults of its command, bash
fragments in files, and otherwise becomes the real command. A fault applies to command lines that hold its
``match``, and so many times.
"""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.local.part import SYSTEM_PATH, required_program
from infra.local.stack import Stack
from tests.faults.conditions import until

COMMANDS = ("sh", "sbatch", "squeue", "scontrol", "sacct", "scancel")

_SHIM = r"""#!/bin/bash
name=${0##*/}
real=$(PATH=@PATH@ command -v "$name")
for fault in @FAULTS@/"$name".*.fault; do
    [ -f "$fault" ] && . "$fault"
done
exec "$real" "$@"
"""

# A fault has as many tokens as times that it applies; removing one is atomic.
_FAULT = r"""
case "$*" in
*@MATCH@*)
    for token in @TOKENS@/*; do
        if rm "$token" 2>/dev/null; then
            @ACTION@
            break
        fi
    done
    ;;
esac
"""


@dataclass(frozen=True)
class Fault:
    """A fault that was set; ``arrived`` and ``go`` are files of those that hold a command up."""

    folder: Path
    name: str

    @property
    def path(self) -> Path:
        """The bash fragment."""
        return self.folder / self.name

    @property
    def arrived(self) -> Path:
        """Appears once a command has come to the gate."""
        return self.folder / f"{self.name}.arrived"

    @property
    def go(self) -> Path:
        """Opens the gate."""
        return self.folder / f"{self.name}.go"

    @property
    def left(self) -> int:
        """How many times it will still apply."""
        return len(list((self.folder / f"{self.name}.tokens").iterdir()))

    def wait_until_arrived(self) -> None:
        """Wait until a command stands at the gate."""
        until(self.arrived.exists, what=f"a command has come to {self.name}")

    def open(self) -> None:
        """Let the command, and all that follow, go on."""
        self.go.touch()

    def wait_until_used(self) -> None:
        """Wait until it has applied as often as it was meant to."""
        until(lambda: self.left == 0, what=f"{self.name} has applied")

    def clear(self) -> None:
        """End the fault and let whatever it holds up go on."""
        self.go.touch()
        self.path.unlink(missing_ok=True)


class LoginNode:
    """Sets and clears faults of the commands behind the stack's sshd."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._stack = stack
        self._shims = folder / "shims"
        self._faults = folder / "faults"
        self._set: list[Fault] = []
        for each in (self._shims, self._faults):
            each.mkdir(parents=True, exist_ok=True)
        text = _SHIM.replace("@PATH@", SYSTEM_PATH).replace("@FAULTS@", shlex.quote(str(self._faults)))
        for command in COMMANDS:
            shim = self._shims / command
            shim.write_text(text)
            shim.chmod(0o755)

    def start_sshd(self) -> None:
        """Start the stack's sshd again, its sessions with the shims first in their PATH."""
        stack = self._stack
        stack.processes.end("sshd")
        config = stack.layout.state / "ssh" / "sshd_config"
        stack.ssh.start()  # writes the configuration anew
        stack.processes.end("sshd")
        text = config.read_text().replace(f'"PATH={SYSTEM_PATH}"', f'"PATH={self._shims}:{SYSTEM_PATH}"')
        assert str(self._shims) in text
        config.write_text(text)
        command = [required_program("sshd"), "-D", "-e", "-f", str(config)]
        stack.processes.start("sshd", command, env={"PATH": SYSTEM_PATH})
        stack.processes.wait_until(stack.ssh.problem, what="sshd", watch=("sshd",), timeout_s=30)

    @contextmanager
    def another_host_key(self) -> Iterator[None]:
        """For as long as the block runs, sshd shows another host key, as an impostor would."""
        folder = self._stack.layout.state / "ssh"
        names = ("host_ed25519", "host_ed25519.pub")
        kept = [(folder / name).read_bytes() for name in names]
        for name in names:
            (folder / name).unlink()
        self.start_sshd()
        try:
            yield
        finally:
            for name, content in zip(names, kept, strict=True):
                (folder / name).write_bytes(content)
            self.start_sshd()

    def answers(self, command: str, text: str, *, match: str = "", rc: int = 0, times: int = 1) -> Fault:
        """The command prints this instead of doing anything."""
        return self._fault(command, f"printf '%s\\n' {shlex.quote(text)}; exit {rc}", match, times)

    def hides(self, path: Path, *, match: str, times: int) -> Fault:
        """A file is not to be seen for so many commands, as on a slow shared file system; then it is there."""
        hidden = shlex.quote(f"{path}.hidden")
        action = (
            f"[ -e {shlex.quote(str(path))} ] && mv {shlex.quote(str(path))} {hidden}; "
            f'"$real" "$@"; rc=$?; [ -e {hidden} ] && mv {hidden} {shlex.quote(str(path))}; exit $rc'
        )
        return self._fault("sh", action, match, times)

    def holds_before(self, command: str, *, match: str = "", times: int = 1) -> Fault:
        """The command waits at a gate before it does anything."""
        return self._fault(command, "@GATE@", match, times)

    def holds_after(self, command: str, *, match: str = "", times: int = 1) -> Fault:
        """The command does its work, and its answer waits at a gate."""
        return self._fault(
            command, 'answer=$("$real" "$@"); rc=$?; @GATE@; echo "$answer"; exit $rc', match, times
        )

    def clear(self) -> None:
        """End all faults."""
        for fault in self._set:
            fault.clear()
        self._set.clear()

    def _fault(self, command: str, action: str, match: str, times: int) -> Fault:
        fault = Fault(self._faults, f"{command}.{uuid.uuid4().hex[:8]}.fault")
        tokens = self._faults / f"{fault.name}.tokens"
        tokens.mkdir()
        for number in range(times):
            (tokens / str(number)).touch()
        # Bounded, so that a test that failed leaves nothing waiting for ever.
        gate = (
            f"touch {shlex.quote(str(fault.arrived))}; "
            f"for _ in $(seq 3000); do [ -e {shlex.quote(str(fault.go))} ] && break; sleep 0.1; done"
        )
        text = (
            _FAULT.replace("@MATCH@", shlex.quote(match) if match else "")
            .replace("@TOKENS@", shlex.quote(str(tokens)))
            .replace("@ACTION@", action.replace("@GATE@", gate))
        )
        part = fault.path.with_suffix(".part")
        part.write_text(text)
        part.replace(fault.path)
        self._set.append(fault)
        return fault
