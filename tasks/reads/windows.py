"""Long reads cut into windows, so that an encoder sees pieces of one length."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tasks.errors import InvalidInput
from tasks.reads.block import ReadBlock


def cut_windows(block: ReadBlock, *, window_bases: int, overlap_bases: int) -> tuple[ReadBlock, np.ndarray]:
    """Cut every read longer than ``window_bases`` into windows of exactly that length.

    A window begins ``window_bases - overlap_bases`` after the one before it; the last one ends with the read and
    overlaps more, so that no base is left out and no window is short. A shorter read is one window.

    :param window_bases: 0 cuts nothing.
    :return: a block with one entry per window, in order of reads and starts, record numbers and names repeated
        (it accounts for no record slots); and the start of each window in its read, int32 (windows).
    :raises InvalidInput: the overlap is negative or not shorter than the window.
    """
    if window_bases and not 0 <= overlap_bases < window_bases:
        raise InvalidInput(
            f"windows of {window_bases:,} bases cannot overlap by {overlap_bases:,}; "
            "the overlap must be 0 or more and shorter than the window"
        )
    lengths = np.diff(block.offsets)
    if not window_bases or not (lengths > window_bases).any():
        return block, np.zeros(len(block), dtype=np.int32)
    step = window_bases - overlap_bases
    beyond = np.maximum(lengths - window_bases, 0)  # the last window's start
    counts = 1 - (-beyond // step)
    reads = np.repeat(np.arange(len(block)), counts)
    place = np.arange(len(reads)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = np.minimum(place * step, beyond[reads])
    sizes = np.minimum(lengths, window_bases)[reads]
    offsets = np.zeros(len(reads) + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    begins = block.offsets[reads] + starts
    cuts = [slice(start, end) for start, end in zip(begins.tolist(), (begins + sizes).tolist(), strict=True)]
    windows = replace(
        block,
        record_numbers=block.record_numbers[reads],
        names=[block.names[read] for read in reads.tolist()],
        sequence=np.concatenate([block.sequence[cut] for cut in cuts]),
        quality=np.concatenate([block.quality[cut] for cut in cuts]),
        offsets=offsets,
    )
    return windows, starts.astype(np.int32)
