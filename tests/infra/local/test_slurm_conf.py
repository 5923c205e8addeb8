from pathlib import Path

import pytest

from infra.local.layout import Layout
from infra.local.ports import Ports
from infra.local.slurm_conf import slurm_conf

LAYOUT = Layout.of(Path("/state"))


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> Ports:
    monkeypatch.setenv("STRANDLOOP_PORT_SLURMDBD", "2345")
    return Ports.choose(Path("/none"))


def test_a_sites_setting_takes_the_place_of_the_stacks(ports: Ports) -> None:
    lines = _lines(ports, site="\nminjobage=2\nDebugFlags=Steps\n")
    assert [line for line in lines if line.lower().startswith("minjobage")] == ["minjobage=2"]
    assert "DebugFlags=Steps" in lines
    assert len({line.partition("=")[0] for line in lines}) == len(lines) - 1  # two nodes, and no other twice


def test_a_sites_partition_joins_the_stacks(ports: Ports) -> None:
    partitions = [line for line in _lines(ports, site="PartitionName=busy Nodes=n1") if "Partition" in line]
    assert [line.split()[0] for line in partitions] == ["PartitionName=compute", "PartitionName=busy"]


def test_accounting_is_kept_in_the_stacks_slurmdbd(ports: Ports) -> None:
    assert "AccountingStorageType=accounting_storage/none" in _lines(ports)
    lines = _lines(ports, with_accounting=True)
    assert "AccountingStorageType=accounting_storage/slurmdbd" in lines
    assert "AccountingStoragePort=2345" in lines


@pytest.mark.parametrize(
    ("with_cgroup", "limit"),
    [(True, "TaskPlugin=task/cgroup"), (False, "JobAcctGatherParams=OverMemoryKill")],
)
def test_memory_is_limited_with_control_groups_and_without(
    ports: Ports, with_cgroup: bool, limit: str
) -> None:
    lines = _lines(ports, with_memory_cgroup=with_cgroup)
    assert limit in lines
    assert "SelectTypeParameters=CR_CPU_Memory" in lines


def _lines(
    ports: Ports, *, with_accounting: bool = False, with_memory_cgroup: bool = False, site: str = ""
) -> list[str]:
    text = slurm_conf(
        LAYOUT, ports, with_accounting=with_accounting, with_memory_cgroup=with_memory_cgroup, site=site
    )
    return [line for line in text.splitlines() if not line.startswith("#")]
