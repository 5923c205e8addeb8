"""``python -m tasks.learning.panel build --data-uri s3://… --name NAME SPECIES=FASTA …``: reads of known species.

A panel says what no batch can say of itself: whether an encoder still tells species apart. It is simulated once
from reference genomes and kept below ``panels/NAME/``, where every retraining finds it. It never changes, so that
all encoders are asked the same.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks import results
from tasks.batches import BATCH_ID
from tasks.encoders.sequences import Sequences
from tasks.errors import ConflictingResult, InvalidInput, InvalidReads, StrandloopError
from tasks.object_store import ObjectStore, ObjectUri
from tasks.reads.block_builder import BlockLimits
from tasks.reads.compression import Text
from tasks.reads.fasta import fasta_blocks
from tasks.reads.simulate import Genome, Library, simulate

READS, MIN_READS = 200, 20
READ_LENGTH, MIN_READ_LENGTH = 150, 40
MAX_N_FRACTION = 0.1  # as the reads of a batch: what is unknown of a genome is no read


@dataclass(frozen=True)
class Panel:
    """Reads of known species.

    :param sequences: the reads.
    :param species: name of each read's species, str (reads,).
    """

    name: str
    sequences: Sequences
    species: np.ndarray


@dataclass(frozen=True)
class Reference:
    """What there is to read of a species.

    :param contigs: records of its FASTA file as long as a read or longer.
    :param too_short: how many records are shorter.
    :param sha256: of the file, as it is.
    """

    contigs: list[Genome]
    too_short: int
    sha256: str


def panels(store: ObjectStore, data_uri: str) -> list[Panel]:
    """All panels below the data URI, by name; one whose building was never finished is none."""
    root = ObjectUri.parse(data_uri) / "panels"
    found = []
    for info in store.list(root):
        name, _, file = info.uri.key.removeprefix(f"{root.key}/").partition("/")
        if file == "manifest.json" and (manifest := results.find(store, root / name)) is not None:
            body = results.fetch(store, root / name, manifest.files[0])
            reads = pq.read_table(io.BytesIO(body), columns=["sequence", "species"])
            species = np.array(reads["species"].to_pylist())
            found.append(Panel(name, Sequences.from_arrow(reads["sequence"]), species))
    return found


def build(
    store: ObjectStore,
    data_uri: str,
    name: str,
    fasta: Mapping[str, Path],
    *,
    reads: int = READS,
    read_length: int = READ_LENGTH,
    seed: int = 1,
) -> dict[str, Any]:
    """Simulate a panel and store it, or find it stored; gives ``status`` and the details of its manifest.

    A species' reads depend on its file, its name, the lengths and numbers asked for and the seed alone, not on
    the other species.

    :param fasta: a file of each species, plain, gzip or zstd; all its records are of the species.
    :param reads: of each species.
    :param read_length: in bases.
    :raises InvalidInput: the name, a number or a file is wrong.
    :raises ConflictingResult: there is another panel of this name.
    """
    _check(name, fasta, reads, read_length)
    library = Library(templates=2 * reads, read_length=read_length, seed=seed)  # twice: some may be N
    tables, species = [], {}
    for each, path in sorted(fasta.items()):
        reference = read_reference(path, read_length=read_length)
        sequences = _sequenced(each, reference, library, reads)
        tables.append(pa.table({"sequence": sequences, "species": pa.repeat(each, reads)}))
        species[each] = {
            "reads": reads,
            "contigs": len(reference.contigs),
            "contigs_too_short": reference.too_short,
            "fasta_sha256": reference.sha256,
        }
    details = {
        "species": species,
        "read_length": read_length,
        "error_rate": library.error_rate,
        "seed": seed,
    }
    is_new = _publish(store, ObjectUri.parse(data_uri) / "panels" / name, pa.concat_tables(tables), details)
    return {"status": "written" if is_new else "unchanged", **details}


def read_reference(path: Path, *, read_length: int) -> Reference:
    """Read a FASTA file, plain, gzip or zstd; IUPAC codes of several bases become N.

    :raises InvalidInput: it cannot be read, a record is bad, or none is as long as a read.
    """
    contigs, too_short = [], 0
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            for block in fasta_blocks(Text(file, source=str(path)), limits=BlockLimits()):
                for bad in block.quarantined:
                    raise InvalidReads(
                        f"{path}: record {bad.record_number}: {bad.reason}; give a genome in FASTA format"
                    )
                ends = zip(block.names, block.offsets[:-1], block.offsets[1:], strict=True)
                for title, start, end in ends:
                    if end - start < read_length:
                        too_short += 1
                    else:
                        contigs.append(Genome(title.decode(errors="replace"), block.sequence[start:end]))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from error
    if not contigs:
        raise InvalidInput(
            f"{path} has no FASTA record of {read_length} bases or more ({too_short} shorter ones); give a genome, "
            "or ask for shorter reads"
        )
    return Reference(contigs, too_short, sha256)


def _check(name: str, fasta: Mapping[str, Path], reads: int, read_length: int) -> None:
    problems = []
    if not BATCH_ID.fullmatch(name):
        problems.append(f"a panel is called by letters, digits, dots, dashes and underscores, not {name!r}")
    if len(fasta) < 2:
        problems.append("a panel has two species or more: of one alone every encoder tells the reads")
    if reads < MIN_READS:
        problems.append(f"{reads} reads of a species are too few to compare encoders; {MIN_READS} are needed")
    if read_length < MIN_READ_LENGTH:
        problems.append(f"reads of {read_length} bases are too short; {MIN_READ_LENGTH} are needed")
    if problems:
        raise InvalidInput("; ".join(problems))


def _sequenced(species: str, reference: Reference, library: Library, reads: int) -> pa.Array:
    """The first ``reads`` reads that are not too much N; each species has random numbers of its own."""
    seed = zlib.crc32(f"{library.seed} {species}".encode())
    (drawn,) = simulate(reference.contigs, replace(library, seed=seed))
    known = np.flatnonzero((drawn.sequences == ord("N")).mean(axis=1) <= MAX_N_FRACTION)[:reads]
    if len(known) < reads:
        raise InvalidInput(f"half of what was drawn of {species!r} is N; give a genome with fewer gaps")
    return pa.array([sequence.tobytes().decode() for sequence in drawn.sequences[known]])


def _publish(store: ObjectStore, prefix: ObjectUri, reads: pa.Table, details: Mapping[str, Any]) -> bool:
    """Store the panel; False where it stands there already. Of two that are built at once, one stands.

    The file is called by its content, so that what loses leaves alone what is read.
    """
    if results.find(store, prefix) is None:
        sink = io.BytesIO()
        pq.write_table(reads, sink, compression="zstd")
        body = sink.getvalue()
        sha256 = hashlib.sha256(body).hexdigest()
        file = results.ResultFile(f"reads-{sha256[:8]}.parquet", len(body), sha256)
        store.put_bytes(prefix / file.name, body)
        manifest = asdict(results.ResultManifest([file], dict(details)))
        if store.put_json(prefix / "manifest.json", manifest, if_absent=True):
            return True
    known = results.find(store, prefix)
    if known is None or known.details != details:
        raise ConflictingResult(
            f"{prefix} was made of other genomes or numbers, and never changes; give the new one another name"
        )
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Build what the command line says; one sentence and an exit status of its kind where that fails."""
    parser = argparse.ArgumentParser(prog="python -m tasks.learning.panel", description=__doc__)
    command = parser.add_subparsers(required=True).add_parser("build", help="simulate a panel, and store it")
    command.add_argument("--data-uri", required=True, help="root of all data, s3://bucket[/prefix]")
    command.add_argument("--name", required=True, help="of the panel, for example bacteria")
    command.add_argument("--reads", type=int, default=READS, help="of each species (default: %(default)s)")
    command.add_argument("--read-length", type=int, default=READ_LENGTH, help="bases (default: %(default)s)")
    command.add_argument("--seed", type=int, default=1)
    command.add_argument(
        "fasta",
        nargs="+",
        type=_assignment,
        metavar="SPECIES=FASTA",
        help="a genome, plain, gzip or zstd; its records (chromosomes, contigs) are one species",
    )
    chosen = parser.parse_args(arguments)
    if len(dict(chosen.fasta)) < len(chosen.fasta):
        command.error("a species is named twice; put its records into one file")
    try:
        panel = build(
            ObjectStore(),
            chosen.data_uri,
            chosen.name,
            dict(chosen.fasta),
            reads=chosen.reads,
            read_length=chosen.read_length,
            seed=chosen.seed,
        )
    except StrandloopError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    for species, of in panel["species"].items():
        print(
            f"{species}: {of['reads']} reads of {of['contigs']} contig(s), {of['contigs_too_short']} too short"
        )
    print(f"panel {chosen.name}: {panel['status']}")
    return 0


def _assignment(text: str) -> tuple[str, Path]:
    species, equals, path = text.partition("=")
    if not (species and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not SPECIES=FASTA")
    return species, Path(path)


if __name__ == "__main__":
    sys.exit(main())
