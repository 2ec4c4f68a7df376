"""Who gives way when too many are connected to REST."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pytest

from rest_bridge.crowd import Crowd

HERE = "127.0.0.1"


@dataclass(frozen=True)
class Someone:
    address: str
    idle_since: float | None = 0.0


def crowd() -> Crowd:
    return Crowd(total=10, per_address=3, kept=2)


def of_many(n: int) -> list[Someone]:
    return [Someone(f"10.0.0.{i}", idle_since=float(i)) for i in range(n)]


@pytest.mark.parametrize(("address", "n_there"), [(HERE, 9), ("10.0.1.1", 7)])
def test_while_there_is_room_nobody_goes(address: str, n_there: int) -> None:
    assert crowd().gives_way(Someone(address), of_many(n_there)) is None


@pytest.mark.parametrize("address", [HERE, "::1", "::ffff:127.0.0.1"])
def test_places_are_kept_for_this_machine(address: str) -> None:
    there = of_many(8)  # all that others may take
    assert crowd().gives_way(Someone("10.0.1.1"), there) is there[0]
    assert crowd().gives_way(Someone(address), there) is None


def test_when_full_whoever_is_idle_longest_goes_and_not_the_new_one() -> None:
    there = [Someone(HERE, idle_since=float(when)) for when in (5, 3, 9, 1, 7, 8, 2, 6, 4, 10)]
    assert crowd().gives_way(Someone(HERE, 11.0), there) is there[3]
    assert crowd().gives_way(Someone("10.0.1.1", 11.0), there) is there[3]


def test_who_is_being_served_does_not_go() -> None:
    there = [Someone(HERE, None)] * 9 + [Someone(HERE, 99.0)]
    assert crowd().gives_way(Someone(HERE, 100.0), there) is there[-1]


def test_the_new_one_goes_when_all_others_are_being_served() -> None:
    new = Someone(HERE, 100.0)
    assert crowd().gives_way(new, [Someone(HERE, None)] * 10) is new


def test_one_address_elsewhere_has_few_places_and_takes_them_from_itself() -> None:
    there = [*of_many(2), *(Someone("10.0.1.1", 50.0 + i) for i in range(3))]
    assert crowd().gives_way(Someone("10.0.1.1", 99.0), there) is there[2]
    assert crowd().gives_way(Someone("10.0.1.2", 99.0), there) is None


def test_others_never_take_what_is_kept() -> None:
    there = [Someone(HERE, 0.0), Someone(HERE, 0.0), *(Someone(f"10.0.0.{i}", 5.0 + i) for i in range(8))]
    assert crowd().gives_way(Someone("10.0.1.1", 99.0), there) is there[2]


def test_a_crowd_on_this_machine_does_not_keep_others_out() -> None:
    there = [Someone(HERE, float(i)) for i in range(10)]
    assert crowd().gives_way(Someone("10.0.1.1", 99.0), there) is there[0]


def test_a_crowd_is_told_of_but_not_each_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    full = crowd()
    for _ in range(50):
        full.gives_way(Someone(HERE, 9.0), [Someone(HERE, 0.0)] * 10)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("REST is full")
