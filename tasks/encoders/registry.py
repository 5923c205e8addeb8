"""The encoder registry: versions that never change, and one pointer that moves by conditional write.

``encoders/<name>/<version>/`` holds ``config.json``, ``model.safetensors``, tokenizer files where there are
any, ``replay.parquet``, and ``card.json``, written last: a version without a card does not exist. It is called
``v<generation>-<first 8 hex digits of the SHA-256 of its weights>``, so the same weights from the same parent
are the same version however often they are registered. ``encoders/<name>/current.json`` names the promoted one,
``encoders/<name>/batches/`` the version that each batch is embedded with.

The pointer also holds its own moves. In a second object they could disagree with it after an interruption; so a
move and its record are one conditional write. The last MOVES_KEPT are kept, about 200 bytes each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.encoders.node_cache import on_this_node
from tasks.errors import InvalidEncoder, InvalidInput
from tasks.object_store import ObjectStore, ObjectUri

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "card.json"
MOVES_KEPT = 500
PROMOTED, ROLLED_BACK = "promoted", "rolled back"


@dataclass(frozen=True)
class Move:
    """One move of the pointer: ``at`` in UTC, ISO 8601 to the second; ``why`` is PROMOTED or ROLLED_BACK."""

    version: str
    previous: str | None
    at: str
    why: str
    reason: str


class Registry:
    """Registered encoders below one prefix."""

    def __init__(self, store: ObjectStore, encoders: ObjectUri) -> None:
        self._store = store
        self._root = encoders

    def current(self, name: str) -> str | None:
        """The promoted version, or None where nothing was promoted yet."""
        try:
            return str(self._store.get_json(self._pointer(name))["version"])
        except FileNotFoundError:
            return None

    def card(self, name: str, version: str) -> dict[str, Any]:
        """What is known of a version; raises :class:`InvalidEncoder` where there is no such version."""
        try:
            card: dict[str, Any] = self._store.get_json(self._root / name / version / CARD_FILE)
        except FileNotFoundError as error:
            raise InvalidEncoder(
                f"there is no encoder registry://{name}@{version} below {self._root}"
            ) from error
        return card

    def register(self, name: str, directory: Path, card: Mapping[str, Any], parent: str | None) -> str:
        """Store the encoder in ``directory`` as a new version, and give the version's name.

        :param card: data, training, metrics and the like; name, version, parent, created_at and the
            checksums of all files are added here.
        :param parent: the version it was trained from, or None for a first one.
        """
        files = {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file()}
        missing = {CONFIG_FILE, WEIGHTS_FILE} - files.keys()
        if missing:
            raise InvalidEncoder(f"{directory} holds no encoder: {', '.join(sorted(missing))} is missing")
        checksums = {file: hashlib.sha256(body).hexdigest() for file, body in files.items()}
        version = f"v{_generation(parent) + 1}-{checksums[WEIGHTS_FILE][:8]}"
        place = self._root / name / version
        if self._store.head(place / CARD_FILE) is not None:
            return version
        for file, body in files.items():
            self._store.put_bytes(place / file, body)
        complete = {
            **card,
            "name": name,
            "version": version,
            "parent": parent,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "files": checksums,
        }
        self._store.put_json(place / CARD_FILE, complete, if_absent=True)
        return version

    def promote(self, name: str, version: str, expected: str | None, reason: str = "") -> bool:
        """Make ``version`` the current one if ``expected`` still is; False where somebody moved it first."""
        self.card(name, version)
        return self._move(name, version, expected, self._read(name), PROMOTED, reason)

    def rollback(self, name: str, expected: str, reason: str = "") -> bool:
        """Make current what was before ``expected``; False where somebody moved the pointer first.

        A second rollback goes one further back. Raises InvalidInput where nothing was current before.
        """
        pointer, etag = self._read(name)
        if pointer is None or pointer["version"] != expected:
            return False
        stack = _promoted(_moves(pointer))
        if len(stack) < 2:
            raise InvalidInput(
                f"nothing was current before registry://{name}@{expected}: it cannot be rolled back"
            )
        self.card(name, stack[-2])
        return self._move(name, stack[-2], expected, (pointer, etag), ROLLED_BACK, reason)

    def moves(self, name: str) -> list[Move]:
        """The moves of the pointer, oldest first; none of those made before moves were recorded."""
        return _moves(self._read(name)[0])

    def versions(self, name: str) -> list[str]:
        """Every registered version, by the time it was registered."""
        places = (info.uri.key.split("/") for info in self._store.list(self._root / name))
        found = [key[-2] for key in places if key[-1] == CARD_FILE]
        return sorted(found, key=lambda version: (self.card(name, version)["created_at"], version))

    def note_use(self, name: str, version: str, batch_id: str) -> None:
        """Keep with the encoder that a batch is embedded with this version; its former version is forgotten."""
        self._store.put_json(self._root / name / "batches" / f"{batch_id}.json", {"version": version})

    def uses(self, name: str) -> dict[str, str]:
        """The version that each batch is embedded with. Vectors of two versions are not comparable."""
        objects = [info.uri for info in self._store.list(self._root / name / "batches")]
        return {uri.name.removesuffix(".json"): str(self._store.get_json(uri)["version"]) for uri in objects}

    def _read(self, name: str) -> tuple[dict[str, Any] | None, str | None]:
        try:
            body, etag = self._store.get_versioned(self._pointer(name))
        except FileNotFoundError:
            return None, None
        return json.loads(body), etag

    def _move(
        self,
        name: str,
        version: str,
        expected: str | None,
        read: tuple[dict[str, Any] | None, str | None],
        why: str,
        reason: str,
    ) -> bool:
        pointer, etag = read
        if (pointer["version"] if pointer else None) != expected:
            return False
        move = Move(version, expected, datetime.now(UTC).isoformat(timespec="seconds"), why, reason)
        moves = [asdict(each) for each in [*_moves(pointer), move][-MOVES_KEPT:]]
        moved = {"version": version, "moves": moves}
        return self._store.put_json(self._pointer(name), moved, if_absent=etag is None, if_match=etag)

    def on_this_node(self, name: str, version: str) -> Path:
        """A directory with a version's files, downloaded once per node; see :meth:`fetch` for what it raises."""
        files = self.card(name, version)["files"]
        content = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
        return on_this_node(
            f"registry/{name}/{version}-{content[:16]}", lambda into: self.fetch(name, version, into)
        )

    def fetch(self, name: str, version: str, into: Path) -> None:
        """Download a version's files; raises InvalidEncoder where one is missing or its checksum differs."""
        for file, expected in self.card(name, version)["files"].items():
            source = self._root / name / version / file
            try:
                found = self._store.download(source, into / file)
            except FileNotFoundError as error:
                raise InvalidEncoder(f"{source} is missing, although its card names it") from error
            if found != expected:
                raise InvalidEncoder(
                    f"{source} has SHA-256 {found}, but its card says {expected}: it was changed or damaged "
                    "after it was registered"
                )

    def _pointer(self, name: str) -> ObjectUri:
        return self._root / name / "current.json"


def _generation(version: str | None) -> int:
    return int(version.partition("-")[0][1:]) if version else 0


def _moves(pointer: Mapping[str, Any] | None) -> list[Move]:
    return [Move(**move) for move in (pointer or {}).get("moves", [])]


def _promoted(moves: list[Move]) -> list[str]:
    """The promotions that still stand, the current one last."""
    stack = [moves[0].previous] if moves and moves[0].previous else []
    for move in moves:
        if move.why == PROMOTED:
            stack.append(move.version)
        else:
            # The oldest moves may be forgotten: a rollback to before them leaves what it went to.
            stack = stack[:-1] if stack[-2:-1] == [move.version] else [move.version]
    return stack
