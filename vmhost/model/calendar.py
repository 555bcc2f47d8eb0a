"""Calendar events as systemd writes them (systemd.time(7)): ``Mon..Fri 22:00``, ``Sun 03:00``, ``*-*-01 04:00 UTC``."""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from itertools import product
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

LAST_YEAR: Final = 2199
"""systemd looks no further."""

_ALL: Final = {"year": (1970, LAST_YEAR), "month": (1, 12), "day": (1, 31)} | {
    "hour": (0, 23),
    "minute": (0, 59),
    "second": (0, 59),
}
_WEEK: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_FROM_END: Final = 28
"""The most that a day can be counted from the end of its month."""
_WORDS: Final = {
    "minutely": "*-*-* *:*:00",
    "hourly": "*-*-* *:00:00",
    "daily": "*-*-* 00:00:00",
    "weekly": "Mon *-*-* 00:00:00",
    "monthly": "*-*-01 00:00:00",
    "quarterly": "*-01,04,07,10-01 00:00:00",
    **dict.fromkeys(("semiannually", "semi-annually", "biannually", "bi-annually"), "*-01,07-01 00:00:00"),
    **dict.fromkeys(("yearly", "annually", "anually"), "*-01-01 00:00:00"),
}
_PART: Final = r"\d{1,9}(?:\.\.\d{1,9})?(?:/\d{1,9})?"
_LIST: Final = rf"(?:\*|{_PART}(?:,{_PART})*)"
_NAME: Final = "(?:" + "|".join(f"{name}|{name[:3]}" for name in _WEEK) + ")"
_WEEKDAYS: Final = re.compile(rf"(?i:{_NAME}(?:(?:,|\.\.|-){_NAME})*),?", re.ASCII)
_DATE: Final = re.compile(rf"(?:(?P<year>{_LIST})-)?(?P<month>{_LIST})(?P<from>[-~])(?P<day>{_LIST})", re.ASCII)
_TIME: Final = re.compile(rf"(?P<hour>{_LIST}):(?P<minute>{_LIST})(?::(?P<second>{_LIST}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Calendar:
    """When something is to be: all of it has to be met. ``weekdays`` are 0 (Monday) to 6.

    ``from_end``: ``days`` are counted from the end of the month, its last one is 1. ``zone`` is ``None`` for the time
    of the machine.
    """

    text: str
    weekdays: frozenset[int]
    years: frozenset[int]
    months: frozenset[int]
    days: frozenset[int]
    hours: tuple[int, ...]
    minutes: tuple[int, ...]
    seconds: tuple[int, ...]
    from_end: bool = False
    zone: tzinfo | None = None

    @property
    def every_day(self) -> bool:
        """Whether no day goes by without it."""
        days = (self.weekdays, self.years, self.months, self.days)
        return [len(some) for some in days] == [7, LAST_YEAR - 1969, 12, 31]

    def after(self, moment: datetime, local: tzinfo) -> datetime | None:
        """Return the first time after a moment, or None when there is none before the year 2200.

        :param moment: aware. :param local: the time zone of the machine.
        """
        zone = self.zone or local
        begin = moment.astimezone(zone)
        for day in self._days(begin):
            for hour in self.hours:
                if (day.year, day.month, day.day, hour) < (begin.year, begin.month, begin.day, begin.hour):
                    continue
                for found in self._within(day.replace(hour=hour, tzinfo=zone)):
                    if found > moment:
                        return found
        return None

    def _days(self, begin: datetime) -> Iterator[datetime]:
        months = product(sorted(year for year in self.years if year >= begin.year), sorted(self.months))
        for year, month in months:
            length = monthrange(year, month)[1]
            days = {length + 1 - day for day in self.days} if self.from_end else self.days
            for day in sorted(days):
                if not 1 <= day <= length or (year, month, day) < (begin.year, begin.month, begin.day):
                    continue
                found = datetime(year, month, day)  # noqa: DTZ001 - the zone follows with the hour
                if found.weekday() in self.weekdays:
                    yield found

    def _within(self, hour: datetime) -> Iterator[datetime]:
        """Yield the times of an hour, in UTC; what the clocks leave out has none, what they repeat has the first."""
        for minute, second in product(self.minutes, self.seconds):
            wall = hour.replace(minute=minute, second=second)
            found = wall.astimezone(UTC)
            if found.astimezone(wall.tzinfo).replace(tzinfo=None) == wall.replace(tzinfo=None):
                yield found


def parse_calendar(text: str) -> Calendar:
    """Return the calendar event that a text names; fractions of seconds are not known here.

    :raises ValueError: systemd would not understand it, or it never comes.
    """
    words = text.split()
    try:
        if words and words[0].lower() in _WORDS:
            words[:1] = _WORDS[words[0].lower()].split()
        week = words.pop(0) if words and _WEEKDAYS.fullmatch(words[0]) else ""
        date = _DATE.fullmatch(words[0]) if words else None
        words = words[1:] if date else words
        time = _TIME.fullmatch(words[0]) if words else None
        words = words[1:] if time else words
        if len(words) > 1 or not (week or date or time):
            raise ValueError("write for example 22:00, Mon..Fri 22:00 or *-*-01 04:00 UTC")
        found = _calendar(" ".join(text.split()), week, date, time, _zone(words[0]) if words else None)
    except ValueError as error:
        raise ValueError(f"{text[:80]!r} is no calendar event of systemd: {error}") from None
    if found.after(datetime(1970, 1, 1, tzinfo=UTC), UTC) is None:
        raise ValueError(f"{text[:80]!r} never comes")
    return found


def _calendar(
    text: str, week: str, date: re.Match[str] | None, time: re.Match[str] | None, zone: tzinfo | None
) -> Calendar:
    dates = date.groupdict() if date else {"from": "-"}
    times = time.groupdict() if time else {"hour": "0", "minute": "0"}
    from_end = dates["from"] == "~"
    years, months = _values("year", dates.get("year") or "*"), _values("month", dates.get("month") or "*")
    days = _values("day", dates.get("day") or "*", from_end=from_end)
    clock = [tuple(sorted(_values(name, times.get(name) or "0"))) for name in ("hour", "minute", "second")]
    hours, minutes, seconds = clock
    return Calendar(text, _weekdays(week), years, months, days, hours, minutes, seconds, from_end, zone)


def _weekdays(text: str) -> frozenset[int]:
    if not text:
        return frozenset(range(7))
    found = set[int]()
    for part in text.removesuffix(",").split(","):
        names = re.split(r"\.\.|-", part)
        numbers = [next(n for n, name in enumerate(_WEEK) if name.startswith(each.lower())) for each in names]
        if len(numbers) > 2 or numbers != sorted(numbers):
            raise ValueError(f"{part} are no days from Monday to Sunday")
        found.update(range(numbers[0], numbers[-1] + 1))
    return frozenset(found)


def _values(name: str, text: str, *, from_end: bool = False) -> frozenset[int]:
    """Return what a list such as ``1..5,8/2`` stands for."""
    low, high = _ALL[name]
    if text == "*":
        return frozenset(range(low, high + 1))
    high = _FROM_END if from_end else high
    found = set[int]()
    for part in text.split(","):
        span, _, every = part.partition("/")
        first, _, last = span.partition("..")
        begin, step = _number(name, first, low, high), int(every or 1)
        if not step:
            raise ValueError(f"{part} goes nowhere")
        if last or not every:
            values = range(begin, _number(name, last or first, low, high) + 1, step)
        else:  # up to the last one, which days that are counted from the end come down to
            values = range(begin, low - 1, -step) if from_end else range(begin, high + 1, step)
        if not values or (every and not last and len(values) == 1):
            raise ValueError(f"{part} goes nowhere")
        found.update(values)
    return frozenset(found)


def _number(name: str, text: str, low: int, high: int) -> int:
    value = int(text)
    if name == "year" and value < 100:
        value += 2000 if value < 70 else 1900
    if not low <= value <= high:
        raise ValueError(f"{name} {text} is not from {low} to {high}")
    return value


def _zone(name: str) -> tzinfo:
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name} is neither a time nor a time zone") from None
