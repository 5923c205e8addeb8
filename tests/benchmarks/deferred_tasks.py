"""Makes an Airflow database whose tasks are all deferred, without 200 task processes to defer them.

The tasks are a mapped :class:`~strandloop.sensors.slurm.SlurmJobSensor` of a real DAG run. Only what their
processes would have done is put into the database directly: each gets the trigger that it would have left.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from airflow.models.dagbag import DBDagBag
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.sdk.timezone import utcnow
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType

from strandloop.slurm_watch import WatchPlan
from strandloop.triggers.slurm import SlurmJobTrigger


def main() -> None:
    """Create the run and defer its tasks."""
    jobs = json.loads(Path(os.environ["BENCH_JOBS"]).read_text())
    with create_session() as session:
        dag = DBDagBag().get_latest_version_of_dag("waiting", session=session)
        assert dag is not None, "the DAG was not parsed"
        run = dag.create_dagrun(
            run_id="bench",
            run_after=utcnow(),
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.TEST,
            state=DagRunState.RUNNING,
            session=session,
        )
        tasks = session.query(TaskInstance).filter_by(run_id=run.run_id).all()
        assert len(tasks) == len(jobs), f"{len(tasks)} task instances for {len(jobs)} jobs"
        for task in tasks:
            plan = WatchPlan(jobs[task.map_index], reader=f"bench-{task.map_index}")
            trigger = Trigger(*SlurmJobTrigger("slurm", cancel_on_kill=False, **plan.to_kwargs()).serialize())
            session.add(trigger)
            session.flush()
            task.state = TaskInstanceState.DEFERRED
            task.trigger_id = trigger.id
            task.next_method = "execute_complete"
            task.try_number = 1


if __name__ == "__main__":
    main()
