"""``python -m tasks.landing put``: land files of reads as one batch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tasks.batches import Batch
from tasks.errors import StrandloopError
from tasks.landing.upload import put


def main() -> int:
    """Read the command line, land the files; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tasks.landing", description=__doc__)
    command = parser.add_subparsers(required=True).add_parser("put", help="land files of reads as one batch")
    command.add_argument("--data-uri", required=True, help="root of all data, for example s3://strandloop")
    command.add_argument("--batch-id", required=True, help="for example 2026-11-20")
    command.add_argument("--sample", help="name of the sample, where one file or one pair is given")
    command.add_argument(
        "--interleaved", action="store_true", help="each file holds one pair after the other"
    )
    command.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="FASTQ, FASTA or unaligned BAM; plain, gzip or zstd; the two files of a pair are known by their names",
    )
    options = parser.parse_args()
    try:
        put(
            options.files,
            Batch(options.data_uri, options.batch_id),
            sample=options.sample,
            interleaved=options.interleaved,
        )
    except (StrandloopError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
