import numpy as np
import pyarrow as pa
import pytest

from tasks.encoders.sequences import Sequences
from tasks.learning.batch_results import Edges, Placements
from tasks.learning.mix import REPLAY_SHARE, SYNTHETIC_SHARE, batch_pairs, with_replay, with_synthetic
from tasks.learning.pairs import Mixture
from tasks.learning.replay import SCHEMA, Replay

NO_EDGES = Edges(*(np.empty(0, np.int64) for _ in range(2)), np.empty(0, np.float32))
NO_CHAINS = Placements(*(np.empty(0, np.int64) for _ in range(3)))


def shares(
    ids: list[str], edges: Edges = NO_EDGES, placements: Placements = NO_CHAINS, length: int = 100
) -> dict[str, float]:
    sequences = Sequences(np.full(length * len(ids), ord("A"), np.uint8), length * np.arange(len(ids) + 1))
    mixture = Mixture.of(batch_pairs(pa.chunked_array([ids], pa.string()), sequences, edges, placements))
    return dict(zip(mixture.names, mixture.shares, strict=True))


def edges(*pairs: tuple[int, int]) -> Edges:
    query, neighbour = np.array([*pairs, *((other, one) for one, other in pairs)]).T
    return Edges(query, neighbour, np.full(len(query), 0.9, np.float32))


def test_without_a_graph_pairs_are_the_reads_own() -> None:
    assert shares(["a:1", "a:2"]) == {"windows of one read": 1}
    assert shares(["a:1/1", "a:1/2", "a:2"]) == {
        "windows of one read": pytest.approx(1 / 3),
        "mates": pytest.approx(2 / 3),
    }
    assert shares(["a:1@0", "a:1@100", "a:2", "a:3"]) == {
        "windows of one read": 0.5,
        "windows of one long read": 0.5,
    }


def test_pairs_are_from_chains_where_there_are_chains_else_half_from_neighbours() -> None:
    ids = [f"a:{number}" for number in range(4)]
    assert shares(ids, edges((0, 1))) == {"windows of one read": 0.5, "mutual nearest neighbours": 0.5}
    chain = Placements(np.array([2, 3]), np.array([0, 0]), np.array([0, 150]))
    assert shares(ids, edges((0, 1)), chain) == {
        "windows of one read": 0.375,
        "far apart on one chain": 0.375,
        "mutual nearest neighbours": 0.25,
    }
    everywhere = Placements(np.arange(4), np.zeros(4, int), 100 * np.arange(4))
    assert shares(ids, edges((0, 1)), everywhere) == {
        "windows of one read": 0.25,
        "far apart on one chain": 0.75,
    }


def test_an_eighth_is_of_made_up_species_unless_there_are_no_reads() -> None:
    reads = Sequences(np.full(200, ord("A"), np.uint8), 100 * np.arange(3))
    pairs = batch_pairs(pa.chunked_array([["a:1", "a:2"]]), reads, NO_EDGES, NO_CHAINS)
    mixture = Mixture.of(with_synthetic(pairs, reads))
    assert mixture.names == ("windows of one read", "made-up species")
    assert mixture.shares == (1 - SYNTHETIC_SHARE, SYNTHETIC_SHARE)
    none = batch_pairs(pa.chunked_array([[]], pa.string()), reads[:0], NO_EDGES, NO_CHAINS)
    assert not Mixture.of(with_synthetic(none, reads[:0])).sources


def test_earlier_batches_take_their_share_where_there_are_any() -> None:
    sequences = Sequences(np.full(200, ord("A"), np.uint8), 100 * np.arange(3))
    fresh = Mixture.of(batch_pairs(pa.chunked_array([["a:1", "a:2"]]), sequences, NO_EDGES, NO_CHAINS))
    assert with_replay(fresh, Replay(SCHEMA.empty_table())) is fresh
    row = {"left": "ACGT", "right": "ACGT", "source": "mates", "batch_id": "b1"}
    both = with_replay(fresh, Replay(pa.Table.from_pylist([row], SCHEMA)))
    assert both.shares == (1 - REPLAY_SHARE, REPLAY_SHARE)
    assert both.names == ("windows of one read", "pairs of earlier batches")
