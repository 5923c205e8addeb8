"""The Debian packages that the local stack is made of."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess

from infra.setup.commands import SetupError, as_root, run

PACKAGES = (
    "slurm-wlm",
    "munge",
    "openmpi-bin",
    "libopenmpi-dev",
    "openssh-server",
    "openssh-client",
    "gcc",
    "libc6-dev",
    "ca-certificates",
)
# For `up --with accounting`. Neither starts a service: MariaDB's come with mariadb-server only, and slurmdbd's
# waits for an /etc/slurm/slurmdbd.conf, which no package makes.
ACCOUNTING_PACKAGES = ("slurmdbd", "mariadb-server-core", "mariadb-client-core")
# For `--with parallelcluster`, whose AWS CDK runs in it.
PARALLELCLUSTER_PACKAGES = ("nodejs",)
# One program of each package that has programs, for systems without dpkg.
PROGRAMS = ("slurmctld", "munged", "mpirun", "sshd", "ssh", "gcc")
ACCOUNTING_PROGRAMS = ("slurmdbd", "mariadbd", "my_print_defaults")
PARALLELCLUSTER_PROGRAMS = ("node",)


def install_missing(*, with_accounting: bool = False, with_parallelcluster: bool = False) -> bool:
    """Install the packages that are not there, if any; tells whether it did."""
    packages: tuple[str, ...] = PACKAGES
    programs: tuple[str, ...] = PROGRAMS
    if with_accounting:
        packages, programs = packages + ACCOUNTING_PACKAGES, programs + ACCOUNTING_PROGRAMS
    if with_parallelcluster:
        programs += PARALLELCLUSTER_PROGRAMS
        if shutil.which("node") is None:  # one from elsewhere does as well
            packages += PARALLELCLUSTER_PACKAGES
    if shutil.which("dpkg-query") is None or shutil.which("apt-get") is None:
        _require(programs)
        return False
    if not (missing := _missing(packages)):
        return False
    print(f"installing Debian packages: {' '.join(missing)}")
    if "openssh-server" in missing:
        print("(their own services are not used; to keep sshd off port 22: systemctl disable --now ssh)")
    apt_get = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    run(as_root([*apt_get, "update", "-q"]))
    run(as_root([*apt_get, "install", "-q", "-y", "--no-install-recommends", *missing]))
    return True


def _missing(packages: tuple[str, ...]) -> list[str]:
    wanted = [*packages]
    if importlib.util.find_spec("ensurepip") is None:
        wanted.append("python3-venv")  # Debian's Python comes without it
    query = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Abbrev}\n", *wanted]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    installed = {line.split()[0] for line in answer.stdout.splitlines() if line.split()[1:] == ["ii"]}
    return [package for package in wanted if package not in installed]


def _require(programs: tuple[str, ...]) -> None:
    path = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
    missing = [
        name for name in programs if shutil.which(name) is None and shutil.which(name, path=path) is None
    ]
    if missing:
        raise SetupError(
            f"these programs are missing: {', '.join(missing)}. Setup installs them on Debian and its "
            "relatives only; here, install the packages that have them by hand."
        )
