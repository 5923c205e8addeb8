"""3' adapters, found as ``cutadapt -a`` finds them, at the price of the few reads that have one."""

from __future__ import annotations

import numpy as np

from tasks.compiled import compiled
from tasks.errors import InvalidInput

ERROR_RATE = 0.1
MIN_OVERLAP = 3

_CODES = "A=A C=C G=G T=T U=T R=AG Y=CT S=CG W=AT K=GT M=AC B=CGT D=AGT H=ACT V=ACG N=ACGTN"
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
    adapter match their bases, N in a read only N. A read that begins with the adapter is left with no base.

    A compiled scan finds the reads in which the adapter's edit distance allows a match, and cutadapt's own
    aligner decides about those. The scan never misses a match: no alignment has fewer errors than that distance.

    :param sequence: uint8, ASCII ``ACGTN`` of all reads.
    :param starts: int64 (reads), where each read begins.
    :param stops: int64 (reads), where it ends; changed in place.
    """
    # Only where there is an adapter: the import takes 0.1 s.
    from cutadapt.adapters import BackAdapter

    finder = BackAdapter(adapter, max_errors=ERROR_RATE, min_overlap=MIN_OVERLAP)
    candidates = np.flatnonzero(_candidates(sequence, starts, stops, *_pattern(finder.sequence)))
    text = sequence.data
    found = 0
    for read in candidates.tolist():
        start = int(starts[read])
        match = finder.match_to(str(text[start : stops[read]], "ascii"))
        if match is not None:
            stops[read] = start + match.rstart
            found += 1
    return found


def _pattern(adapter: str) -> tuple[np.ndarray, np.ndarray, int, np.uint64, np.uint64]:
    """The adapter as :func:`_candidates` wants it; of a longer one the first 64 bases.

    :return: for each ASCII base, uint64 (128), the places in the adapter that match it; for the first 0, 1, 2, …
        bases of the adapter, int64, how many errors are allowed where the read ends behind them, -1 where they
        are too few to count; the errors allowed in the whole adapter; and the first and the last places of its
        pieces, of which there is one more than errors, as bits.
    """
    scanned = adapter[:_WORD_BITS]
    places = np.zeros(128, dtype=np.uint64)
    for place, code in enumerate(scanned):
        for base in _BASES_OF_CODE[code]:
            places[ord(base)] |= np.uint64(1 << place)
    allowed = np.array([int(ERROR_RATE * length + 1e-9) for length in range(len(scanned) + 1)])
    allowed[: min(MIN_OVERLAP, len(adapter))] = -1
    errors = int(ERROR_RATE * len(adapter) + 1e-9)
    pieces = min(errors + 1, len(scanned))
    cuts = [len(scanned) * piece // pieces for piece in range(pieces + 1)]
    firsts, lasts = sum(1 << cut for cut in cuts[:-1]), sum(1 << (cut - 1) for cut in cuts[1:])
    return places, allowed, errors, np.uint64(firsts), np.uint64(lasts)


@compiled
def _candidates(
    sequence: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    places: np.ndarray,
    allowed: np.ndarray,
    errors: int,
    firsts: np.uint64,
    lasts: np.uint64,
) -> np.ndarray:
    """Which reads hold the adapter within the allowed edit distance, bool (reads).

    Of an adapter's n + 1 pieces at least one is whole in a read that has it with n errors. Where none is (looked
    for all at once with Shift-And, Baeza-Yates and Gonnet 1992), only the read's end can hold the adapter's
    beginning, so the distance is computed there alone.
    """
    found = np.zeros(len(starts), dtype=np.bool_)
    for read in range(len(starts)):
        start, stop = starts[read], stops[read]
        run = ends = np.uint64(0)
        for i in range(start, stop):
            run = ((run << np.uint64(1)) | firsts) & places[sequence[i]]
            ends |= run
        if not ends & lasts:
            start = max(start, stop - (len(allowed) - 1 + errors))
        found[read] = _holds(sequence[start:stop], places, allowed, errors)
    return found


@compiled
def _holds(text: np.ndarray, places: np.ndarray, allowed: np.ndarray, errors: int) -> bool:
    """Whether the adapter is anywhere in ``text``, or its beginning at the end, with the allowed edit distance.

    Myers 1999, "A fast bit-vector algorithm for approximate string matching", in Hyyrö's form: the bits of
    ``rises`` and ``falls`` say whether the distance grows or shrinks by one with each base of the adapter, for
    the best alignment that ends at this base of the text.
    """
    one, last = np.uint64(1), np.uint64(len(allowed) - 2)
    rises, falls = ~np.uint64(0), np.uint64(0)
    distance = np.int64(len(allowed) - 1)
    for base in text:
        match = places[base]
        vertical = match | falls
        horizontal = (((match & rises) + rises) ^ rises) | match
        grows = falls | ~(horizontal | rises)
        shrinks = rises & horizontal
        distance += np.int64((grows >> last) & one) - np.int64((shrinks >> last) & one)
        if distance <= errors:
            return True
        grows <<= one
        shrinks <<= one
        rises = shrinks | ~(vertical | grows)
        falls = grows & vertical
    distance = np.int64(0)
    for length in range(1, len(allowed)):
        bit = np.uint64(length - 1)
        distance += np.int64((rises >> bit) & one) - np.int64((falls >> bit) & one)
        if distance <= allowed[length]:
            return True
    return False
