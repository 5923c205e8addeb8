"""``sketch://``: signed feature hashing of canonical k-mers; untrained, and the fastest encoder here.

Every k-mer adds +1 or -1 to one of ``dim`` columns; a hash of the k-mer decides both. The dot product of two
sketches estimates, without bias, that of the two k-mer counts, so reads that overlap are near each other. Feature
hashing: Weinberger et al., ICML 2009. Its use on k-mers of reads: LSHvec (Shi & Chen, BCB 2021), which hashes
k-mers into a table of vectors that it then trains; here the columns are taken as they are.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa

from tasks.compiled import compiled
from tasks.encoders.sequences import BASE_CODES, Sequences
from tasks.errors import InvalidEncoder

if TYPE_CHECKING:
    from tasks.encoders.protocol import EncoderUri

ALGORITHM = "signed canonical k-mer hashing 1"
DEFAULT_K = (
    11  # finds more overlaps of 150 bp reads than 13 to 21 do; shorter ones meet by chance in large genomes
)
MIN_K, MAX_K = 4, 31
MIN_DIM, MAX_DIM = 8, 16_384


class KmerSketch:
    """``sketch://DIM?k=K``; a read and its reverse complement have the same vector.

    A read without any k-mer (shorter than k, or broken by N) gets the vector whose columns are all equal.
    """

    strand_symmetric = True

    def __init__(self, *, dim: int, k: int = DEFAULT_K) -> None:
        self.dim = dim
        self.k = k
        self.uri = f"sketch://{dim}?k={k}"
        self.revision = hashlib.sha256(f"{ALGORITHM}, dim={dim}, k={k}".encode()).hexdigest()

    @classmethod
    def from_address(cls, address: EncoderUri) -> Self:
        """Raises InvalidEncoder where width or k is out of bounds, and for other options."""
        dim, k = int(address.target), address.options.get("k", str(DEFAULT_K))
        known = not address.options.keys() - {"k"} and k.isdecimal()
        if not known or not MIN_DIM <= dim <= MAX_DIM or not MIN_K <= int(k) <= MAX_K:
            raise InvalidEncoder(
                f"{address}: a sketch has {MIN_DIM} to {MAX_DIM} columns and k-mers of {MIN_K} to {MAX_K} bases, "
                "and nothing else can be chosen; for example sketch://256?k=11"
            )
        return cls(dim=dim, k=int(k))

    def encode(self, reads: pa.Table) -> np.ndarray:
        """See :meth:`tasks.encoders.protocol.Encoder.encode`."""
        sequences = Sequences.from_arrow(reads["sequence"])
        vectors = np.zeros((len(sequences), self.dim), dtype=np.float32)
        _sketch(sequences.bases, sequences.offsets, BASE_CODES, self.k, vectors)
        return vectors


@compiled
def _sketch(
    bases: np.ndarray, offsets: np.ndarray, base_codes: np.ndarray, k: int, vectors: np.ndarray
) -> None:
    dim = np.uint64(vectors.shape[1])
    mask = np.uint64((1 << (2 * k)) - 1)
    complement_shift = np.uint64(2 * (k - 1))
    one, two, three, word = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(32)
    for row in range(len(offsets) - 1):
        vector = vectors[row]
        forward, reverse, run = np.uint64(0), np.uint64(0), 0
        for i in range(offsets[row], offsets[row + 1]):
            code = np.uint64(base_codes[bases[i]])
            if code > three:
                run = 0
                continue
            forward = ((forward << two) | code) & mask
            reverse = (reverse >> two) | ((three - code) << complement_shift)
            run += 1
            if run >= k:
                hashed = _mixed(min(forward, reverse))
                sign = np.float32(1) - np.float32(2) * np.float32(hashed & one)
                vector[((hashed >> word) * dim) >> word] += sign
        square = np.float32(0)
        for value in vector:
            square += value * value
        if square > 0:
            vector *= np.float32(1) / np.sqrt(square)
        else:
            vector[:] = np.float32(1) / np.sqrt(np.float32(len(vector)))


@compiled
def _mixed(value: np.uint64) -> np.uint64:
    """The finaliser of SplitMix64 (Steele et al., OOPSLA 2014): every bit of the k-mer reaches every bit."""
    value += np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
