import pytest

from tasks.learning.on_ray import worker_resources


@pytest.mark.parametrize(
    ("nodes", "workers", "asked"),
    [
        ([{"CPU": 16.0}, {"CPU": 1.0}], 1, {"CPU": 2, "GPU": 0}),
        ([{"CPU": 1.0}], 1, {"CPU": 1, "GPU": 0}),
        ([{"memory": 1e9}], 1, {"CPU": 2, "GPU": 0}),
        ([{"CPU": 16.0}, {"CPU": 4.0, "GPU": 1.0}], 1, {"CPU": 2, "GPU": 1}),
        ([{"CPU": 2.0}], 2, {"CPU": 1, "GPU": 0}),
        ([{"CPU": 4.0, "GPU": 1.0}], 2, {"CPU": 2, "GPU": 0}),
        ([{"CPU": 4.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 4.0}], 2, {"CPU": 1, "GPU": 1}),
        ([{"CPU": 2.0}], 3, {"CPU": 2, "GPU": 0}),
    ],
    ids=[
        "a large node",
        "a single CPU",
        "a head alone",
        "a GPU node",
        "two on two CPUs",
        "two with one GPU",
        "two with GPUs",
        "too many",
    ],
)
def test_what_each_worker_asks_for(
    nodes: list[dict[str, float]], workers: int, asked: dict[str, float]
) -> None:
    assert worker_resources([{"Alive": True, "Resources": node} for node in nodes], workers) == asked
    dead = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
    assert worker_resources([dead, *({"Alive": True, "Resources": node} for node in nodes)], workers) == asked
