"""``?average=reverse-complement``: one vector for both strands of a read."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa

from tasks.encoders.protocol import Encoder
from tasks.encoders.sequences import Sequences
from tasks.errors import InvalidEncoder

AVERAGE = "reverse-complement"


class StrandAverage:
    """The normalised mean of an encoder's vectors of a read and of its reverse complement; takes twice the time."""

    strand_symmetric = True

    def __init__(self, encoder: Encoder, average: str = AVERAGE) -> None:
        """Raises InvalidEncoder for another ``average``, and for an encoder that needs none."""
        if average != AVERAGE:
            raise InvalidEncoder(f"{encoder.uri}: average={average} is unknown; write average={AVERAGE}")
        if encoder.strand_symmetric:
            raise InvalidEncoder(
                f"{encoder.uri} gives both strands of a read the same vector already: leave out average={average}"
            )
        self._encoder = encoder
        self.dim = encoder.dim
        self.uri = encoder.uri
        self.revision = hashlib.sha256(f"{encoder.revision} average={average}".encode()).hexdigest()

    def encode(self, reads: pa.Table) -> np.ndarray:
        """See :meth:`tasks.encoders.protocol.Encoder.encode`."""
        other_strand = Sequences.from_arrow(reads["sequence"]).reverse_complement().to_arrow()
        position = reads.schema.get_field_index("sequence")
        vectors = self._encoder.encode(reads)
        vectors = vectors + self._encoder.encode(reads.set_column(position, "sequence", other_strand))
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)
