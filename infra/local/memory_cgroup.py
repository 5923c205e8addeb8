"""The memory control group that the stack's Slurm confines its jobs in, where the machine lets it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from infra.local.layout import Layout, StackError

HIERARCHY = Path("/sys/fs/cgroup/memory")


@dataclass(frozen=True)
class MemoryCgroup:
    """A group of the stack's own, since Slurm names its groups after node and job only.

    Two stacks on one machine have the same nodes and the same job numbers.
    """

    layout: Layout

    def available(self) -> bool:
        """Whether this user may make groups: root may, where memory is a cgroup v1 hierarchy.

        Slurm 22.05 works with cgroup v2 only as a service of systemd, which the stack is not.
        """
        return (HIERARCHY / "memory.limit_in_bytes").exists() and os.access(HIERARCHY, os.W_OK)

    def make(self) -> None:
        """Make the group, and the directory that Slurm takes for the mount point of all hierarchies."""
        self._group.mkdir(exist_ok=True)
        self.mount_point.mkdir(exist_ok=True)
        link = self.mount_point / HIERARCHY.name
        if not link.is_symlink():
            link.symlink_to(self._group)

    def remove(self) -> None:
        """Remove the group and those that Slurm made in it; raises StackError where a process is left."""
        if self._group.exists():
            groups = [path for path in self._group.rglob("*") if path.is_dir()]
            for group in [*sorted(groups, reverse=True), self._group]:  # what lies below comes first
                try:
                    group.rmdir()
                except OSError as error:
                    left = (group / "cgroup.procs").read_text().split()
                    raise StackError(f"processes of a job live on: {', '.join(left)} ({error})") from error

    @property
    def mount_point(self) -> Path:
        """The value of ``CgroupMountpoint``."""
        return self.layout.runtime / "cgroup"

    @property
    def _group(self) -> Path:
        return HIERARCHY / self.layout.runtime.name
