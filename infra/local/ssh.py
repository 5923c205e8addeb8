"""An sshd of the stack's own on loopback, the way into the Slurm cluster's head node."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import ClassVar

from infra.local.layout import current_user
from infra.local.part import SYSTEM_PATH, Part, call, program, required_program
from infra.local.processes import MARK


class SshServer(Part):
    """Lets in the user who started the stack, with the stack's own key and nothing else."""

    name: ClassVar = "ssh"
    port_of: ClassVar = {"sshd": ("ssh",)}

    def missing(self) -> list[str]:
        """OpenSSH's programs."""
        return [name for name in ("sshd", "ssh", "ssh-keygen") if program(name) is None]

    def start(self) -> None:
        """Make the keys where there are none, and start sshd."""
        self.make_keys()
        if self.down():
            if os.getuid() == 0:
                # sshd confines its unprivileged half there; Debian's service would have made it.
                Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
            config = self._directory / "sshd_config"
            config.write_text(self._config())
            # sshd re-executes itself for each connection and wants its own absolute path for that.
            command = [required_program("sshd"), "-D", "-e", "-f", str(config)]
            self.processes.start("sshd", command, env={"PATH": SYSTEM_PATH})

    def problem(self) -> str | None:
        """``ssh ... true`` must succeed with the stack's key and known host."""
        answer = self.run("true")
        if answer.returncode == 0:
            return None
        return f"ssh gives {answer.returncode}: {answer.stderr.strip() or 'no message'}"

    def describe(self) -> str:
        """The login."""
        return f"{current_user()}@127.0.0.1 port {self.ports['ssh']}, key {self.user_key}"

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a shell command over ssh, as the Airflow side does."""
        options = ["BatchMode=yes", "ConnectTimeout=5", "IdentitiesOnly=yes", "LogLevel=ERROR"]
        options += [f"UserKnownHostsFile={_quoted(self.known_hosts)}", "StrictHostKeyChecking=yes"]
        arguments = ["-F", "none", "-i", str(self.user_key), "-p", str(self.ports["ssh"])]
        for option in options:
            arguments += ["-o", option]
        return call([required_program("ssh"), *arguments, f"{current_user()}@127.0.0.1", command])

    @property
    def user_key(self) -> Path:
        """The private key that opens the head node."""
        return self._directory / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """A known_hosts file with the stack's host key."""
        return self._directory / "known_hosts"

    def host_key(self) -> str:
        """The host's public key as ``type base64``, as Airflow's ``host_key`` extra wants it."""
        return " ".join((self._directory / "host_ed25519.pub").read_text().split()[:2])

    def make_keys(self) -> None:
        """Make the host's and the user's keys where there are none, and the files that name them."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        for key in (self._directory / "host_ed25519", self.user_key):
            if not key.exists():
                make = [required_program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
                subprocess.run([*make, "-C", "strandloop local stack"], check=True)
        (self._directory / "authorized_keys").write_text(self.user_key.with_suffix(".pub").read_text())
        self.known_hosts.write_text(f"[127.0.0.1]:{self.ports['ssh']} {self.host_key()}\n")

    def _config(self) -> str:
        slurm_conf = self.layout.state / "slurm" / "slurm.conf"
        variables = {
            "PATH": SYSTEM_PATH,
            # Below another shell, bash leaves ~/.bashrc alone: what somebody has there is not the stack's.
            "SHLVL": "1",
            "SLURM_CONF": slurm_conf,
            MARK: f"{self.layout.runtime}/session/",
        }
        lines = [
            "ListenAddress 127.0.0.1",
            f"Port {self.ports['ssh']}",
            f"HostKey {_quoted(self._directory / 'host_ed25519')}",
            f"AuthorizedKeysFile {_quoted(self._directory / 'authorized_keys')}",
            f"AllowUsers {current_user()}",
            "PidFile none",
            "PubkeyAuthentication yes",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            # PAM needs root and a session manager; keys alone need neither.
            "UsePAM no",
            # sshd would refuse keys below a directory that a group may write to, as checkouts often are.
            # The key's directory itself is closed to others.
            "StrictModes no",
            "UseDNS no",
            "PrintMotd no",
            "PrintLastLog no",
            "Subsystem sftp internal-sftp",
            "SetEnv " + " ".join(f'"{name}={value}"' for name, value in variables.items()),
        ]
        return "\n".join(lines) + "\n"

    @property
    def _directory(self) -> Path:
        return self.layout.state / "ssh"


def _quoted(path: Path) -> str:
    return f'"{path}"'
