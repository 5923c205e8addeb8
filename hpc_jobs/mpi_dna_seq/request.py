"""What a run of the kernel is asked for: the options of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from hpc_jobs.mpi_dna_seq.cells import NPROBE, Cells
from hpc_jobs.mpi_dna_seq.tiles import Comparison, Metric, Precision, comparison

SAVED = 75
"""Exit status of a run that was told to stop and has saved what it had: start it again, and it goes on."""


@dataclass(frozen=True)
class Request:
    """What is to be computed, and how; the fields are the options of the command line.

    :param metric: see :func:`hpc_jobs.mpi_dna_seq.tiles.comparison`; so are precision and device.
    :param replication: rings that hold all vectors each and share the steps.
    :param ranks_per_member: None: the ranks of a node are one member of the ring.
    :param checkpoint: directory; None: nothing is saved.
    :param approximate: look in the nearest ``nprobe`` of so many ``cells`` only; None: see :meth:`cells_for`.
    """

    store: Path
    out: Path
    k: int = 10
    metric: Metric = "cosine"
    precision: Precision = "fp32"
    device: str | None = None
    tile: int = 512
    replication: int = 1
    ranks_per_member: int | None = None
    checkpoint: Path | None = None
    checkpoint_seconds: float = 60.0
    approximate: bool = False
    cells: int | None = None
    nprobe: int | None = None

    @classmethod
    def parse(cls, arguments: list[str]) -> Request:
        """From the command line; ends the program where it makes no sense."""
        parser = _parser()
        options = parser.parse_args(arguments)
        if not options.approximate and (options.cells or options.nprobe):
            parser.error("--cells and --nprobe go with --approximate")
        if options.approximate and options.metric == "dot":
            parser.error(
                "--approximate goes with cosine and l2: cells of near vectors do not serve the dot product"
            )
        return cls(**vars(options))

    def comparison(self, dim: int, between: Callable[[int], None]) -> Comparison:
        """A comparison as it was asked for."""
        return comparison(
            metric=self.metric,
            precision=self.precision,
            device=self.device,
            dim=dim,
            tile=self.tile,
            between=between,
        )

    def cells_for(self, rows: int) -> Cells | None:
        """The cells of an approximate search, or None; raises CellsError where so many there cannot be."""
        return Cells.of(rows, cells=self.cells, nprobe=self.nprobe) if self.approximate else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hpc_jobs.mpi_dna_seq",
        description="Exact k nearest neighbours of all against all.",
        epilog=f"Exit status: 0 done, 1 refused or failed, {SAVED} told to stop (SIGUSR1 or SIGTERM) and saved: "
        "start it again with the same options and ranks.",
    )
    parser.add_argument("--store", type=Path, required=True, help="directory of an embedding store")
    parser.add_argument("--out", type=Path, required=True, help="directory for the neighbours")
    parser.add_argument("--k", type=_positive, default=10, help="neighbours per read (default 10)")
    parser.add_argument(
        "--metric",
        choices=get_args(Metric),
        default="cosine",
        help="the score: cosine (default), dot product, or l2: minus the squared distance",
    )
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="fp32",
        help="of the product that proposes pairs (default fp32); the answer is the same",
    )
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="multiply on this torch device, such as cuda (default: this processor)",
    )
    parser.add_argument("--tile", type=_positive, default=512, help="rows of a tile (default 512)")
    parser.add_argument(
        "--replication",
        type=_positive,
        default=1,
        metavar="C",
        help="rings that hold all vectors each and share the work: C times the memory, fewer messages (default 1)",
    )
    parser.add_argument(
        "--ranks-per-member",
        type=_positive,
        metavar="R",
        help="ranks that share memory and are one member of the ring, such as those of a NUMA domain "
        "(default: all of a node)",
    )
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="save there, and go on from there")
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="between two checkpoints (default 60)",
    )
    parser.add_argument(
        "--approximate", action="store_true", help="compare within cells of near vectors; measures its recall"
    )
    parser.add_argument(
        "--cells", type=_positive, metavar="C", help="cells that k-means makes (default: square root of rows)"
    )
    parser.add_argument(
        "--nprobe", type=_positive, metavar="n", help=f"nearest cells of a row (default {NPROBE})"
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)
