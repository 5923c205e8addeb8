"""When a run saves what it has found, and when it ends before its end: all ranks together, between two units.

SIGUSR1 or SIGTERM to any rank (time limit, preemption, spot notice) is noted, the ranks agree on it while they
compute the next unit, and after that they save and stop: at most two units later, each of some ten seconds
(:data:`hpc_jobs.mpi_dna_seq.schedule.LARGEST_UNIT`). Without a checkpoint directory they end the run at once.
"""

from __future__ import annotations

import signal
import time
from types import FrameType

import numpy as np
from mpi4py import MPI

from hpc_jobs.mpi_dna_seq.checkpoint import Checkpoint
from hpc_jobs.mpi_dna_seq.members import Member
from hpc_jobs.mpi_dna_seq.ring import HalfRing

GO_ON, SAVE, STOP = range(3)


class StopSignal:
    """Notes SIGUSR1 and SIGTERM from now on."""

    def __init__(self) -> None:
        self.came = False
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True


class Restart:
    """Checkpoints of one run; made by all ranks at once.

    :param every_seconds: between two checkpoints.
    """

    def __init__(
        self,
        comm: MPI.Intracomm,
        member: Member,
        checkpoint: Checkpoint,
        stop: StopSignal,
        every_seconds: float,
    ) -> None:
        self._comm = comm
        self._member = member
        self._checkpoint = checkpoint
        self._every_seconds = every_seconds
        self._saved_at = time.perf_counter()
        self._stop = stop
        self._agreement: MPI.Request | None = None
        self._wish, self._agreed = np.zeros(1, np.int32), np.zeros(1, np.int32)
        self.seconds = 0.0

    def find(self) -> tuple[int, int]:
        """Units done and pairs compared by an earlier run, on every rank; 0, 0 where there was none.

        :raises CheckpointError: on rank 0: the checkpoint there is of another computation.
        """
        return (self._checkpoint.find() if self._comm.rank == 0 else None) or (0, 0)

    def restore(self, ring: HalfRing, units: int) -> None:
        """Fill the lists with those of an earlier run; raises CheckpointError where they are damaged."""
        began = time.perf_counter()
        if self._member.leads:
            self._checkpoint.find()  # each leader reads the checksums itself
            self._checkpoint.read(self._member.name, units, ring.state(units))
        self.seconds += time.perf_counter() - began

    def go_on(self, ring: HalfRing, units: int, pairs: int) -> bool:
        """Save if it is time to, or if a rank was told to stop, which is then False everywhere.

        :param units: that are done.
        :param pairs: that this rank has compared, in this run and (rank 0) in earlier ones.
        """
        decision = self._decide()
        if decision != GO_ON:
            self._save(ring, units, pairs)
        return decision != STOP

    def finish(self) -> None:
        """The result is there: the checkpoint is needed no more. By all ranks at once."""
        if self._agreement is not None:
            self._agreement.Wait()
        if self._comm.rank == 0:
            self._checkpoint.remove()

    def _decide(self) -> int:
        """What all ranks agreed on during the last unit; and begin to agree on what follows the next."""
        decision = GO_ON
        if self._agreement is not None:
            self._agreement.Wait()
            decision = int(self._agreed[0])
        now = time.perf_counter()
        due = self._comm.rank == 0 and now - self._saved_at >= self._every_seconds
        if due:
            self._saved_at = now
        self._wish[0] = STOP if self._stop.came else SAVE if due else GO_ON
        going_on = decision != STOP
        self._agreement = self._comm.Iallreduce(self._wish, self._agreed, op=MPI.MAX) if going_on else None
        return decision

    def _save(self, ring: HalfRing, units: int, pairs: int) -> None:
        began = time.perf_counter()
        file = None
        if self._member.leads:
            file = self._checkpoint.write(self._member.name, units, ring.state(units))
        written = self._comm.gather((file, pairs))
        if written is not None:
            files = dict(file for file, _ in written if file)
            self._checkpoint.commit(units, sum(pairs for _, pairs in written), files)
        self._comm.Barrier()
        self.seconds += time.perf_counter() - began
