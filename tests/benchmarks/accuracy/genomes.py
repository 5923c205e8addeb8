"""Real genomes from Debian's archive, fetched when they are first needed and kept below ``.local``.

Ten species are trained on, four others never. Six of the ten are tested on another strain; of the other four one
genome is at hand, so that they are tested on stretches of it that were not trained on.
"""

from __future__ import annotations

import gzip
import json
import lzma
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpc_jobs.checked_file import sha256_of
from tasks.reads.simulate import Genome, read_genomes
from tests.benchmarks.bench_daily_run import ROOT

FOLDER = ROOT / ".local" / "bench" / "genomes"
STRETCH_BASES = 25_000
KEPT = 200
"""Stretches of a genome, evenly spaced: 5 Mb, all of most bacteria."""


@dataclass(frozen=True)
class Strain:
    """One genome.

    :param path: of its FASTA file in the package: plain, .gz, .xz, or a .tar.gz.
    :param member: of the .tar.gz.
    """

    name: str
    package: str
    path: str
    member: str = ""


@dataclass(frozen=True)
class Species:
    """A species by the strain to train on, None where none is, and the one to test on, which may be the same."""

    name: str
    trained: Strain | None
    tested: Strain

    @property
    def strains(self) -> list[Strain]:
        """Each once."""
        return [strain for strain in dict.fromkeys((self.trained, self.tested)) if strain]


def _ragout(name: str, path: str) -> Strain:
    return Strain(name, "ragout-examples", f"usr/share/doc/ragout/examples/{path}.fasta.gz")


def _kleborate(name: str, path: str) -> Strain:
    return Strain(name, "kleborate-examples", f"usr/share/doc/kleborate/examples/data/{path}.fna.xz")


def _smalt(name: str, path: str) -> Strain:
    return Strain(name, "smalt-examples", f"usr/share/doc/smalt/test/data/{path}.fa.gz")


def _kmer(name: str, member: str) -> Strain:
    return Strain(name, "kmer-examples", "usr/share/doc/kmer-examples/test_data.tar.gz", member)


_H37RV = _kmer("M-tuberculosis-H37Rv", "GCF_000195955.2_ASM19595v2_genomic.fna")
_TN = _kmer("M-leprae-TN", "GCF_000195855.1_ASM19585v1_genomic.fna")
_FALCIPARUM = _smalt("P-falciparum-3D7", "genome_1")
_HUMAN_X = _smalt("H-sapiens-X", "hs37chrXtrunc")
_SC84 = Strain("S-suis-SC84", "abacas-examples", "usr/share/doc/abacas-examples/SS_SC84.dna.gz")
_536 = Strain("E-coli-536", "bowtie-examples", "usr/share/doc/bowtie/examples/genomes/NC_008253.fna.gz")
_KNOWLESI = _smalt("P-knowlesi", "cigar_ref")
_AX4 = Strain("D-discoideum-AX4", "spaln-data", "usr/share/spaln/seqdb/dictdisc_g.gf.gz")
_R1 = Strain("D-radiodurans-R1-MP1", "shovill-examples", "usr/share/doc/shovill-examples/test.fna.gz")
_DM3 = Strain(
    "D-melanogaster-upstream",
    "r-bioc-biostrings",
    "usr/lib/R/site-library/Biostrings/extdata/dm3_upstream2000.fa.gz",
)

TRAINED = (
    Species("E-coli", _ragout("E-coli-MG1655", "E.Coli/references/MG1655-K12"), _536),
    Species(
        "H-pylori",
        _ragout("H-pylori-ELS37", "H.Pylori/references/ELS37"),
        _ragout("H-pylori-G27", "H.Pylori/references/G27"),
    ),
    Species(
        "S-aureus",
        _ragout("S-aureus-N315", "S.Aureus/references/N315"),
        _ragout("S-aureus-RF122", "S.Aureus/references/RF122"),
    ),
    Species(
        "V-cholerae",
        _ragout("V-cholerae-O1-Inaba", "V.Cholerae/references/O1_Inaba"),
        _ragout("V-cholerae-O395", "V.Cholerae/references/O395"),
    ),
    Species(
        "K-pneumoniae",
        _kleborate("K-pneumoniae-MGH78578", "MGH78578"),
        _kleborate("K-pneumoniae-HS11286", "Klebs_HS11286"),
    ),
    Species("S-suis", _SC84, _smalt("S-suis-P1-7", "sequence_test_1")),
    Species("M-tuberculosis", _H37RV, _H37RV),
    Species("M-leprae", _TN, _TN),
    Species("P-falciparum", _FALCIPARUM, _FALCIPARUM),
    Species("H-sapiens", _HUMAN_X, _HUMAN_X),
)
UNSEEN = (
    Species("P-knowlesi", None, _KNOWLESI),
    Species("D-discoideum", None, _AX4),
    Species("D-radiodurans", None, _R1),
    Species("D-melanogaster", None, _DM3),
)


class NoGenome(Exception):
    """A package cannot be fetched, or holds no such file; the message says which."""


def fetch(species: Sequence[Species]) -> None:
    """Put ``<strain>.fa``, a genome's stretches, into :data:`FOLDER` where it is not there; installs nothing."""
    missing: dict[str, list[Strain]] = {}
    for strain in dict.fromkeys(strain for one in species for strain in one.strains):
        if not (FOLDER / f"{strain.name}.fa").exists():
            missing.setdefault(strain.package, []).append(strain)
    for package, strains in missing.items():
        with unpacked(package) as content:
            for strain in strains:
                _keep(strain, content)


@contextmanager
def unpacked(package: str) -> Iterator[Path]:
    """The folder with the files of a package, downloaded and unpacked for as long as the block lasts."""
    print(f"fetching Debian's package {package}", flush=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    # apt hands downloads to a user of its own, who cannot write into this folder.
    sandbox = ["-o", "APT::Sandbox::User=root"] if os.getuid() == 0 else []
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        if subprocess.run(
            ["apt-get", "-q", *sandbox, "download", package], cwd=scratch, check=False
        ).returncode:
            raise NoGenome(
                f"Debian's package {package} cannot be fetched: run `apt-get update`, then try again"
            )
        (archive,) = Path(scratch).glob(f"{package}_*.deb")
        _note("packages", package, archive.name)
        content = Path(scratch) / "content"
        subprocess.run(["dpkg-deb", "--extract", archive, content], check=True)
        yield content


def provenance() -> dict[str, dict[str, str]]:
    """The archives that were fetched, by package, and the SHA-256 of every genome's FASTA text, by strain."""
    path = FOLDER / "sources.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def stretches(strain: Strain, species: str) -> list[Genome]:
    """The kept stretches of a genome, named ``<species>.<number>``."""
    kept = read_genomes(FOLDER / f"{strain.name}.fa")
    return [Genome(f"{species}.{number}", genome.sequence) for number, genome in enumerate(kept)]


def evenly(many: int, count: int) -> list[int]:
    """At most ``count`` of the numbers below ``many``, evenly spaced from the first to the last."""
    return sorted(set(np.linspace(0, many - 1, min(count, many)).astype(int).tolist()))


def _keep(strain: Strain, content: Path) -> None:
    """Write the stretches of one genome."""
    path = content / strain.path
    if not path.exists():
        raise NoGenome(f"Debian's package {strain.package} holds no {strain.path}: another release than 12?")
    whole = content / f"{strain.name}.fa"
    whole.write_bytes(_text(path, strain.member))
    pieces = _cut([genome.sequence for genome in read_genomes(whole)])
    part = FOLDER / f"{strain.name}.part"
    part.write_bytes(
        b"".join(b">%d\n%s\n" % (number, piece.tobytes()) for number, piece in enumerate(pieces))
    )
    _note("fasta_sha256", strain.name, sha256_of(whole))
    part.replace(FOLDER / f"{strain.name}.fa")


def _text(path: Path, member: str) -> bytes:
    """The FASTA text of a file in a package."""
    if member:
        with tarfile.open(path) as archive:
            file = archive.extractfile(member)
            assert file is not None
            return file.read()
    body = path.read_bytes()
    return lzma.decompress(body) if path.suffix == ".xz" else gzip.decompress(body)


def _cut(records: list[np.ndarray]) -> list[np.ndarray]:
    """Stretches without unknown bases, evenly spaced; shorter ones where no record is as long."""
    bases = min(STRETCH_BASES, max(map(len, records)))
    pieces = [
        record[start : start + bases]
        for record in records
        for start in range(0, len(record) - bases + 1, bases)
    ]
    known = [piece for piece in pieces if not (piece == ord("N")).any()]
    return [known[number] for number in evenly(len(known), KEPT)]


def _note(kind: str, name: str, value: str) -> None:
    noted = provenance()
    noted.setdefault(kind, {})[name] = value
    (FOLDER / "sources.json").write_text(json.dumps(noted, indent=2, sort_keys=True) + "\n")
