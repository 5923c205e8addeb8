"""``python3 -m infra.setup``: make this checkout ready for ``make up``; quick when nothing has changed."""

from __future__ import annotations

import argparse
import sys

SUPPORTED = ((3, 11), (3, 12))


def main(arguments: list[str] | None = None) -> int:
    """Install what is missing; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m infra.setup", description=__doc__)
    parser.add_argument(
        "--with",
        dest="extra",
        action="append",
        default=[],
        choices=["accounting", "parallelcluster"],
        help="install this as well",
    )
    options = parser.parse_args(arguments)
    if sys.version_info[:2] not in SUPPORTED:
        found = ".".join(map(str, sys.version_info[:3]))
        print(
            f"Strandloop runs on Python 3.11 and 3.12, and this is {found}; "
            "name another one: PYTHON=python3.12 make setup",
            file=sys.stderr,
        )
        return 1
    # Imported late, so that an older Python gets as far as the message above.
    from infra.setup import environments, samples, system_packages
    from infra.setup.commands import SetupError

    with_parallelcluster = "parallelcluster" in options.extra
    try:
        changed = [
            system_packages.install_missing(
                with_accounting="accounting" in options.extra, with_parallelcluster=with_parallelcluster
            ),
            environments.build_changed(with_parallelcluster=with_parallelcluster),
            samples.fetch_missing(),
        ]
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    if any(changed):
        print("setup is complete")
    return 0


if __name__ == "__main__":
    sys.exit(main())
