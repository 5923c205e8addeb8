"""Checkpoints of a training, so that one that was interrupted goes on and ends with the same weights."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tasks.encoders.model import EncoderModel
from tasks.errors import StorageError
from tasks.learning.pairs import PairSource
from tasks.learning.workers import Workers
from tasks.object_store import ObjectStore, ObjectUri

if TYPE_CHECKING:
    from tasks.learning.contrastive import TrainingPlan


@dataclass
class TrainingState:
    """Everything that the rest of a training depends on, besides its plan and its pairs.

    :param random: what pairs are drawn from; torch's own generators are part of the state, too.
    :param losses: of the steps that are done.
    :param earlier_seconds: that other processes had spent on them.
    """

    model: EncoderModel
    optimizer: torch.optim.Optimizer
    random: np.random.Generator
    workers: Workers
    losses: list[float] = field(default_factory=list)
    earlier_seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Spent on the training until now."""
        return self.earlier_seconds + time.monotonic() - self.started

    def to_bytes(self) -> bytes:
        """The state for :meth:`restore`; of several workers, which all have to call this, that of all."""
        generators: dict[str, Any] = {
            "numpy": self.random.bit_generator.state,
            "torch": torch.random.get_rng_state(),
        }
        if self.model.device.type == "cuda":
            generators["cuda"] = torch.cuda.get_rng_state(self.model.device)
        saved = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": self.workers.from_all(generators),
            "losses": self.losses,
            "seconds": self.seconds,
        }
        body = io.BytesIO()
        torch.save(saved, body)
        return body.getvalue()

    def restore(self, body: bytes) -> None:
        """Take over what :meth:`to_bytes` gave to as many workers."""
        saved = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        generators = saved["generators"][self.workers.rank]
        self.random.bit_generator.state = generators["numpy"]
        torch.random.set_rng_state(generators["torch"])
        if "cuda" in generators and self.model.device.type == "cuda":
            torch.cuda.set_rng_state(generators["cuda"], self.model.device)
        self.losses[:] = saved["losses"]
        self.earlier_seconds = saved["seconds"]


class Checkpoints:
    """The newest state of a training, one object below ``prefix``, named after what is trained, and how.

    :param every_seconds: between two saves.
    """

    def __init__(self, store: ObjectStore, prefix: ObjectUri, *, every_seconds: float) -> None:
        self._store = store
        self._prefix = prefix
        self._every_seconds = every_seconds
        self._uri = prefix / "unnamed"
        self._saved = time.monotonic()

    def resume(self, state: TrainingState, pairs: PairSource, plan: TrainingPlan) -> None:
        """Make ``state``, that of a training before its first step, the newest one that was saved, if any was.

        Of a training with another plan, other pairs, weights, code or number of workers nothing is taken.
        """
        self._uri = self._prefix / f"{fingerprint(state, pairs, plan)}.pt"
        body = None
        if state.workers.rank == 0:
            with contextlib.suppress(FileNotFoundError):
                body = self._store.get_bytes(self._uri)
        body = state.workers.from_first(body)
        if body is not None:
            state.restore(body)
        self._saved = time.monotonic()

    def save_if_due(self, state: TrainingState, *, at_end: bool) -> None:
        """Replace the state now and then, and at the end of the training.

        Where it cannot be stored, the older one stays and the training goes on.
        """
        is_due = time.monotonic() - self._saved >= self._every_seconds
        if not (at_end or state.workers.from_first(is_due)):
            return
        self._saved = time.monotonic()
        body = state.to_bytes()
        if state.workers.rank == 0:
            try:
                self._store.put_bytes(self._uri, body)
            except StorageError as error:
                print(f"the training goes on, but its checkpoint cannot be stored: {error}", flush=True)

    def clear(self) -> None:
        """Remove everything below the prefix: the training's result is stored."""
        for info in list(self._store.list(self._prefix)):
            self._store.delete(info.uri)


def fingerprint(state: TrainingState, pairs: PairSource, plan: TrainingPlan) -> str:
    """The same for the same plan, pairs, weights, code and number of workers.

    The pairs are known by how many there are and by one step's draw, which other reads or pairs would change.
    """
    drawn = pairs.draw(np.random.default_rng(plan.seed), plan.pairs_per_step)
    known = (_code_version(), asdict(plan), state.workers.count, pairs.names, len(pairs))
    digest = hashlib.sha256(repr(known).encode())
    for name, weights in state.model.state_dict().items():
        digest.update(name.encode() + weights.cpu().numpy().tobytes())
    for sequences in (drawn.left, drawn.right):
        digest.update(sequences.offsets.tobytes() + sequences.bases.tobytes())
    return digest.hexdigest()[:16]


@functools.cache
def _code_version() -> str:
    """Asked for once: files that are replaced meanwhile do not change what this process runs."""
    from tasks.learning.card import code_version  # the card knows the training, so not above

    return code_version()
