"""``python -m infra.package``: build the packages, and upload them."""

from __future__ import annotations

import argparse
import hashlib
import sys

from infra.package.build import DIST, build


def main(arguments: list[str] | None = None) -> int:
    """Command line; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m infra.package", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="write dist/ anew")
    upload = commands.add_parser("publish", help="write dist/ anew and upload it; nothing is overwritten")
    upload.add_argument("bucket", help="name of an S3 bucket, or s3://bucket/prefix")
    options = parser.parse_args(arguments)

    files = build()
    if options.command == "build":
        for path in files:
            content = path.read_bytes()
            print(
                f"{hashlib.sha256(content).hexdigest()}  {path.relative_to(DIST.parent)}  {len(content)} bytes"
            )
        return 0
    return _publish(options.bucket)


def _publish(bucket: str) -> int:
    # boto3 takes its time, and building needs none of it.
    from infra.package.publish import publish
    from tasks.errors import InvalidInput, StorageError
    from tasks.object_store import ObjectStore, ObjectUri

    try:
        target = ObjectUri.parse(bucket if "://" in bucket else f"s3://{bucket}")
        for done in publish(DIST, target, ObjectStore()):
            sha256 = hashlib.sha256(done.path.read_bytes()).hexdigest()
            print(f"{'uploaded' if done.is_new else 'was there'}  {done.uri}  SHA-256 {sha256}")
    except (InvalidInput, StorageError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
