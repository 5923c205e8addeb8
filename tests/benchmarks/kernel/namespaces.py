"""Nodes that are network namespaces of this machine: each has a name and one link to a switch, as slow as asked.

Needs root, ``ip`` and ``tc`` (iproute2), and a Linux kernel with veth, bridge and the token bucket filter. A link
is slowed where packets leave a node, so both directions of a link have the rate. A delay cannot be asked for: it
would need the kernel's netem. mpirun starts its daemons through :data:`AGENT`, as it would by ssh.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

NETWORK = "10.77.0"  # inside the namespaces only
LINK = "link0"
BURST = "64kb"
QUEUE = "100ms"
AGENT = """\
#!/bin/sh
# agent ADDRESS COMMAND...: run the command on the node with this address
node={prefix}${{1##*.}}
shift
exec ip netns exec "$node" unshare --uts sh -c "hostname $node; $*"
"""


class NoNamespaces(Exception):
    """Network namespaces with slow links cannot be had here; the message says what is missing."""


@dataclass(frozen=True)
class Nodes:
    """Namespaces of so many nodes; node 1 is where mpirun runs."""

    prefix: str
    number: int
    agent: Path

    @property
    def names(self) -> list[str]:
        """Of the namespaces; each is the host name of its node as well."""
        return [f"{self.prefix}{node}" for node in range(1, self.number + 1)]

    def mpirun(self) -> list[str]:
        """What stands before a command so that each node runs one rank of it, with TCP between them."""
        hosts = ",".join(f"{NETWORK}.{node}:1" for node in range(1, self.number + 1))
        # Two ranks on one core must not wait for each other by turning in circles.
        settings = {
            "plm_rsh_agent": str(self.agent),
            "btl": "tcp,self",
            "btl_tcp_if_include": LINK,
            "oob_tcp_if_include": LINK,
            "mpi_yield_when_idle": "1",
        }
        command = ["mpirun", "--quiet", "--leave-session-attached", "--bind-to", "none", "--host", hosts]
        for name, value in settings.items():
            command += ["--mca", name, value]
        for variable in ("PYTHONPATH", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            command += ["-x", variable]
        first = self.names[0]
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', first]
        return ["ip", "netns", "exec", first, *named, *command]

    def slow_down(self, mbit: int | None) -> None:
        """Give every link this rate in Mbit/s; None takes the limit away."""
        for name in self.names:
            device = ["ip", "netns", "exec", name, "tc", "qdisc"]
            if mbit is None:
                subprocess.run([*device, "del", "dev", LINK, "root"], capture_output=True, check=False)
            else:
                rate = ["root", "tbf", "rate", f"{mbit}mbit", "burst", BURST, "latency", QUEUE]
                _run(*device, "replace", "dev", LINK, *rate)


@contextmanager
def nodes(number: int) -> Iterator[Nodes]:
    """So many nodes behind one switch; all is gone at the end.

    :raises NoNamespaces: not root, or the system lacks a part.
    """
    if os.geteuid() != 0:
        raise NoNamespaces("network namespaces need root")
    for program in ("ip", "tc", "unshare"):
        if shutil.which(program) is None:
            raise NoNamespaces(f"there is no program {program}: install iproute2 and util-linux")
    prefix = f"knn{os.getpid()}-"
    switch = f"{prefix}switch"
    with tempfile.TemporaryDirectory() as folder, ExitStack() as made:
        agent = Path(folder) / "agent"
        agent.write_text(AGENT.format(prefix=prefix))
        agent.chmod(0o755)
        found = Nodes(prefix, number, agent)
        for name in (switch, *found.names):
            _run("ip", "netns", "add", name)
            made.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
        _run("ip", "-n", switch, "link", "add", "bridge0", "type", "bridge")
        _run("ip", "-n", switch, "link", "set", "bridge0", "up")
        for node, name in enumerate(found.names, start=1):
            port = f"port{node}"
            _run(
                *("ip", "link", "add", LINK, "netns", name, "type", "veth"),
                *("peer", "name", port, "netns", switch),
            )
            _run("ip", "-n", name, "addr", "add", f"{NETWORK}.{node}/24", "dev", LINK)
            for device in (LINK, "lo"):
                _run("ip", "-n", name, "link", "set", device, "up")
            _run("ip", "-n", switch, "link", "set", port, "master", "bridge0", "up")
        found.slow_down(1000)  # to see that links can be slowed at all
        found.slow_down(None)
        yield found


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoNamespaces(f"`{' '.join(command)}` failed: {done.stderr.strip() or done.returncode}")
