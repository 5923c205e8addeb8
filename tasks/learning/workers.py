"""The processes that train one encoder together: what they share, and what one of them says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import distributed

T = TypeVar("T")


@dataclass(frozen=True)
class Workers:
    """This process among the workers of a training. Alone, it is the first of one and waits for nobody.

    :param rank: 0 is the first worker, which alone evaluates, registers and publishes.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def present(cls) -> Workers:
        """The workers that torch.distributed was set up for; this process alone where it was not."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    def average_gradients(self, model: torch.nn.Module) -> None:
        """Replace every gradient by its mean over the workers, in one exchange (3 MB for ``kmer-mlp``)."""
        if self.count == 1:
            return
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(together)
        together /= self.count
        means = together.split([gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))

    def from_first(self, value: T) -> T:
        """What the first worker has for ``value``; all workers have to ask."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def from_all(self, value: Any) -> list[Any]:
        """What every worker has for ``value``, by rank; all workers have to ask."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values
