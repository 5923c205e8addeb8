"""What every network here does: states for rows of tokens that are packed one after the other."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Network(nn.Module, ABC):
    """The layers of a model up to the states of the last one, without its heads."""

    dim: int
    max_tokens: int
    """The longest row that the network reads."""

    @abstractmethod
    def forward(self, ids: Tensor, lengths: list[int]) -> Tensor:
        """States of the last layer, (tokens, dim).

        :param ids: int64 (tokens,): the tokens of all rows, one row after the other, without padding.
        :param lengths: tokens of each row, longest first, none of them 0.
        """
