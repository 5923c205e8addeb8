"""3' adapters, found as ``cutadapt -a`` finds them, at the price of the few reads that have one."""

from __future__ import annotations

import numba
import numpy as np

from tasks.errors import InvalidInput

ERROR_RATE = 0.1
MIN_OVERLAP = 3

_CODES = "A=A C=C G=G T=T U=T R=AG Y=CT S=CG W=AT K=GT M=AC B=CGT D=AGT H=ACT V=ACG N=ACGT"
_BASES_OF_CODE = dict(code.split("=") for code in _CODES.split())
_WORD_BITS = 64


def check_adapter(adapter: str) -> None:
    """Raise :class:`InvalidInput` unless ``adapter`` is empty (none) or a sequence that can be looked for."""
    wrong = sorted(set(adapter.upper()) - set(_BASES_OF_CODE))
    if wrong:
        raise InvalidInput(
            f"adapter {adapter!r} has {', '.join(map(repr, wrong))}, which is no IUPAC base code; give the plain "
            "sequence, without cutadapt's signs for other kinds of adapters"
        )
    if adapter and not adapter.upper().strip("N"):
        raise InvalidInput(
            f"adapter {adapter!r} has no base that could be recognised; leave it empty for none"
        )


def trim_adapter(adapter: str, sequence: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> int:
    """Cut each read where the adapter begins; gives the number of reads that have it.

    The same reads are cut at the same place as by ``cutadapt -a`` with its defaults: at most one error (a
    mismatch, insertion or deletion) in ten bases of the adapter, at least 3 bases of it, IUPAC codes in the
    adapter match their bases, N in a read matches none. A read that is one adapter is left with no base.

    A bit-parallel scan finds the reads in which the adapter's edit distance allows a match, and cutadapt's own
    aligner decides about those. The scan never misses a match, because an alignment cannot have fewer errors
    than the edit distance.

    :param sequence: uint8, ASCII ``ACGTN`` of all reads.
    :param starts: int64 (reads), where each read begins.
    :param stops: int64 (reads), where it ends; changed in place.
    """
    # Only where there is an adapter: the import takes 0.1 s.
    from cutadapt.adapters import BackAdapter

    finder = BackAdapter(adapter, max_errors=ERROR_RATE, min_overlap=MIN_OVERLAP)
    candidates = np.flatnonzero(_candidates(sequence, starts, stops, *_scan_of(finder.sequence)))
    text = memoryview(sequence)
    found = 0
    for read in candidates.tolist():
        start = int(starts[read])
        match = finder.match_to(str(text[start : stops[read]], "ascii"))
        if match is not None:
            stops[read] = start + match.rstart
            found += 1
    return found


def _scan_of(adapter: str) -> tuple[np.ndarray, np.ndarray, int]:
    """What :func:`_candidates` wants to know of an adapter.

    Of an adapter longer than a machine word its beginning is looked for, with the errors of the whole.

    :return: uint64 (128), for each ASCII base the places in the adapter that match it; int64, the errors
        allowed in the first 0, 1, 2, … bases of the adapter where the read ends there, -1 where they are too
        few to count; and the errors allowed within the read.
    """
    scanned = adapter[:_WORD_BITS]
    places = np.zeros(128, dtype=np.uint64)
    for place, code in enumerate(scanned):
        for base in _BASES_OF_CODE[code]:
            places[ord(base)] |= np.uint64(1 << place)
    allowed = np.array([int(ERROR_RATE * length + 1e-9) for length in range(len(scanned) + 1)])
    allowed[: min(MIN_OVERLAP, len(adapter))] = -1
    return places, allowed, int(ERROR_RATE * len(adapter) + 1e-9)


@numba.njit(nogil=True)
def _candidates(
    sequence: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    places: np.ndarray,
    allowed: np.ndarray,
    allowed_within: int,
) -> np.ndarray:
    """Which reads hold the adapter within the allowed edit distance, bool (reads).

    Myers 1999, "A fast bit-vector algorithm for approximate string matching", in Hyyrö's form: bit ``i`` of
    ``rises`` and ``falls`` says whether the distance grows or shrinks by one from the first ``i`` to the first
    ``i + 1`` bases of the adapter, for the best alignment that ends at this base of the read.
    """
    size = len(allowed) - 1
    one = np.uint64(1)
    last = one << np.uint64(size - 1)
    found = np.zeros(len(starts), dtype=np.bool_)
    for read in range(len(starts)):
        rises, falls = ~np.uint64(0), np.uint64(0)
        distance = size
        for i in range(starts[read], stops[read]):
            match = places[sequence[i]]
            vertical = match | falls
            horizontal = (((match & rises) + rises) ^ rises) | match
            grows = falls | ~(horizontal | rises)
            shrinks = rises & horizontal
            if grows & last:
                distance += 1
            elif shrinks & last:
                distance -= 1
                if distance <= allowed_within:
                    found[read] = True
                    break
            grows <<= one
            shrinks <<= one
            rises = shrinks | ~(vertical | grows)
            falls = grows & vertical
        if not found[read]:
            distance = 0
            for length in range(1, size + 1):
                bit = np.uint64(length - 1)
                distance += np.int64((rises >> bit) & one) - np.int64((falls >> bit) & one)
                if distance <= allowed[length]:
                    found[read] = True
                    break
    return found
