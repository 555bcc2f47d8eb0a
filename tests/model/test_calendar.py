"""Calendar events: what they mean, and what is none. That systemd means the same: tests/drivers/test_nighttimers.py."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from vmhost.model.calendar import parse_calendar

BERLIN = ZoneInfo("Europe/Berlin")


def moments(text: str, begin: str, count: int = 3) -> list[str]:
    """Return the next moments in Berlin, as UTC."""
    calendar, at, found = parse_calendar(text), datetime.fromisoformat(begin), []
    for _ in range(count):
        after = calendar.after(at, BERLIN)
        if after is None:
            break
        at = after
        found.append(at.astimezone(UTC).strftime("%m-%d %H:%M"))
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("22:00", ["11-29 21:00", "11-30 21:00", "12-01 21:00"]),
        ("Mon..Fri 22:00 UTC", ["11-30 22:00", "12-01 22:00", "12-02 22:00"]),
        ("Sun 03:00", ["12-06 02:00", "12-13 02:00", "12-20 02:00"]),
        ("*-*-01 04:00 America/New_York", ["12-01 09:00", "01-01 09:00", "02-01 09:00"]),
        ("Sun *-*~07/1 1:00", ["12-27 00:00", "01-31 00:00", "02-28 00:00"]),  # the last Sunday of the month
        ("8..18/4:30", ["11-29 15:30", "11-30 07:30", "11-30 11:30"]),
        ("weekly", ["11-29 23:00", "12-06 23:00", "12-13 23:00"]),
        ("2026-12-24,25 18:00", ["12-24 17:00", "12-25 17:00"]),
        ("2020-01-01", []),
    ],
)
def test_what_comes_next(text: str, expected: list[str]) -> None:
    assert moments(text, "2026-11-29T12:00:00+00:00") == expected


def test_the_moment_itself_is_not_after_it() -> None:
    assert moments("22:00 UTC", "2026-11-29T22:00:00+00:00", 1) == ["11-30 22:00"]
    assert moments("22:00 UTC", "2026-11-29T21:59:59.999999+00:00", 1) == ["11-29 22:00"]


def test_what_the_clocks_leave_out_does_not_come_and_what_they_repeat_comes_once() -> None:
    assert moments("02:30", "2027-03-27T12:00:00+00:00", 2) == ["03-29 00:30", "03-30 00:30"]
    assert moments("02:30", "2026-10-24T12:00:00+00:00", 2) == ["10-25 00:30", "10-26 01:30"]
    assert moments("02:30", "2026-10-25T00:45:00+00:00", 1) == ["10-26 01:30"]


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "sometimes", "22", "25:00", "22:60", "22:00:60", "22:00 Nowhere/Land", "22:00 ../../etc/passwd"),
        "\u017fat 22:00",
        *("Fri..Mon 22:00", "Mond 22:00", "*-13-01", "*-*-32", "*-*~29", "*-*~05..01", "10..8:00", "*/2:00", "0/0:00"),
        *(
            "23/1:00",
            "*-12/5-1",
            "22:00 UTC UTC",
            "22:00 Mon",
            "22:00:00.5",
            "22:00\nExecStart=/bin/sh",
            "٣:00",
            "1-1-1-1",
        ),
        *("9" * 300, "1" * 50 + ":00", "-", "~", ",", "Mon,,Tue", "*"),
    ],
)
def test_nonsense_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="no calendar event of systemd"):
        parse_calendar(text)


@pytest.mark.parametrize("text", ["*-02-30", "*-04,06-31 1:00", "Mon 2026-11-29"])
def test_what_never_comes_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="never comes"):
        parse_calendar(text)


def test_a_text_is_kept_in_one_spelling() -> None:
    assert parse_calendar("  Mon..Fri   22:00 ").text == "Mon..Fri 22:00"
