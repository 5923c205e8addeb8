"""The daily batch: reads land in S3, Ray embeds them, Slurm compares them, people get a report.

Wiring only. What each task does is in ``tasks/`` and ``hpc_jobs/``; how remote jobs are run and watched is in
``plugins/strandloop/``.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from importlib.resources import files
from typing import Any

from airflow.sdk import Asset, Param, dag, task

from strandloop.final_errors import fail_once
from strandloop.notifiers.warning import WarningNotifier
from strandloop.operators.parallel_cluster import EnsureClusterOperator, ReleaseClusterOperator
from strandloop.operators.ray_jobs import RayJobOperator
from strandloop.operators.slurm import SlurmJobOperator
from strandloop.run_tag import JOB_COMMENT, RunTag
from strandloop.sensors.s3_key import S3KeyDeadlineSensor
from strandloop.sensors.slurm import SlurmJobSensor

SIMILARITY_GRAPH = Asset("strandloop_similarity_graph")

DATA_URI = os.environ.get("STRANDLOOP_DATA_URI", "s3://strandloop")
SHARED_DIR = os.environ.get("STRANDLOOP_SHARED_DIR", "/fsx")
LANDING_TIMEOUT_SECONDS = float(os.environ.get("STRANDLOOP_LANDING_TIMEOUT_SECONDS", 12 * 3600))

PARAMS = {
    "batch_id": Param(
        None,
        type=["null", "string"],
        pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        title="Batch id",
        description="The folder below landing/. Empty: the date of the run, as YYYY-MM-DD.",
        section="Batch",
    ),
    "data_uri": Param(
        DATA_URI,
        type="string",
        pattern="^s3://[^/]+(/[^/]+)*$",
        title="Data",
        description="Where landing/, batches/ and encoders/ are.",
        section="Batch",
    ),
    "replace_results": Param(
        False,
        type="boolean",
        title="Replace results",
        description="Forget this batch's results and compute them anew.",
        section="Batch",
    ),
    "trim_quality": Param(
        20,
        type="integer",
        minimum=0,
        maximum=60,
        title="Trimming cutoff (Phred)",
        description="3' ends below it are cut; 0 cuts nothing.",
        section="Read quality",
    ),
    "min_length": Param(
        40,
        type="integer",
        minimum=1,
        maximum=1_000_000,
        title="Shortest read kept (bases, after trimming)",
        section="Read quality",
    ),
    "min_mean_quality": Param(
        20,
        type="number",
        minimum=0,
        maximum=60,
        title="Lowest mean base quality kept (Phred, after trimming)",
        section="Read quality",
    ),
    "max_n_fraction": Param(
        0.1,
        type="number",
        minimum=0,
        maximum=1,
        title="Largest fraction of N kept",
        section="Read quality",
    ),
    "adapter": Param(
        "",
        type="string",
        pattern="^[ACGTURYSWKMBDHVN]*$",
        title="Adapter (bases)",
        description="Cut from the 3' end of single reads and first mates. Empty: none.",
        examples=["AGATCGGAAGAGCACACGTCTGAACTCCAGTCA"],
        section="Read quality",
    ),
    "adapter_mate": Param(
        "",
        type="string",
        pattern="^[ACGTURYSWKMBDHVN]*$",
        title="Adapter of second mates (bases)",
        examples=["AGATCGGAAGAGCGTCGTGTAGGGAAAGAGTGT"],
        section="Read quality",
    ),
    "remove_duplicates": Param(
        False,
        type="boolean",
        title="Remove duplicates",
        description="Of reads (or pairs) of one sample with the same sequence, keep the first.",
        section="Read quality",
    ),
    "max_quarantine_fraction": Param(
        0.01,
        type="number",
        minimum=0,
        maximum=1,
        title="Largest fraction of records that may fail to parse",
        description="They go to quarantine/; above this fraction the batch fails.",
        section="Read quality",
    ),
    "encoder": Param(
        "registry://kmer-mlp",
        type="string",
        title="Encoder",
        description="registry://NAME[@VERSION], sketch://DIM, kmer://K+K, hf://ORG/MODEL@COMMIT or file:///DIRECTORY.",
        examples=["registry://kmer-mlp", "registry://dna-transformer"],
        section="Embedding",
    ),
    "window_bases": Param(
        2000,
        type="integer",
        minimum=0,
        maximum=10_000_000,
        title="Window (bases)",
        description="Longer reads are cut into windows of this length, each with a vector of its own. 0: none.",
        section="Embedding",
    ),
    "window_overlap_bases": Param(
        200,
        type="integer",
        minimum=0,
        maximum=10_000_000,
        title="Overlap of windows (bases)",
        section="Embedding",
    ),
    "vector_dtype": Param(
        "float32",
        enum=["float32", "float16", "int8"],
        title="Numbers of a vector",
        description="float16 halves and int8 quarters what is stored; scores change in the third decimal.",
        section="Embedding",
    ),
    "top_k": Param(
        10,
        type="integer",
        minimum=1,
        maximum=1000,
        title="Neighbours per read",
        section="Similarity",
    ),
    "verify_overlaps": Param(
        True,
        type="boolean",
        title="Verify overlaps",
        description="Align the reads that name each other as neighbours; what overlaps goes to overlaps/ and is "
        "learnt from. Reads of more than 16,000 bases need windows for it.",
        section="Similarity",
    ),
    "min_overlap": Param(
        50,
        type="integer",
        minimum=1,
        maximum=16_000,
        title="Shortest overlap (bases)",
        section="Similarity",
    ),
    "min_identity": Param(
        0.9,
        type="number",
        minimum=0,
        maximum=1,
        title="Lowest identity of an overlap",
        description="0.75 for long reads with many errors.",
        section="Similarity",
    ),
    "drift_threshold": Param(
        0.1,
        type="number",
        minimum=0,
        maximum=1,
        title="Drift that people are told of (share of reads)",
        description="A warning goes out where more reads than that are unlike those of earlier batches.",
        section="Similarity",
    ),
    "cluster": Param(
        "existing",
        enum=["existing", "parallelcluster"],
        title="Cluster",
        description="existing: the Slurm behind the SSH connection, used as it is. parallelcluster: one that is "
        "made for this run, as the Airflow variable strandloop_cluster describes it, and deleted after it.",
        section="Similarity",
    ),
    "cluster_start_delay": Param(
        True,
        type="boolean",
        title="Start the cluster late",
        description="parallelcluster: only when the embedding needs, by its own estimate, no longer than a cluster "
        "takes to start, so that nobody pays for one that waits. Off: together with the embedding.",
        section="Similarity",
    ),
    "slurm_conn_id": Param(
        "slurm",
        type="string",
        title="SSH connection of the Slurm login node",
        description="parallelcluster: the connection that holds the private key of the cluster's key pair.",
        section="Similarity",
    ),
    "shared_dir": Param(
        SHARED_DIR,
        type="string",
        pattern="^/.+",
        title="Shared file system",
        description="The directory that login and compute nodes share.",
        section="Similarity",
    ),
    "nodes": Param(
        2, type="integer", minimum=1, maximum=1024, title="Nodes of the MPI jobs", section="Similarity"
    ),
    "ranks_per_node": Param(
        1,
        type="integer",
        minimum=1,
        maximum=1024,
        title="MPI ranks on each node",
        description="One for each core is the fast way.",
        section="Similarity",
    ),
    "ray_conn_id": Param(
        "ray", type="string", title="HTTP connection of the Ray cluster", section="Embedding"
    ),
}

BATCH_ID = "{{ params.batch_id or ((dag_run.logical_date or dag_run.run_after) | ds) }}"
JOB_ARGS = ["--data-uri", "{{ params.data_uri }}", "--batch-id", BATCH_ID]
HOME = "{{ params.shared_dir }}/strandloop"
WORK = f"{HOME}/batches/{BATCH_ID}"
# Another number of ranks or neighbours is another computation, which must not find this one's.
RANKS = "{{ params.nodes }}x{{ params.ranks_per_node }}"
KNN_CHECKPOINT = f"{WORK}/knn-checkpoint-{RANKS}-{{{{ params.top_k }}}}"
RUN_MODULE = str(files("hpc_jobs") / "run_module.sbatch")
MPI_DNA_SEQ = str(files("hpc_jobs") / "mpi_dna_seq.sbatch")
ALIGN_PAIRS = str(files("hpc_jobs") / "align_pairs.sbatch")
ON_SLURM = {
    "ssh_conn_id": "{{ ti.xcom_pull('ensure_cluster')['ssh_conn_id'] }}",
    "job_root": f"{HOME}/jobs",
    "environment": {"STRANDLOOP_HOME": HOME},
    "comment": JOB_COMMENT,
    "poll_interval_seconds": 5,
}


@dag(
    schedule="@daily",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=16,  # a run that waits for its landing must not hold up the others
    params=PARAMS,
    tags=["strandloop", "genomics"],
    default_args={
        "owner": "strandloop",
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=15),
    },
    doc_md="""
### Daily batch
Waits for `landing/<batch id>/manifest.json`, embeds the batch's reads on Ray, finds every read's exact
nearest neighbours with MPI on Slurm, aligns those that name each other, and publishes the similarity graph,
clusters, verified overlaps, a cost report and an HTML report below `batches/<batch id>/`.
Slurm is one that exists, or a ParallelCluster made for the run.

* **Trigger by hand** to run another batch, encoder or number of neighbours.
* **Run it again** as you like: finished steps are kept, and a finished batch is left as it is.
* **After it** `encoder_retraining` runs on what was found.
""",
)
def genomics_batch() -> None:
    """Wire the batch; see the module docstring."""
    wait_for_landing = S3KeyDeadlineSensor(
        task_id="wait_for_landing",
        bucket_key=f"{{{{ params.data_uri }}}}/landing/{BATCH_ID}/manifest.json",
        aws_conn_id="aws_default",
        poke_interval=30,
        timeout=LANDING_TIMEOUT_SECONDS,
        advice=f"Land the batch: python -m tasks.landing put {' '.join(JOB_ARGS)} FASTQ...",
    )

    @task
    @fail_once
    def validate_batch(data_uri: str, batch_id: str) -> dict[str, Any]:
        from tasks.landing import validate_batch

        return validate_batch(data_uri, batch_id)

    @task.short_circuit
    @fail_once
    def plan_batch(data_uri: str, batch_id: str, params: Any = None) -> bool:
        from tasks.plan import plan_batch

        return plan_batch(data_uri, batch_id, params)["status"] != "complete"

    embed_reads = RayJobOperator(
        task_id="embed_reads",
        entrypoint=["python", "-m", "tasks.embed", *JOB_ARGS],
        packages=["tasks", "hpc_jobs"],
        ray_conn_id="{{ params.ray_conn_id }}",
        no_retry_exit_codes=[65],  # the reads are at fault
        deferrable=True,
    )

    @task
    @fail_once
    def cluster_configuration(data_uri: str, params: Any = None, ti: Any = None) -> str:
        if params["cluster"] != "parallelcluster":
            return ""
        from airflow.sdk import Variable

        from tasks.cluster_spec import cluster_configuration

        run = RunTag.of(ti)
        described = Variable.get("strandloop_cluster", deserialize_json=True)
        fields = {**described, "name": run.cluster_name, "data_uri": data_uri}
        return cluster_configuration(fields, run_id=run.value)["cluster_configuration"]

    @task.sensor(poke_interval=60, timeout=24 * 3600, mode="reschedule")
    @fail_once
    def cluster_may_start(data_uri: str, batch_id: str, params: Any = None, ti: Any = None) -> bool:
        if params["cluster"] != "parallelcluster" or not params["cluster_start_delay"]:
            return True
        from tasks.cluster_start import may_start_cluster

        states = ti.get_task_states(dag_id=ti.dag_id, task_ids=["embed_reads"], run_ids=[ti.run_id])
        return may_start_cluster(data_uri, batch_id, embedding=states.get(ti.run_id, {}).get("embed_reads"))

    configured = cluster_configuration("{{ params.data_uri }}")
    ensure_cluster = EnsureClusterOperator(
        task_id="ensure_cluster",
        cluster="{{ params.cluster }}",
        configuration=configured,
        ssh_conn_id="{{ params.slurm_conn_id }}",
        delete_on_failure=True,
        deferrable=True,
    )
    release_cluster = ReleaseClusterOperator(
        task_id="release_cluster",
        cluster="{{ params.cluster }}",
        ssh_conn_id="{{ params.slurm_conn_id }}",
        deferrable=True,
    )
    stage_embeddings = SlurmJobOperator(
        task_id="stage_embeddings",
        script=RUN_MODULE,
        script_args=[
            *("tasks.staging", "pull"),
            *("--embeddings", f"{{{{ params.data_uri }}}}/batches/{BATCH_ID}/embeddings"),
            *("--to", f"{WORK}/embeddings"),
            *("--reads", f"{{{{ params.data_uri }}}}/batches/{BATCH_ID}/reads"),
            *("--reads-to", f"{WORK}/reads"),
        ],
        nodes=1,
        deferrable=True,
        **ON_SLURM,
    )
    submit_similarity = SlurmJobOperator(
        task_id="submit_similarity",
        script=MPI_DNA_SEQ,
        script_args=[
            *("--store", f"{WORK}/embeddings"),
            *("--out", f"{WORK}/knn"),
            *("--k", "{{ params.top_k }}"),
            *("--checkpoint", KNN_CHECKPOINT),
        ],
        nodes="{{ params.nodes }}",
        ntasks_per_node="{{ params.ranks_per_node }}",
        wait_for_completion=False,
        **ON_SLURM,
    )
    wait_similarity = SlurmJobSensor(
        task_id="wait_similarity",
        job=submit_similarity.output,
        ssh_conn_id=ON_SLURM["ssh_conn_id"],
        poke_interval=5,
        deferrable=True,
    )

    @task.short_circuit(ignore_downstream_trigger_rules=False)
    @fail_once
    def verify_overlaps(params: Any = None) -> bool:
        return bool(params["verify_overlaps"])

    align_pairs = SlurmJobOperator(
        task_id="align_pairs",
        script=ALIGN_PAIRS,
        script_args=[
            *("--store", f"{WORK}/embeddings"),
            *("--reads", f"{WORK}/reads"),
            *("--neighbours", f"{WORK}/knn"),
            *("--out", f"{WORK}/overlaps"),
            *("--minimum-overlap", "{{ params.min_overlap }}"),
            *("--minimum-identity", "{{ params.min_identity }}"),
        ],
        nodes="{{ params.nodes }}",
        ntasks_per_node="{{ params.ranks_per_node }}",
        deferrable=True,
        **ON_SLURM,
    )
    collect_graph = SlurmJobOperator(
        task_id="collect_graph",
        script=RUN_MODULE,
        script_args=[
            *("tasks.graph", "collect", *JOB_ARGS),
            *("--store", f"{WORK}/embeddings"),
            *("--reads", f"{WORK}/reads"),
            *("--knn", f"{WORK}/knn"),
            *("--overlaps", f"{{% if params.verify_overlaps %}}{WORK}/overlaps{{% endif %}}"),
        ],
        trigger_rule="none_failed",  # the alignment may be left out
        nodes=1,
        deferrable=True,
        **ON_SLURM,
    )

    @task(outlets=[SIMILARITY_GRAPH])
    @fail_once
    def publish_graph(data_uri: str, batch_id: str, outlet_events: Any = None) -> dict[str, Any]:
        from tasks.graph import verify_graph

        summary = verify_graph(data_uri, batch_id)
        outlet_events[SIMILARITY_GRAPH].extra = {"data_uri": data_uri, "batch_id": batch_id}
        return summary

    @task(on_success_callback=WarningNotifier())
    @fail_once
    def drift(data_uri: str, batch_id: str, params: Any = None) -> dict[str, Any]:
        from tasks.drift.measure import measure_drift

        return measure_drift(data_uri, batch_id, threshold=params["drift_threshold"])

    @task(trigger_rule="none_failed")
    @fail_once
    def cost_report(
        data_uri: str,
        batch_id: str,
        jobs: list[tuple[str, dict[str, Any] | None]],
        ti: Any = None,
    ) -> dict[str, Any]:
        from tasks.cost.report import cost_report

        records = [{**job, "phase": phase} for phase, job in jobs if job]
        return cost_report(data_uri, batch_id, records, ti.xcom_pull("ensure_cluster"))

    @task
    @fail_once
    def report(data_uri: str, batch_id: str) -> dict[str, Any]:
        from tasks.report.page import build_report

        return build_report(data_uri, batch_id)

    where = ("{{ params.data_uri }}", BATCH_ID)
    planned = plan_batch(*where)
    published = publish_graph(*where)
    costed = cost_report(
        *where,
        jobs=[
            ("embed", embed_reads.output),
            ("stage", stage_embeddings.output),
            ("similarity", wait_similarity.output),
            ("similarity", align_pairs.output),
            ("collect", collect_graph.output),
        ],
    )

    wait_for_landing >> validate_batch(*where) >> planned >> [embed_reads, configured]
    configured >> cluster_may_start(*where) >> ensure_cluster
    [embed_reads, ensure_cluster] >> stage_embeddings >> submit_similarity >> wait_similarity
    (
        wait_similarity
        >> verify_overlaps()
        >> align_pairs
        >> collect_graph
        >> published
        >> [costed, drift(*where)]
        >> report(*where)
    )
    # A cluster that could not be deleted costs money: the run says so by failing.
    collect_graph >> release_cluster.as_teardown(setups=ensure_cluster, on_failure_fail_dagrun=True)


genomics_batch()
