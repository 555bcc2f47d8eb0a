"""The time zone of this machine, as the C library reads ``TZ``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from vmhost.drivers.clock import SystemClock


@pytest.mark.parametrize(
    ("said", "winter", "summer"),
    [
        ("Europe/Berlin", 1, 2),
        (":Europe/Berlin", 1, 2),
        ("/usr/share/zoneinfo/Europe/Berlin", 1, 2),
        (":/usr/share/zoneinfo/America/New_York", -5, -4),
        ("", 0, 0),
    ],
)
def test_a_zone_knows_its_summer(monkeypatch: pytest.MonkeyPatch, said: str, winter: int, summer: int) -> None:
    monkeypatch.setenv("TZ", said)
    zone = SystemClock().zone()
    for month, hours in ((1, winter), (7, summer)):
        assert datetime(2027, month, 1, tzinfo=UTC).astimezone(zone).utcoffset() == timedelta(hours=hours)
