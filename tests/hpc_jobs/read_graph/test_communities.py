from __future__ import annotations

import numpy as np

from hpc_jobs.read_graph.communities import by_size, find_communities
from hpc_jobs.read_graph.mutual import Edges

NONE = Edges(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


def planted(group: np.ndarray, *, inside: float, between: float, seed: int = 0) -> Edges:
    """A random graph whose rows are joined more often inside of their group."""
    rng = np.random.default_rng(seed)
    first, second = np.triu_indices(len(group), 1)
    probability = np.where(group[first] == group[second], inside, between)
    kept = rng.random(len(first)) < probability
    weight = rng.uniform(0.5, 1, int(kept.sum())).astype(np.float32)
    return Edges(first[kept], second[kept], weight)


def test_a_planted_partition_is_found_and_numbered_by_size() -> None:
    group = np.random.default_rng(3).permutation(np.repeat([2, 0, 1], [60, 200, 120]))
    edges = planted(group, inside=0.2, between=0.005)
    found = find_communities(len(group), edges)
    assert found.sizes.tolist() == [200, 120, 60]
    np.testing.assert_array_equal(found.labels, group)
    assert found.labels.dtype == np.int32
    assert found.components == 1
    assert 0.4 < found.modularity < 0.7


def test_the_same_graph_gives_the_same_communities() -> None:
    group = np.repeat(np.arange(20), 15)
    edges = planted(group, inside=0.3, between=0.05)  # blurred: chance decides at the borders
    first, second = find_communities(300, edges), find_communities(300, edges)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.modularity == second.modularity


def test_reads_without_edges_are_communities_of_their_own() -> None:
    found = find_communities(5, Edges(np.array([1]), np.array([3]), np.array([0.9], np.float32)))
    assert found.labels.tolist() == [1, 0, 2, 0, 3]
    assert found.sizes.tolist() == [2, 1, 1, 1]
    assert found.components == 4


def test_graphs_without_edges_or_reads() -> None:
    alone = find_communities(2, NONE)
    assert (alone.labels.tolist(), alone.modularity, alone.components) == ([0, 1], 0.0, 2)
    nobody = find_communities(0, NONE)
    assert (len(nobody.labels), len(nobody.sizes), nobody.components) == (0, 0, 0)


def test_equal_sizes_are_numbered_by_their_lowest_row() -> None:
    labels, sizes = by_size(np.array([7, 5, 5, 7, 9, 9, 9]))
    assert labels.tolist() == [1, 2, 2, 1, 0, 0, 0]
    assert sizes.tolist() == [3, 2, 2]
