from __future__ import annotations

import numpy as np

from hpc_jobs.read_graph.mutual import mutual_edges


def test_only_pairs_that_choose_each_other_become_edges() -> None:
    query = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    neighbour = np.array([1, 2, 0, 3, 3, 1, 2, 1])
    score = np.array([0.9, 0.8, 0.9, 0.4, 0.7, 0.6, 0.7, 0.4], np.float32)
    edges = mutual_edges(query, neighbour, score)
    assert list(zip(edges.first.tolist(), edges.second.tolist(), strict=True)) == [(0, 1), (1, 3), (2, 3)]
    np.testing.assert_array_equal(edges.weight, np.array([0.9, 0.4, 0.7], np.float32))


def test_edges_without_similarity_are_left_out() -> None:
    query, neighbour = np.array([0, 1, 2, 3]), np.array([1, 0, 3, 2])
    edges = mutual_edges(query, neighbour, np.array([0.0, 0.0, -0.1, -0.1], np.float32))
    assert len(edges.first) == len(edges.weight) == 0


def test_no_neighbours_no_edges() -> None:
    none = np.empty(0, np.int64)
    assert len(mutual_edges(none, none, np.empty(0, np.float32)).first) == 0
