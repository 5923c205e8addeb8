"""Warnings for people: whoever runs Airflow says where they go, by the notifiers of Airflow's providers."""

from __future__ import annotations

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import Any

from airflow.sdk import BaseNotifier, Variable
from airflow.sdk.definitions.context import Context

VARIABLE = "strandloop_warning_notifiers"


class WarningNotifier(BaseNotifier):
    """``on_success_callback`` of a task that returns ``warning`` (true or false) and ``verdict`` (a sentence).

    Where ``warning`` is true, the sentence is logged, and sent by every notifier that the Airflow variable
    ``strandloop_warning_notifiers`` lists; without the variable by none. It is a JSON list of classes and their
    arguments, in whose templates ``warning`` is the sentence::

        [{"notifier": "airflow.providers.http.notifications.http.HttpNotifier",
          "arguments": {"http_conn_id": "warnings", "json": {"text": "{{ warning }}"}}}]

    Addresses and secrets belong into the connections that the arguments name. What cannot be sent is logged as an
    error and changes nothing else: the task has succeeded. A task that is cleared warns again.
    """

    def notify(self, context: Context) -> None:
        """See the class."""
        returned = context["ti"].xcom_pull(task_ids=context["ti"].task_id)
        if not returned or not returned["warning"]:
            return
        self.log.warning("%s", returned["verdict"])
        try:
            entries = Variable.get(VARIABLE, default=[], deserialize_json=True)
            if not isinstance(entries, list):
                raise TypeError("it is no list")
        except Exception:
            self.log.exception(
                "The warning was sent to nobody: the Airflow variable %s cannot be read", VARIABLE
            )
            return
        for number, entry in enumerate(entries, start=1):
            try:
                _notifier(entry)({**context, "warning": returned["verdict"]})
            except Exception:
                self.log.exception(
                    "The warning was not sent by entry %d of the variable %s", number, VARIABLE
                )


def _notifier(entry: Mapping[str, Any]) -> BaseNotifier:
    """The notifier that an entry describes; raises TypeError where its class is none."""
    kind = resolve_name(entry["notifier"])
    if not (isinstance(kind, type) and issubclass(kind, BaseNotifier)):
        raise TypeError(f"{entry['notifier']} is no notifier of Airflow")
    return kind(**entry.get("arguments", {}))
