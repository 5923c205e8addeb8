"""Slurm jobs as Airflow tasks."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import conf
from airflow.sdk import BaseOperator, Context

from strandloop.errors import InvalidJob, RemoteJobError, StateUnknown
from strandloop.hooks.slurm import Completed, SlurmHook
from strandloop.job_identity import earlier_identities_of, identity_of
from strandloop.job_record import JobRecord
from strandloop.links.slurm import SlurmJobLink
from strandloop.slurm_commands import LOG, Command
from strandloop.slurm_outcome import Outcome
from strandloop.slurm_script import array_of
from strandloop.slurm_state import JobState
from strandloop.slurm_submission import Remembered, Submission
from strandloop.slurm_submitter import Submitter
from strandloop.slurm_waiting import Run, cancel, settle, wait
from strandloop.slurm_watch import WatchPlan, job_in_words
from strandloop.succession import Succession
from strandloop.triggers.slurm import SlurmJobTrigger

# Where Airflow has a store that survives retries (3.3), it remembers the last job that was submitted.
SUBMITTED = "slurm_job"

# After SIGTERM Airflow's supervisor leaves a process 5 s before it kills it, time for the order to cancel and
# little more; after an execution timeout nothing cuts this short.
KILL_WAIT = 40.0

#: Typed resources, and sbatch's own names for them.
RESOURCES = {
    "partition": "partition",
    "nodes": "nodes",
    "ntasks_per_node": "ntasks-per-node",
    "cpus_per_task": "cpus-per-task",
    "mem": "mem",
    "time": "time",
    "gres": "gres",
    "constraint": "constraint",
    "dependency": "dependency",
    "signal": "signal",
    "comment": "comment",
}


class SlurmJobOperator(BaseOperator):
    """Runs a batch script on a Slurm cluster, at most one living job per task whatever happens here.

    The job is found again by its identity (see :mod:`strandloop.job_identity`): a retry attaches to the
    job that still lives, takes the result of one that has succeeded meanwhile, and submits the next
    attempt only of one that was seen to fail. Clearing the task cancels what it left alive and starts a
    new job.

    A job array is one job: it succeeds only if each of its elements was seen to succeed, and fails, naming
    those that did not, once none of them is alive any more. The next attempt runs those again that did not
    succeed, and leaves the others alone; it keeps to the array as it was first submitted until the task is
    cleared.

    Returns the job's record (:class:`strandloop.job_record.JobRecord`) by XCom: of the finished job, or,
    without ``wait_for_completion``, the reference that :class:`~strandloop.sensors.slurm.SlurmJobSensor`
    takes.

    :param script: absolute path, on the Airflow side, of a batch script for bash. Its ``#SBATCH`` lines
        count; names, output files, working directory and holds are the operator's. An ``--array`` there
        counts unless ``array`` is given.
    :param body: text of the batch script, instead of ``script``.
    :param script_args: arguments of the script.
    :param ssh_conn_id: connection to the login node, with the ``host_key`` extra; None or empty where Airflow
        runs on the login node itself.
    :param job_root: directory on the cluster's shared file system. Script, log and exit status of a
        job are in ``<job_root>/<identity>/<attempt>``, which is also its working directory; those of an
        array's element bear its index: ``job.7.log``, ``exit.7.json``. A ``progress.json`` that a single
        job writes there is shown in the task log, see :mod:`strandloop.job_progress`.
    :param environment: exported to the script.
    :param wait_for_completion: whether this task waits for the job's end.
    :param deferrable: whether it waits in the triggerer.
    :param partition: as sbatch's option of this name, like ``nodes``, ``ntasks_per_node``,
        ``cpus_per_task``, ``mem``, ``time``, ``gres``, ``constraint``, ``dependency``, ``signal`` and
        ``comment``. Each of them overrides the script's own.
    :param array: elements of a job array, as ``sbatch --array`` takes them: ``0-19%4``, ``1,3,7``.
    :param requeue: whether Slurm may start the job again after a node failed; ``None`` leaves it to the
        cluster.
    :param poll_interval_seconds: seconds between two looks at the job.
    :param queue_timeout_seconds: the job is cancelled if it has waited so long in the queue: after its
        submission, and again after Slurm has put it back there. Of an array: if no element has started.
    :param run_timeout_seconds: the job is cancelled if it has run so long since its last start. Of an
        array: if one of its elements has, each counted from its own start.
    :param unknown_timeout_seconds: the task fails if nobody can tell so long how the job stands.
    :param durable: whether a retry may use what an earlier try left: attach to its job, or take its result.
        If not, a retry first cancels what is alive and submits the next attempt, of an array the whole.
    :param cancel_on_kill: whether ending or clearing the task by hand cancels the job. Airflow 3.2 does
        not tell a deferred task that it was ended: there only clearing it does.
    """

    template_fields: Sequence[str] = (
        "script",
        "body",
        "script_args",
        "ssh_conn_id",
        "job_root",
        "environment",
        "array",
        *RESOURCES,
    )
    template_fields_renderers = {"body": "bash", "environment": "json"}  # noqa: RUF012
    operator_extra_links = (SlurmJobLink(),)
    ui_color = "#e4eef6"

    def __init__(
        self,
        *,
        job_root: str,
        script: str | None = None,
        body: str | None = None,
        script_args: Sequence[str] = (),
        ssh_conn_id: str | None = SlurmHook.default_conn_name,
        environment: Mapping[str, str] | None = None,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        partition: str | None = None,
        nodes: int | str | None = None,
        ntasks_per_node: int | str | None = None,
        cpus_per_task: int | str | None = None,
        mem: str | None = None,
        time: str | None = None,
        gres: str | None = None,
        constraint: str | None = None,
        dependency: str | None = None,
        signal: str | None = None,
        comment: str | None = None,
        array: str | None = None,
        requeue: bool | None = None,
        poll_interval_seconds: float = 15.0,
        queue_timeout_seconds: float | None = None,
        run_timeout_seconds: float | None = None,
        unknown_timeout_seconds: float = 600.0,
        durable: bool = True,
        cancel_on_kill: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (script is None) == (body is None):
            raise ValueError(f"task {self.task_id!r}: give either script or body")
        self.job_root = job_root
        self.script = script
        self.body = body
        self.script_args = script_args
        self.ssh_conn_id = ssh_conn_id
        self.environment = environment
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.partition = partition
        self.nodes = nodes
        self.ntasks_per_node = ntasks_per_node
        self.cpus_per_task = cpus_per_task
        self.mem = mem
        self.time = time
        self.gres = gres
        self.constraint = constraint
        self.dependency = dependency
        self.signal = signal
        self.comment = comment
        self.array = array
        self.requeue = requeue
        self.poll_interval_seconds = poll_interval_seconds
        self.queue_timeout_seconds = queue_timeout_seconds
        self.run_timeout_seconds = run_timeout_seconds
        self.unknown_timeout_seconds = unknown_timeout_seconds
        self.durable = durable
        self.cancel_on_kill = cancel_on_kill
        self._identity: str | None = None
        self._succession: Succession | None = None
        self._killed = False
        self._left_alone = False

    def execute(self, context: Context) -> dict[str, Any]:
        """Make sure that the job is there, and wait for it if that was asked for."""
        ti = context["ti"]
        self._identity = identity = identity_of(ti)
        self._succession = Succession(context)
        self._succession.begin()
        with SlurmHook(self.ssh_conn_id) as hook:

            def run(command: Command) -> Completed:
                # Airflow calls on_kill in the middle of whatever goes on and returns here afterwards.
                if self._killed:
                    raise RemoteJobError(f"the task was ended while it worked on job {identity}")
                return hook.run(command)

            record = self._ensure(run, context, identity)
            SlurmJobLink().persist(ti, url=hook.url(_log_path(record)))
            self.log.info("%s; its files are in %s", job_in_words(record), record.job_dir)
            if not self.wait_for_completion or record.state == JobState.SUCCEEDED:
                return record.to_xcom()
            plan = self._plan(record, reader=f"{identity[:8]}-{ti.try_number}")
            if not self.deferrable:
                return settle(run, wait(run, plan, say=self.log.info))
        return self.defer(
            trigger=SlurmJobTrigger(self.ssh_conn_id, cancel_on_kill=self.cancel_on_kill, **plan.to_kwargs()),
            method_name="execute_complete",
        )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Take the trigger's event: the job's record, or the reason for failing."""
        outcome = Outcome.from_event(event)
        self._identity, self._succession = str(outcome.record["name"]), Succession(context)
        with SlurmHook(self.ssh_conn_id) as hook:
            return settle(hook.run, outcome)

    def on_kill(self) -> None:
        """Cancel the job and wait until it is gone; over a connection of its own, for this interrupts.

        A leftover of an earlier try leaves the job alone: the try that has followed answers for it.
        """
        self._killed = True
        if self._identity is None or self._succession is None or not self.cancel_on_kill:
            return
        if self._succession.superseded():
            self._left_alone = True
            self.log.info("another try has taken over job %s, which is left alone", self._identity)
            return
        with SlurmHook(self.ssh_conn_id) as hook:
            gone = cancel(hook.run, self._identity, patience=KILL_WAIT)
        self.log.info("job %s was cancelled%s", self._identity, "" if gone else ", and is still ending")

    def options(self) -> list[str]:
        """Return the typed resources as options of sbatch."""
        values = {flag: getattr(self, name) for name, flag in RESOURCES.items()}
        options = [f"--{flag}={value}" for flag, value in values.items() if value not in (None, "")]
        if self.requeue is not None:
            options.append("--requeue" if self.requeue else "--no-requeue")
        return options

    def _ensure(self, run: Run, context: Context, identity: str) -> JobRecord:
        """Find or submit the job, and remember it where Airflow has a memory."""
        if self.cancel_on_kill:
            self._cancel_cleared(run, earlier_identities_of(context["ti"]))
        store = context.get("task_state_store")
        submitter = Submitter(run, log=self.log.info, patience=self.unknown_timeout_seconds)
        remembered = _remembered(store.get(SUBMITTED) if store is not None else None, identity)
        try:
            record = submitter.ensure(self._submission(identity), durable=self.durable, remembered=remembered)
        except RemoteJobError:
            # A kill that came while the submission was on its way found nothing to cancel.
            if self._killed and self.cancel_on_kill and not self._left_alone:
                with SlurmHook(self.ssh_conn_id) as hook:
                    cancel(hook.run, identity, patience=KILL_WAIT)
            raise
        if store is not None:
            store.set(
                SUBMITTED,
                {
                    "identity": identity,
                    "attempt": record.attempt,
                    "job_id": record.id,
                    "cluster": record.cluster,
                },
            )
        return record

    def _cancel_cleared(self, run: Run, names: list[str]) -> None:
        """End what a clear left alive: a job that nobody waited for, or whose triggerer was not told."""
        if not names:
            return
        self.log.info("making sure that no job lives which this task started before it was cleared")
        if not cancel(run, *names, patience=self.unknown_timeout_seconds):
            raise StateUnknown(
                f"a job that this task started before it was cleared (one of {', '.join(names)}) was told to stop "
                "and was not seen to be gone, so nothing is submitted beside it"
            )

    def _submission(self, identity: str) -> Submission:
        return Submission(
            identity=identity,
            job_root=self.job_root,
            script=(script := self.script_text()),
            script_args=tuple(str(argument) for argument in self.script_args),
            environment={name: str(value) for name, value in (self.environment or {}).items()},
            options=tuple(self.options()),
            array=str(self.array) if self.array not in (None, "") else array_of(script),
        )

    def script_text(self) -> str:
        """Return the batch script.

        :raises InvalidJob: if ``script`` is not an absolute path of a file that can be read.
        """
        if self.body is not None:
            return self.body
        path = Path(str(self.script))
        if not path.is_absolute():
            raise InvalidJob(f"script must be an absolute path on the Airflow side, not {self.script!r}")
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            raise InvalidJob(f"batch script {path} cannot be read: {error}") from error

    def _plan(self, record: JobRecord, *, reader: str) -> WatchPlan:
        return WatchPlan(
            record.to_xcom(),
            reader=reader,
            poll_interval_seconds=self.poll_interval_seconds,
            queue_timeout_seconds=self.queue_timeout_seconds,
            run_timeout_seconds=self.run_timeout_seconds,
            unknown_timeout_seconds=self.unknown_timeout_seconds,
        )


def _log_path(record: JobRecord) -> str:
    """Return where the log of a job is; the elements of an array have one each, in its directory."""
    return str(record.job_dir) if record.array else posixpath.join(str(record.job_dir), LOG)


def _remembered(stored: Any, identity: str) -> Remembered | None:
    """Read the last submission from the store; what was stored before a clear is another job's."""
    if not isinstance(stored, dict) or stored.get("identity") != identity:
        return None
    return Remembered(stored["attempt"], stored["job_id"], stored.get("cluster"))
