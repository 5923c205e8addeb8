"""The local cluster's slurm.conf: its settings, and a site's in place of some of them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from infra.local.layout import Layout, current_user
from infra.local.ports import Ports

NODES = ("n1", "n2")
CLUSTER_NAME = "strandloop-local"
# What a configuration may say more than once.
REPEATED = {"nodename", "partitionname"}


def slurm_conf(
    layout: Layout, ports: Ports, *, with_accounting: bool, with_memory_cgroup: bool, site: str = ""
) -> str:
    """The text of slurm.conf.

    :param with_accounting: keep accounts in the stack's slurmdbd.
    :param with_memory_cgroup: the kernel confines jobs to their memory, and not slurmstepd by polling.
    :param site: more lines; a setting in them takes the place of the same setting here.
    """
    own = [
        *_cluster(layout, ports),
        *_memory_limits(with_memory_cgroup),
        *(
            _accounting(layout, ports)
            if with_accounting
            else ["AccountingStorageType=accounting_storage/none"]
        ),
        *_nodes(ports),
    ]
    sites = site.strip().splitlines()
    replaced = {_setting(line) for line in sites} - REPEATED
    kept = [line for line in own if line.startswith("#") or _setting(line) not in replaced]
    return "\n".join(["# Written by `python -m infra.local up`.", *kept, *sites, ""])


def slurm_directory(layout: Layout) -> Path:
    """Where the cluster's files are; Slurm looks for slurmdbd.conf and cgroup.conf beside slurm.conf."""
    return layout.state / "slurm"


def saved_state(layout: Layout) -> Path:
    """What slurmctld remembers from one start to the next."""
    return slurm_directory(layout) / "state"


def spool(layout: Layout, node: str) -> Path:
    """A slurmd's directory; its path is short, since slurmstepd makes sockets there."""
    return layout.runtime / f"slurmd-{node}"


def munge_socket(layout: Layout) -> Path:
    """The socket of the stack's munged."""
    return layout.runtime / "munge.socket"


def cpus_per_node() -> int:
    """The machine's CPUs shared out among the nodes."""
    return max(1, (os.cpu_count() or 1) // len(NODES))


def mebibytes_per_node() -> int:
    """The machine's memory shared out among the nodes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // len(NODES) // 2**20


def _cluster(layout: Layout, ports: Ports) -> list[str]:
    user = current_user()
    return [
        f"ClusterName={CLUSTER_NAME}",
        f"SlurmctldHost={socket.gethostname().partition('.')[0]}(127.0.0.1)",
        f"SlurmctldPort={ports['slurmctld']}",
        "# Listen on loopback only.",
        "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny",
        f"SlurmUser={user}",
        f"SlurmdUser={user}",
        "AuthType=auth/munge",
        f"AuthInfo=socket={munge_socket(layout)}",
        "CredType=cred/munge",
        f"StateSaveLocation={saved_state(layout)}",
        f"SlurmdSpoolDir={spool(layout, '%n')}",
        f"SlurmctldPidFile={layout.runtime / 'slurmctld.pid'}",
        f"SlurmdPidFile={layout.runtime / 'slurmd-%n.pid'}",
        "ProctrackType=proctrack/linuxproc",
        "MpiDefault=none",
        "SchedulerType=sched/backfill",
        "# By default Slurm waits 3 s for more jobs before it starts one, and 60 s to look again at those left.",
        "SchedulerParameters=batch_sched_delay=1,sched_interval=5",
        "SelectType=select/cons_tres",
        "ReturnToService=2",
        "MinJobAge=300",
        "SlurmctldTimeout=60",
        "SlurmdTimeout=30",
        "MessageTimeout=20",
        "KillWait=10",
        "InactiveLimit=0",
        "PropagateResourceLimits=NONE",
        "JobCompType=jobcomp/none",
        "MailProg=/bin/true",
    ]


def _memory_limits(with_cgroup: bool) -> list[str]:
    return [
        "SelectTypeParameters=CR_CPU_Memory",
        "# A job that asks for no memory gets its CPUs' share of the node's.",
        f"DefMemPerCPU={mebibytes_per_node() // cpus_per_node()}",
        "JobAcctGatherType=jobacct_gather/linux",
        "JobAcctGatherFrequency=task=1",
        *(
            ["TaskPlugin=task/cgroup"]
            if with_cgroup
            else ["TaskPlugin=task/none", "JobAcctGatherParams=OverMemoryKill"]
        ),
    ]


def _accounting(layout: Layout, ports: Ports) -> list[str]:
    return [
        "AccountingStorageType=accounting_storage/slurmdbd",
        "AccountingStorageHost=127.0.0.1",
        f"AccountingStoragePort={ports['slurmdbd']}",
        "# With MUNGE this is not a password but the socket of the munged to use.",
        f"AccountingStoragePass={munge_socket(layout)}",
    ]


def _nodes(ports: Ports) -> list[str]:
    return [
        "# Two nodes share one machine, so each is what this file says and not what it sees.",
        "SlurmdParameters=config_overrides",
        *(
            f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[f'slurmd-{node}']}"
            f" CPUs={cpus_per_node()} RealMemory={mebibytes_per_node()} State=UNKNOWN"
            for node in NODES
        ),
        f"PartitionName=compute Nodes={','.join(NODES)} Default=YES MaxTime=INFINITE State=UP",
    ]


def _setting(line: str) -> str:
    return line.partition("=")[0].strip().lower()
