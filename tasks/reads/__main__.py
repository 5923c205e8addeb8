"""``python -m tasks.reads check FILE [MATE]``: is a sample's file, or pair of files, fit to be landed."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from tasks.errors import InvalidInput
from tasks.reads.check import check_files
from tasks.reads.layouts import QUALITY_OFFSETS
from tasks.reads.quality import QualityFilter

# The defaults are those of the DAG genomics_batch.
_QUALITY = {
    "trim_quality": (int, 20, "3' ends below it are cut (Phred)"),
    "min_length": (int, 40, "shortest read kept after trimming (bases)"),
    "min_mean_quality": (float, 20, "lowest mean base quality kept after trimming (Phred)"),
    "max_n_fraction": (float, 0.1, "largest fraction of N kept"),
    "adapter": (str, "", "3' adapter of single reads and first mates"),
    "adapter_mate": (str, "", "3' adapter of second mates"),
}


def main() -> int:
    """Read the command line, print the accounting; 0 clean, 1 something is wrong, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m tasks.reads", description=__doc__)
    command = parser.add_subparsers(required=True).add_parser(
        "check", help="print what becomes of every record, as JSON", description=main.__doc__
    )
    command.add_argument("file", type=Path, metavar="FILE", help="FASTQ, FASTA or BAM; plain, gzip or zstd")
    command.add_argument("mate", type=Path, nargs="?", metavar="MATE", help="the second file of a pair")
    command.add_argument("--interleaved", action="store_true", help="FILE holds one pair after the other")
    command.add_argument("--quality-encoding", choices=QUALITY_OFFSETS, help="default: found out")
    command.add_argument(
        "--remove-duplicates", action="store_true", help="of equal reads or pairs keep the first"
    )
    for name, (kind, default, text) in _QUALITY.items():
        shown = f"{text} (default: {default or 'none'})"
        command.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default, help=shown)
    options = parser.parse_args()
    if options.interleaved and options.mate:
        command.error("--interleaved is for one FILE that holds both mates")
    try:
        quality = QualityFilter(
            trim_quality=options.trim_quality,
            min_length=options.min_length,
            min_mean_quality=options.min_mean_quality,
            max_n_fraction=options.max_n_fraction,
            adapters=(options.adapter, options.adapter_mate),
        )
    except InvalidInput as error:
        command.error(str(error))
    check = check_files(
        [options.file, options.mate] if options.mate else [options.file],
        layout="interleaved" if options.interleaved else "paired" if options.mate else "single",
        quality=quality,
        remove_duplicates=options.remove_duplicates,
        quality_encoding=options.quality_encoding,
    )
    try:
        print(json.dumps(check.to_json(), indent=2), flush=True)
    except (
        BrokenPipeError
    ):  # `check FILE | head`: nobody reads the rest, and the interpreter must not try again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0 if check.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
