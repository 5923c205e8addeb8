"""Tiles on an accelerator by torch: the device proposes pairs, this processor scores them.

The blocks, lists and answers are those of the processor, whatever the device's arithmetic: float32 products (with
TF32 off) are tested on the device against the thresholds at the start of a tile; the pairs that pass come back, are
scored and put into the lists by compare.c. forms.py proves that none is lost: its bound for float32 holds for
any order of additions. Until a row has k neighbours, the k-th largest of the least scores that a tile's proposals
can stand for is its threshold: so many rows are sure to reach it. Devices want large tiles, 4096 rows or more; a
tile takes some 20 bytes a pair on the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from ctypes import byref
from importlib import import_module
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from hpc_jobs.mpi_dna_seq import build
from hpc_jobs.mpi_dna_seq.tiles import Block, Comparison, Metric

OFFSET_SLACK = 2.0**-19  # offsets hold 2^-20 of themselves more than is true
UNDERFLOW = 2.0**-125


class DeviceError(Exception):
    """torch is not installed, or the device is not there."""


class DeviceComparison(Comparison):
    """Products on a torch device such as "cuda" or "cpu", in float32. Made by :func:`tiles.comparison`.

    :raises DeviceError: torch or the device is missing.
    """

    def __init__(
        self, dim: int, *, tile: int, between: Callable[[int], None], metric: Metric, device: str
    ) -> None:
        super().__init__(dim, tile=tile, between=between, metric=metric, precision="fp32")
        try:
            self._torch = import_module("torch")
            self._device = self._torch.device(device)
            self._torch.zeros(1, device=self._device)
        except (ImportError, RuntimeError, AssertionError) as error:
            raise DeviceError(
                f"the device {device!r} cannot be used: {error}; leave --device out to compare on the processor"
            ) from error
        self._torch.backends.cuda.matmul.allow_tf32 = False
        self._on_device: WeakKeyDictionary[Block, tuple[Any, ...]] = WeakKeyDictionary()

    def _compare_tile(
        self, rows: Block, top: int, bottom: int, columns: Block, left: int, right: int
    ) -> None:
        began = time.perf_counter()
        torch = self._torch
        x, x_error, x_length, x_offset = (array[top:bottom] for array in self._moved(rows))
        y, y_error, y_length, y_offset = (array[left:right] for array in self._moved(columns))
        factor = 2 if self._distance else 1
        slack = factor * (torch.outer(x_error, y_length) + torch.outer(x_length, y_error))
        most = factor * (x @ y.T) + (x_offset[:, None] + y_offset) + slack
        slack += OFFSET_SLACK * (x_offset.abs()[:, None] + y_offset.abs()) + UNDERFLOW
        least = most - 2 * slack
        if rows is columns:
            numbers = torch.arange(max(bottom, right), device=self._device)
            taken = numbers[top:bottom, None] < numbers[left:right]
            least = torch.where(taken, least, -torch.inf)
            most = torch.where(taken, most, torch.nan)  # which reaches nothing
        row_limit, column_limit = (
            self._limit(rows, top, bottom, least),
            self._limit(columns, left, right, least.T),
        )
        hits = torch.nonzero((most >= row_limit[:, None]) | (most >= column_limit)).cpu().numpy()
        row, column = np.ascontiguousarray(hits[:, 0] + top), np.ascontiguousarray(hits[:, 1] + left)
        tally = build.Tally()
        self._kernel.score_pairs(
            byref(self._side(rows)),
            byref(self._side(columns)),
            row.ctypes.data,
            column.ctypes.data,
            len(hits),
            self._distance,
            self._dim,
            rows.best.k,
            byref(tally),
        )
        self.pairs_scored += tally.scored
        self.merge_seconds += tally.merge_seconds
        self.product_seconds += time.perf_counter() - began - tally.merge_seconds

    def _moved(self, block: Block) -> tuple[Any, ...]:
        """Vectors, errors, lengths and offsets of a block, on the device as long as the block lives."""
        if block not in self._on_device:
            form = self._form(block)
            self._on_device[block] = tuple(
                self._torch.from_numpy(array[: len(block.vectors)]).to(self._device)
                for array in (block.vectors, form.error, form.length, form.offset)
            )
        return self._on_device[block]

    def _limit(self, block: Block, start: int, stop: int, least: Any) -> Any:
        """What a proposal for a row must reach: its threshold, or while there is none the k-th of this tile."""
        limit = self._torch.from_numpy(block.best.thresholds[start:stop]).to(self._device)
        k = block.best.k
        if least.shape[1] < k or not bool(self._torch.isinf(limit).any()):
            return limit
        return self._torch.maximum(limit, least.topk(k, dim=1).values[:, -1])
