from __future__ import annotations

import pytest

from strandloop.errors import InvalidJob
from strandloop.operators.parallel_cluster import EnsureClusterOperator, ReleaseClusterOperator


@pytest.mark.parametrize("operator", [EnsureClusterOperator, ReleaseClusterOperator])
def test_any_other_cluster_is_refused_before_anything_is_asked(
    operator: type[EnsureClusterOperator | ReleaseClusterOperator],
) -> None:
    with pytest.raises(InvalidJob, match=r"'auto'.*'existing'"):
        operator(task_id="cluster", cluster="auto").execute({})


def test_cluster_and_connection_are_templated() -> None:
    task = EnsureClusterOperator(task_id="cluster", cluster="{{ c }}", ssh_conn_id="{{ s }}")
    task.render_template_fields({"c": "existing", "s": "slurm"})  # type: ignore[typeddict-unknown-key,typeddict-item]
    assert (task.cluster, task.ssh_conn_id) == ("existing", "slurm")
