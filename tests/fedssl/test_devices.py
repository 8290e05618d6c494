from __future__ import annotations

import pytest

from fedssl.config import ConfigError
from fedssl.devices import Devices
from fedssl.rng import Rng


def rngs(count: int):
    return [Rng(0, round_, 2) for round_ in range(count)]


def test_slow_devices_take_their_factors_in_turn_and_cut_their_epochs():
    slow = Devices(hardware="slow", factors=[1.0, 2.0, 4.0])
    assert [slow.factor(user) for user in range(4)] == [1, 2, 4, 1]
    assert [slow.epochs_of(user, 5) for user in range(3)] == [5, 2, 1]
    assert [Devices(hardware="slow", slow_epochs="all").epochs_of(user, 5) for user in range(3)] == [5, 5, 5]
    assert [Devices().epochs_of(user, 5) for user in range(3)] == [5, 5, 5]


def test_time_is_bytes_over_bandwidth_and_steps_by_speed():
    slow = Devices(hardware="slow", factors=[1.0, 3.0], bandwidth=100.0, step_seconds=0.5)
    assert slow.seconds(0, 200, 4) == 2 + 2
    assert slow.seconds(1, 200, 4) == 2 + 6


def test_visits_fail_and_answers_wait_at_the_rate_asked_for():
    dropout, late = Devices(hardware="dropout"), Devices(hardware="late", late_rate=0.5, max_delay=3)
    assert sum(dropout.drops(rng) for rng in rngs(2000)) == pytest.approx(400, abs=60)
    delays = [late.delay(rng) for rng in rngs(2000)]
    assert set(delays) == {0, 1, 2, 3}
    assert delays.count(0) == pytest.approx(1000, abs=80)
    assert delays == [late.delay(rng) for rng in rngs(2000)]


def test_other_scenarios_do_not_mix():
    for hardware in ("none", "slow", "late"):
        assert not any(Devices(hardware=hardware, drop_rate=0.9).drops(rng) for rng in rngs(20))
    for hardware in ("none", "slow", "dropout"):
        assert not any(Devices(hardware=hardware, late_rate=1.0).delay(rng) for rng in rngs(20))


def test_no_factor_at_all_is_refused():
    with pytest.raises(ConfigError, match=r"method.factors=\[\]"):
        Devices(factors=[])
