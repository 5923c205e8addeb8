"""Errors that a retry cannot help end the task at once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from airflow.sdk.exceptions import AirflowFailException

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def fail_once(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorate a task body: an error whose class says ``retryable = False`` ends the task, unretried."""

    @functools.wraps(function)
    def body(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if getattr(error, "retryable", True):
                raise
            raise AirflowFailException(str(error)) from error

    return body
