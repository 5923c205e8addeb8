"""How long the kernel takes on so many nodes: its schedule, a compute rate, and an alpha-beta network.

A message of b bytes takes alpha + b / beta; a node sends and receives at once. A unit of the half ring (see
:mod:`hpc_jobs.mpi_dna_seq.ring`) first passes the visitor's lists on, which nothing hides, then compares while the
vectors of the next visitor travel: it takes lists + max(comparison, vectors). All members are taken to be equal,
and never to wait for each other but for messages. Left out: page faults, other users of the network, failures,
and checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

from hpc_jobs.mpi_dna_seq.schedule import Schedule

LIST_BYTES_OF_A_NEIGHBOUR = 12
"""Score (4) and row (8); a threshold (4) goes with each list."""
LIST_ARRAYS = 3
HALF_SPEED_ROWS = 16
"""Rows of a chunk at which a rank would compare half as fast as it does with long ones: assumed."""
KMEANS_ITERATIONS = 10
KMEANS_ROWS_PER_CELL = 64
RECALL_ROWS = 1_000
"""As in ``kmeans`` and ``cells`` of the kernel; these import MPI, which would start it in this process."""


@dataclass(frozen=True)
class Cluster:
    """What the ring runs on.

    :param members: of all rings together: nodes.
    :param ranks: of each member.
    :param pairs_per_second: unordered pairs that one rank compares, of the dimension in question, all being busy.
    :param alpha_seconds: of a message between members, however short.
    :param bytes_per_second: that a member sends, and receives at the same time.
    :param layers: replication c of the 1.5D scheme; divides ``members``.
    :param barrier_seconds: between the ranks of a member.
    """

    members: int
    ranks: int
    pairs_per_second: float
    alpha_seconds: float
    bytes_per_second: float
    layers: int = 1
    barrier_seconds: float = 0.0

    def message_seconds(self, size: float) -> float:
        """Of a message of ``size`` bytes."""
        return self.alpha_seconds + size / self.bytes_per_second


@dataclass(frozen=True)
class Parts:
    """Seconds of the parts of a run that do not hide each other."""

    compute: float = 0.0
    communication: float = 0.0
    barriers: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return self.compute + self.communication + self.barriers


def ring_seconds(rows: int, *, dim: int, k: int, cluster: Cluster) -> Parts:
    """The exact comparison of all rows with all."""
    members, layers = cluster.members // cluster.layers, cluster.layers
    schedule = Schedule.of(rows, ((cluster.ranks,) * members,) * layers)
    pieces, last_step = schedule.pieces, schedule.steps
    block = rows / members
    piece = block / pieces
    rate = cluster.ranks * cluster.pairs_per_second * _speed(piece / cluster.ranks)
    home, visit = piece * block / 2 / rate, piece * block / rate
    visits = -(-last_step // layers)
    vectors = cluster.message_seconds(piece * 4 * dim) if visits else 0.0
    lists = LIST_ARRAYS * cluster.alpha_seconds + piece * _list_bytes(k) / cluster.bytes_per_second
    halved = 1 if layers == 1 and members % 2 == 0 and visits else 0
    durations = [home, *[visit] * (visits - halved), *[visit / 2] * halved]
    compute = pieces * sum(durations)
    waiting = pieces * sum(
        max(vectors - duration, 0) for duration in durations[:-1]
    )  # the next one is a home
    passing = pieces * (visits + 1) * lists if visits else 0.0
    merging = (layers - 1) * cluster.message_seconds(block * _list_bytes(k)) if layers > 1 else 0.0
    rounds = pieces * (2 * cluster.ranks + visits * (cluster.ranks + 3))
    return Parts(compute, waiting + passing + merging, rounds * cluster.barrier_seconds)


def member_bytes(rows: int, *, dim: int, k: int, cluster: Cluster, quantised: bool) -> float:
    """What a member holds: its block, its lists, and two pieces with theirs; ``quantised`` adds an int8 block."""
    members = cluster.members // cluster.layers
    pieces = Schedule.of(rows, ((cluster.ranks,) * members,)).pieces
    row = 4 * dim + _list_bytes(k)
    return rows / members * (row * (1 + 2 / pieces) + (dim if quantised else 0))


def cells_seconds(
    rows: int, *, dim: int, k: int, cluster: Cluster, cells: int, nprobe: int, imbalance: float
) -> Parts:
    """The approximate comparison, :mod:`hpc_jobs.mpi_dna_seq.cells`.

    A sample trains the cells, some times over; all rows look for theirs; within a cell, which is one rank's, its
    rows are compared with each other and with those that look into it; some rows are compared with all, for the
    recall. Every row is sent to its ``nprobe`` cells, and its lists come back, in about as many turns; in each a
    rank exchanges a message with every other one, both times.

    :param imbalance: what the busiest rank has to do in its cells, over the mean of those that have cells.
    """
    ranks = cluster.members * cluster.ranks
    sample = min(rows, KMEANS_ROWS_PER_CELL * cells)
    even = (KMEANS_ITERATIONS * sample + rows) * cells + RECALL_ROWS * rows
    inside = rows * rows / cells * (nprobe - 0.5)
    compute = even / ranks + imbalance * inside / min(ranks, cells)
    row_bytes = 4 * dim + 20 + LIST_BYTES_OF_A_NEIGHBOUR * k  # 20: its id, its cell, its threshold
    sent = imbalance * rows * nprobe / min(cluster.members, cells) * row_bytes
    shuffle = 2 * nprobe * (ranks - 1) * cluster.alpha_seconds + sent / cluster.bytes_per_second
    levels = (ranks - 1).bit_length()
    sums = (
        KMEANS_ITERATIONS * 2 * (levels * cluster.alpha_seconds + cells * 8 * dim / cluster.bytes_per_second)
    )
    return Parts(compute / cluster.pairs_per_second, shuffle + sums)


def _speed(chunk_rows: float) -> float:
    """Of comparing chunks of so many rows, over that of long ones."""
    return chunk_rows / (chunk_rows + HALF_SPEED_ROWS)


def _list_bytes(k: int) -> int:
    return LIST_BYTES_OF_A_NEIGHBOUR * k + 4
