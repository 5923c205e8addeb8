"""``python -m tasks.encoders COMMAND --data-uri s3://… NAME [VERSION …]``: look into the registry, and steer it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.encoders.registry import Registry
from tasks.errors import ConflictingResult, InvalidInput, StrandloopError
from tasks.object_store import ObjectStore, ObjectUri

BY_HAND = "by a person, without a comparison"
COMPARED = ("metrics", "training", "data", "code_version", "parent")


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; one sentence and an exit status of its kind where that fails."""
    parser = argparse.ArgumentParser(prog="python -m tasks.encoders", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, versions, text in (
        ("history", 0, "versions, and moves of the current one"),
        ("batches", 0, "batches that are embedded with it, and which of them with an older version"),
        ("promote", 1, "make a version the current one"),
        ("rollback", 0, "make current what was before"),
        ("diff", 2, "fields in which the cards of two versions differ"),
    ):
        one = commands.add_parser(command, help=text)
        one.add_argument("--data-uri", required=True, help="root of all data, s3://bucket[/prefix]")
        one.add_argument("name", metavar="NAME")
        if versions:
            one.add_argument("versions", nargs=versions, metavar="VERSION")
    chosen = parser.parse_args(arguments)
    try:
        registry = Registry(ObjectStore(), ObjectUri.parse(chosen.data_uri) / "encoders")
        if chosen.command == "history":
            lines = _history(registry, chosen.name)
        elif chosen.command == "batches":
            lines = _batches(registry, chosen.name)
        elif chosen.command == "diff":
            first, second = (registry.card(chosen.name, version) for version in chosen.versions)
            lines = _differences(first, second)
        elif chosen.command == "promote":
            lines = iter([_promote(registry, chosen.name, chosen.versions[0])])
        else:
            lines = iter([_rollback(registry, chosen.name)])
        for line in lines:
            print(line)
    except StrandloopError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def _history(registry: Registry, name: str) -> Iterator[str]:
    versions, current = registry.versions(name), registry.current(name)
    if not versions:
        raise InvalidInput(f"no version of registry://{name} is registered")
    for version in versions:
        card = registry.card(name, version)
        mark = "  current" if version == current else ""
        yield f"{card['created_at']}  registered   {version}  parent {card['parent'] or '-'}{mark}"
    for move in registry.moves(name):
        yield f"{move.at}  {move.why:<11}  {move.version}  before {move.previous or '-'}  {move.reason}".rstrip()


def _batches(registry: Registry, name: str) -> Iterator[str]:
    current = registry.current(name)
    for batch_id, version in sorted(registry.uses(name).items()):
        mark = (
            "" if version == current else f"  not comparable with batches of the current version, {current}"
        )
        yield f"{batch_id}  {version}{mark}"


def _promote(registry: Registry, name: str, version: str) -> str:
    before = registry.current(name)
    if before == version:
        raise InvalidInput(f"registry://{name}@{version} is the current version already")
    if not registry.promote(name, version, expected=before, reason=BY_HAND):
        raise _lost(registry, name, before)
    return f"{name}: {version} is current, before it {before or 'none'}"


def _rollback(registry: Registry, name: str) -> str:
    before = registry.current(name)
    if before is None:
        raise InvalidInput(f"no version of registry://{name} is current, so there is nothing to roll back")
    if not registry.rollback(name, expected=before, reason=BY_HAND):
        raise _lost(registry, name, before)
    return f"{name}: {registry.current(name)} is current, before it {before}"


def _lost(registry: Registry, name: str, before: str | None) -> ConflictingResult:
    return ConflictingResult(
        f"nothing was changed: {registry.current(name)} took the place of {before or 'none'} meanwhile"
    )


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    one, other = (dict(_dotted({key: card.get(key) for key in COMPARED})) for card in (first, second))
    for field in sorted(one.keys() | other.keys()):
        if one.get(field) != other.get(field):
            yield f"{field}: {one.get(field, '-')} -> {other.get(field, '-')}"


def _dotted(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in fields.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


if __name__ == "__main__":
    sys.exit(main())
