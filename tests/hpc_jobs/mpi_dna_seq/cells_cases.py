"""Run by five ranks: ``cells_cases.py FOLDER`` computes the cases of ``FOLDER/cases.json`` on 1, 2, 3 and 5 of
them, into ``FOLDER/<ranks>/<number of the case>.npz``. Starting five Pythons costs more than the cases.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
from mpi4py import MPI

from hpc_jobs.mpi_dna_seq.cells import Cells, CellSearch
from hpc_jobs.mpi_dna_seq.tiles import Best, comparison

folder, world = Path(sys.argv[1]), MPI.COMM_WORLD


def compute(comm: MPI.Intracomm, number: int, case: dict) -> None:
    vectors = np.load(folder / f"{number}.npy")
    rows = len(vectors)
    first, stop = (rank * rows // comm.size for rank in (comm.rank, comm.rank + 1))
    best = Best.empty(stop - first, case["k"])
    search = CellSearch(
        comm,
        vectors[first:stop],
        first_row=first,
        rows=rows,
        cells=Cells(case["cells"], case["nprobe"]),
        comparison=comparison(
            metric=case["metric"], precision=case["precision"], dim=vectors.shape[1], tile=32
        ),
        unit=case["metric"] == "cosine",
    )
    quality = search.find(best)
    scores, ids = comm.gather(best.scores), comm.gather(best.ids)
    if comm.rank == 0:
        out = folder / str(comm.size)
        out.mkdir(exist_ok=True)
        np.savez(
            out / f"{number}.npz", scores=np.concatenate(scores), ids=np.concatenate(ids), **asdict(quality)
        )


for sizes in ([5], [3, 2], [1]):  # that run side by side
    member_of = [size for size in sizes for _ in range(size)] + [0] * (5 - sum(sizes))
    comm = world.Split(member_of[world.rank])
    if member_of[world.rank]:
        for number, case in enumerate(json.loads((folder / "cases.json").read_text())):
            compute(comm, number, case)
    world.Barrier()
