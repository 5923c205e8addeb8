from __future__ import annotations

import numpy as np
import pytest

from hpc_jobs.align_pairs.pairs import owners


@pytest.mark.parametrize("step", [1, 2, 64, 1_000_003])
@pytest.mark.parametrize("ranks", [1, 4, 7])
def test_every_rank_gets_its_share_of_pairs_however_they_are_spaced(step: int, ranks: int) -> None:
    rows = np.arange(0, 40_000 * step, step, dtype=np.int64)
    shares = np.bincount(owners(rows, rows + step, ranks), minlength=ranks)
    assert len(shares) == ranks
    assert shares.min() > 0.95 * len(rows) / ranks
