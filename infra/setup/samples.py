"""Sample reads from Debian's archive: small, real, and the same for everybody."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from infra.setup.commands import LOCAL, SetupError, as_root, run

SAMPLES = LOCAL / "samples"
# For each package: the file in it, and the sample and name that it gets here.
FILES = {
    "velvet-tests": {
        # 25,000 pairs of 79 bases, Phred+64 qualities.
        "usr/share/doc/velvet/tests/read1.fq.gz": "velvet/reads_1.fq.gz",
        "usr/share/doc/velvet/tests/read2.fq.gz": "velvet/reads_2.fq.gz",
    },
    "seqkit-examples": {
        # 10,000 reads of 150 bases.
        "usr/share/doc/seqkit-examples/tests/Illimina1.8.fq.gz": "illumina/illumina.fq.gz",
        # 2,500 pairs of 16S amplicons.
        "usr/share/doc/seqkit-examples/tests/reads_1.fq.gz": "amplicon/reads_1.fq.gz",
        "usr/share/doc/seqkit-examples/tests/reads_2.fq.gz": "amplicon/reads_2.fq.gz",
    },
}


def fetch_missing() -> bool:
    """Download the packages whose reads are not all here, and take the reads out; tells whether it did.

    Nothing is installed, so it needs no rights.
    """
    missing = {
        package: files
        for package, files in FILES.items()
        if not all((SAMPLES / target).exists() for target in files.values())
    }
    for package, files in missing.items():
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            print(f"note: no sample reads, since Debian's package {package} can be fetched with apt only;")
            print("      put FASTQ files of your own at .local/samples/<sample>/*.fq.gz")
            return False
        print(f"fetching sample reads from Debian's package {package}", flush=True)
        SAMPLES.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=SAMPLES) as folder:
            _take_out(package, files, Path(folder))
    return bool(missing)


def _take_out(package: str, files: dict[str, str], folder: Path) -> None:
    if not _download(package, folder):
        # A machine that never updated its package lists does not know where the package is.
        run(as_root(["apt-get", "update", "-q"]))
        if not _download(package, folder):
            raise SetupError(f"`apt-get download {package}` failed: is Debian's archive within reach?")
    (archive,) = folder.glob("*.deb")
    run(["dpkg-deb", "--extract", str(archive), str(folder / "content")])
    for source, target in files.items():
        found = folder / "content" / source
        if not found.exists():
            raise SetupError(f"{archive.name} holds no {source}: another release than Debian 12's?")
        (SAMPLES / target).parent.mkdir(exist_ok=True)
        shutil.copyfile(found, part := (SAMPLES / target).with_suffix(".part"))
        part.replace(SAMPLES / target)


def _download(package: str, folder: Path) -> bool:
    # apt hands downloads to a user of its own, who cannot write into this folder.
    sandbox = ["-o", "APT::Sandbox::User=root"] if os.getuid() == 0 else []
    return (
        subprocess.run(["apt-get", "-q", *sandbox, "download", package], cwd=folder, check=False).returncode
        == 0
    )
