from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import GetXCom, SetXCom, XComResult

from strandloop.ray_bookmark import Bookmark, TaskStoreShelf, XComShelf

BOOKMARK = Bookmark("job-1", 1_000_000, log_bytes=42, running_since=1_001.5)
TI: Any = SimpleNamespace(dag_id="daily", task_id="embed", run_id="run-1", map_index=-1)


class Triggerer:
    """The triggerer's side of the messages that a trigger may send."""

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}

    async def asend(self, message: Any) -> Any:
        match message:
            case SetXCom():
                assert (message.dag_id, message.task_id, message.run_id) == ("daily", "embed", "run-1")
                self.xcoms[message.key] = json.loads(json.dumps(message.value))
            case GetXCom():
                return XComResult(key=message.key, value=self.xcoms.get(message.key))
        return None


class Store(dict[str, Any]):
    set = dict.__setitem__


def test_a_bookmark_survives_its_journey_as_json() -> None:
    assert Bookmark.from_json(json.loads(json.dumps(BOOKMARK.to_json()))) == BOOKMARK
    assert Bookmark.from_json({**BOOKMARK.to_json(), "of a later version": 1}) == BOOKMARK


@pytest.mark.parametrize("value", [None, 3, "job-1", {}, {"submission_id": "job-1"}, ["job-1", 1, 2]])
def test_what_is_no_bookmark_is_none(value: object) -> None:
    assert Bookmark.from_json(value) is None


def test_a_task_keeps_its_bookmark_in_the_task_state_store() -> None:
    store, said = Store(), list[str]()
    assert TaskStoreShelf(store, say=said.append).read() is None
    TaskStoreShelf(store, say=said.append).keep(BOOKMARK)
    assert TaskStoreShelf(store, say=said.append).read() == BOOKMARK
    assert said == []


def test_a_trigger_keeps_its_bookmark_as_an_xcom(monkeypatch: pytest.MonkeyPatch) -> None:
    triggerer, said = Triggerer(), list[str]()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", triggerer, raising=False)
    assert asyncio.run(XComShelf(TI, say=said.append).read()) is None
    asyncio.run(XComShelf(TI, say=said.append).keep(BOOKMARK))
    assert asyncio.run(XComShelf(TI, say=said.append).read()) == BOOKMARK
    assert list(triggerer.xcoms) == ["ray_job_read"]
    assert said == []


def test_where_there_is_no_place_for_bookmarks_the_log_says_so_once() -> None:
    said: list[str] = []
    shelf = TaskStoreShelf(None, say=said.append)
    assert shelf.read() is None
    assert said == []
    shelf.keep(BOOKMARK)
    shelf.keep(BOOKMARK)
    assert len(said) == 1
    assert "lines of it may come twice" in said[0]


@pytest.mark.parametrize("ti", [None, TI])
def test_a_triggerer_that_does_not_answer_stops_no_trigger(ti: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(message: Any) -> Any:
        await asyncio.sleep(60)

    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", SimpleNamespace(asend=never), raising=False)
    monkeypatch.setattr("strandloop.ray_bookmark.PATIENCE", 0.01)
    said: list[str] = []

    async def trigger() -> None:
        shelf = XComShelf(ti, say=said.append)
        assert await shelf.read() is None
        await shelf.keep(BOOKMARK)

    asyncio.run(trigger())
    assert len(said) == 1
    assert "lines of it may come twice" in said[0]
