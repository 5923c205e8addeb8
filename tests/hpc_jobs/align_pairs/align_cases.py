"""``align_cases.py CASES``: runs a JSON list of command lines one after the other, on all ranks of one mpirun, and
prints status, standard output and standard error of each as JSON. Starting Python costs more than a case.
"""

import contextlib
import io
import json
import sys

from mpi4py import MPI

from hpc_jobs.align_pairs.job import main

done = []
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = main(arguments)
    done.append([status, out.getvalue(), err.getvalue()])
if MPI.COMM_WORLD.rank == 0:
    print(json.dumps(done))
