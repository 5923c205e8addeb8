"""The price table: what it holds, and when it is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest

from tasks.cost.prices import MAX_AGE_DAYS, current_prices
from tasks.cost.report import PHASES
from tasks.errors import InvalidInput


def test_every_phase_has_a_price() -> None:
    prices = current_prices()
    for phase in (*PHASES, "head"):
        assert prices.price(prices.assumed_instance_types[phase]).on_demand > 0


def test_spot_is_cheaper_than_on_demand() -> None:
    for name, price in current_prices().usd_per_hour.items():
        assert price.spot is None or 0 < price.spot < price.on_demand, name


def test_the_table_says_where_its_numbers_come_from() -> None:
    prices = current_prices()
    assert prices.source_url.startswith("https://")
    assert prices.spot_source_url.startswith("https://")
    assert "typical" in prices.spot_source
    assert prices.as_of <= date.today()


@pytest.mark.parametrize("age_days", [-30, 0, MAX_AGE_DAYS])
def test_a_table_of_allowed_age(age_days: int) -> None:
    prices = replace(current_prices(), as_of=date(2026, 1, 1))
    prices.check_age(date(2026, 1, 1) + timedelta(days=age_days))


def test_an_old_table_is_refused_and_the_message_says_what_to_do() -> None:
    prices = replace(current_prices(), as_of=date(2024, 1, 1))
    with pytest.raises(InvalidInput, match=r"2024-01-01, 1054 days before .* 2026-11-20.*prices\.json"):
        prices.check_age(date(2026, 11, 20))


def test_an_unknown_instance_type_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"no instance type 'x9\.huge', only c5n\.18xlarge"):
        current_prices().price("x9.huge")
