"""Slurm's accounting: slurmdbd and a MariaDB of its own, from Debian's packages."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import ClassVar

from infra.local.layout import StackError, current_user
from infra.local.part import SYSTEM_PATH, Part, program, required_program
from infra.local.slurm_conf import munge_socket, slurm_directory

PROGRAMS = ("slurmdbd", "mariadbd", "mariadb-install-db", "my_print_defaults", "sacct", "sacctmgr")


class Accounting(Part):
    """mariadbd and slurmdbd, run by the user who started the stack, for the stack's Slurm.

    Nobody else gets at the database, and no password exists: the server listens on a Unix socket in the
    stack's closed directory only, and lets in the operating system's user who owns it.
    """

    name: ClassVar = "accounting"
    port_of: ClassVar = {"mariadbd": (), "slurmdbd": ("slurmdbd",)}
    patience_s: ClassVar = 60.0

    def missing(self) -> list[str]:
        """slurmdbd, MariaDB's server, and what makes its first tables; ``make setup`` leaves them out."""
        return [
            f"{name} (python -m infra.setup --with accounting)" for name in PROGRAMS if program(name) is None
        ]

    def start(self) -> None:
        """Make the database where there is none, and start what does not run."""
        down = self.down()
        env = {"PATH": SYSTEM_PATH, "SLURM_CONF": str(self._directory / "slurm.conf")}
        if "mariadbd" in down:
            self._make_database()
            self._socket.unlink(missing_ok=True)
            self.processes.start("mariadbd", self._mariadbd_command(), env=env)
            self.processes.wait_until(
                self._database_silence, what="mariadbd", watch=("mariadbd",), timeout_s=self.patience_s
            )
        if "slurmdbd" in down:
            self._write_configuration()
            # The client library knows no other way to hear of a socket than its environment.
            env["MYSQL_UNIX_PORT"] = str(self._socket)
            self.processes.start("slurmdbd", [required_program("slurmdbd"), "-D"], env=env)

    def problem(self) -> str | None:
        """slurmdbd must listen, which it does once its tables are there; Slurm tells whether it answers."""
        with socket.create_connection(("127.0.0.1", self.ports["slurmdbd"]), timeout=5):
            return None

    def describe(self) -> str:
        """Where slurmdbd listens, and the database's files."""
        return f"slurmdbd on 127.0.0.1 port {self.ports['slurmdbd']}, tables in {self._data}"

    def _make_database(self) -> None:
        if self._data.exists():
            return
        part = self._data.with_suffix(".part")
        made = subprocess.run(
            [
                required_program("mariadb-install-db"),
                "--no-defaults",
                f"--datadir={part}",
                "--auth-root-authentication-method=socket",
                f"--auth-root-socket-user={current_user()}",
                "--skip-test-db",
                "--skip-name-resolve",
            ],
            env={"PATH": SYSTEM_PATH},
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise StackError(f"MariaDB's tables cannot be made:\n{made.stdout}{made.stderr}")
        part.rename(self._data)

    def _mariadbd_command(self) -> list[str]:
        return [
            required_program("mariadbd"),
            "--no-defaults",
            f"--user={current_user()}",
            f"--datadir={self._data}",
            f"--socket={self._socket}",
            f"--pid-file={self.layout.runtime / 'mariadbd.pid'}",
            "--skip-networking",
            # slurmdbd asks for it: it holds locks for long when it rolls usage up.
            "--innodb-lock-wait-timeout=900",
        ]

    def _database_silence(self) -> str | None:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(self._socket))
            return None if client.recv(1) else "no greeting"

    def _write_configuration(self) -> None:
        self._directory.mkdir(mode=0o755, exist_ok=True)
        user = current_user()
        # slurmdbd looks for this name beside SLURM_CONF, and refuses a file that others may read.
        config = self._directory / "slurmdbd.conf"
        config.unlink(missing_ok=True)
        with os.fdopen(os.open(config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as target:
            target.write(f"""# Written by `python -m infra.local up --with accounting`.
AuthType=auth/munge
AuthInfo=socket={munge_socket(self.layout)}
DbdHost={socket.gethostname().partition(".")[0]}
DbdAddr=127.0.0.1
DbdPort={self.ports["slurmdbd"]}
# Listen on loopback only.
CommunicationParameters=NoInAddrAny
SlurmUser={user}
PidFile={self.layout.runtime / "slurmdbd.pid"}
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser={user}
StorageLoc=slurm_acct_db
""")

    @property
    def _data(self) -> Path:
        return self._directory / "mariadb"

    @property
    def _socket(self) -> Path:
        return self.layout.runtime / "mariadb.socket"

    @property
    def _directory(self) -> Path:
        return slurm_directory(self.layout)
