"""What a node costs an hour, and how old that knowledge is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from importlib import resources
from typing import Any

from tasks.errors import InvalidInput

MAX_AGE_DAYS = 400
"""Beyond this age the table is refused: AWS changes list prices rarely, but instance families every year."""


@dataclass(frozen=True)
class HourlyPrice:
    """US dollars per node and hour.

    :param spot: a typical spot price; None where such a node is always on demand (a head node).
    """

    on_demand: float
    spot: float | None


@dataclass(frozen=True)
class PriceTable:
    """Prices of one region on one day.

    :param as_of: the day of the on-demand prices.
    :param source: where the on-demand prices are from, in words; ``source_url`` is the place.
    :param spot_source: where the spot prices are from and what they are worth; ``spot_source_url`` as above.
    :param usd_per_hour: instance type -> price.
    :param assumed_instance_types: phase (and ``head``) -> the instance type of a default deployment.
    """

    region: str
    as_of: date
    source: str
    source_url: str
    spot_source: str
    spot_source_url: str
    usd_per_hour: Mapping[str, HourlyPrice]
    assumed_instance_types: Mapping[str, str]

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> PriceTable:
        """Read the layout of ``prices.json``."""
        return cls(
            region=fields["region"],
            as_of=date.fromisoformat(fields["as_of"]),
            source=fields["source"],
            source_url=fields["source_url"],
            spot_source=fields["spot_source"],
            spot_source_url=fields["spot_source_url"],
            usd_per_hour={name: HourlyPrice(**price) for name, price in fields["usd_per_hour"].items()},
            assumed_instance_types=fields["assumed_instance_types"],
        )

    def price(self, instance_type: str) -> HourlyPrice:
        """The price of one node and hour; raises InvalidInput for a type that the table does not have."""
        if instance_type not in self.usd_per_hour:
            known = ", ".join(sorted(self.usd_per_hour))
            raise InvalidInput(
                f"the price table of {self.as_of} has no instance type {instance_type!r}, only {known}; "
                "add its prices to tasks/cost/prices.json"
            )
        return self.usd_per_hour[instance_type]

    def check_age(self, day: date) -> None:
        """Refuse the table where it is more than :data:`MAX_AGE_DAYS` days older than ``day``."""
        age_days = (day - self.as_of).days
        if age_days > MAX_AGE_DAYS:
            raise InvalidInput(
                f"the price table is of {self.as_of}, {age_days} days before this batch ran on {day}; "
                f"prices older than {MAX_AGE_DAYS} days are not used. Look the prices up anew, write them with "
                "their date to tasks/cost/prices.json, deploy, and clear this task"
            )


def current_prices() -> PriceTable:
    """The table that ships with this code."""
    text = resources.files("tasks.cost").joinpath("prices.json").read_text(encoding="utf-8")
    return PriceTable.from_json(json.loads(text))
