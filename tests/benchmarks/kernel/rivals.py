"""One rival, one call, in a process of its own: ``python -m tests.benchmarks.kernel.rivals NAME ...``.

Each is used as its documentation says for vectors of length 1, asked for k + 1 neighbours, since most rows find
themselves first; :func:`without_self` takes that out. What is timed is the call, with vectors in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hpc_jobs import store
from tests.benchmarks.processes import family_bytes

TORCH_QUERIES = 2048  # of a product at once: 400 MB of scores at 50,000 rows
HNSW = {"M": 16, "ef_construction": 200}
HNSW_EF = 100
PYNN_NEIGHBORS = 30  # its default

Found = tuple[np.ndarray, float]
"""Neighbour rows (rows, k + 1), best first, and the seconds of the call."""


def main() -> None:
    """Search, write the neighbours as .npy, and print a line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.kernel.rivals", description=__doc__)
    parser.add_argument("name", choices=RIVALS)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--k", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    search = RIVALS[options.name](options.threads)
    _, before = family_bytes(os.getpid())
    vectors = store.read_vectors(options.store, 0, store.read_manifest(options.store).rows)
    ids, seconds = search(vectors, options.k)
    np.save(options.out, without_self(ids, options.k))
    print(json.dumps({"compare_seconds": seconds, "memory_before_bytes": before}))


def without_self(ids: np.ndarray, k: int) -> np.ndarray:
    """The first k of each row that are not the row itself: int64 (rows, k) of ids (rows, k + 1)."""
    other = ids != np.arange(len(ids))[:, None]
    order = np.argsort(~other, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(ids, order, axis=1).astype(np.int64)


def faiss_knn(threads: int) -> Callable[[np.ndarray, int], Found]:
    """``faiss.knn``: blocked products and heaps, the fastest exact search of faiss on a CPU."""
    import faiss

    faiss.omp_set_num_threads(threads)

    def search(vectors: np.ndarray, k: int) -> Found:
        began = time.perf_counter()
        _, ids = faiss.knn(vectors, vectors, k + 1, metric=faiss.METRIC_INNER_PRODUCT)
        return ids, time.perf_counter() - began

    return search


def faiss_flat(threads: int) -> Callable[[np.ndarray, int], Found]:
    """``faiss.IndexFlatIP``."""
    import faiss

    faiss.omp_set_num_threads(threads)

    def search(vectors: np.ndarray, k: int) -> Found:
        began = time.perf_counter()
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        _, ids = index.search(vectors, k + 1)
        return ids, time.perf_counter() - began

    return search


def torch_topk(threads: int) -> Callable[[np.ndarray, int], Found]:
    """Products of 2,048 queries with everything, and ``topk`` of each."""
    import torch

    torch.set_num_threads(threads)

    def search(vectors: np.ndarray, k: int) -> Found:
        began = time.perf_counter()
        every = torch.from_numpy(vectors)
        with torch.inference_mode():
            best = [(queries @ every.T).topk(k + 1).indices for queries in every.split(TORCH_QUERIES)]
        return torch.cat(best).numpy(), time.perf_counter() - began

    return search


def scikit_learn(threads: int) -> Callable[[np.ndarray, int], Found]:
    """Brute force. Euclidean, whose order is that of cosines here and whose search is compiled, unlike cosine's."""
    from sklearn.neighbors import NearestNeighbors

    def search(vectors: np.ndarray, k: int) -> Found:
        began = time.perf_counter()
        index = NearestNeighbors(n_neighbors=k + 1, algorithm="brute", metric="euclidean", n_jobs=threads)
        ids = index.fit(vectors).kneighbors(vectors, return_distance=False)
        return ids, time.perf_counter() - began

    return search


def hnswlib(threads: int) -> Callable[[np.ndarray, int], Found]:
    """Approximate: builds a navigable graph and searches it for every row."""
    import hnswlib

    def search(vectors: np.ndarray, k: int) -> Found:
        began = time.perf_counter()
        index = hnswlib.Index(space="ip", dim=vectors.shape[1])
        index.init_index(max_elements=len(vectors), random_seed=1, **HNSW)
        index.add_items(vectors, num_threads=threads)
        index.set_ef(max(HNSW_EF, k + 1))
        ids, _ = index.knn_query(vectors, k=k + 1, num_threads=threads)
        return ids.astype(np.int64), time.perf_counter() - began

    return search


def pynndescent(threads: int) -> Callable[[np.ndarray, int], Found]:
    """Approximate: descends from random trees to the k-NN graph; compiled before it is timed."""
    from pynndescent import NNDescent

    def graph(vectors: np.ndarray) -> np.ndarray:
        index = NNDescent(
            vectors,
            metric="dot",
            n_neighbors=PYNN_NEIGHBORS,
            n_jobs=threads,
            random_state=1,
            compressed=False,
        )
        ids, _ = index.neighbor_graph
        return np.asarray(ids)

    warm = np.random.default_rng(1).standard_normal((1000, 16), dtype=np.float32)
    graph(warm / np.linalg.norm(warm, axis=1, keepdims=True))

    def search(vectors: np.ndarray, k: int) -> Found:
        began = time.perf_counter()
        ids = graph(vectors)
        return ids[:, : k + 1], time.perf_counter() - began

    return search


RIVALS: dict[str, Callable[[int], Callable[[np.ndarray, int], Found]]] = {
    "faiss.knn": faiss_knn,
    "faiss.IndexFlatIP": faiss_flat,
    "torch": torch_topk,
    "scikit-learn": scikit_learn,
    "hnswlib": hnswlib,
    "pynndescent": pynndescent,
}

if __name__ == "__main__":
    main()
