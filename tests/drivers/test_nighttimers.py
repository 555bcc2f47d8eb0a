"""What wakes the night's work, with systemd's own programs: its units, and what its calendar means."""

from __future__ import annotations

import errno
import os
import random
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from vmhost.drivers.nighttimers import SystemTimers
from vmhost.model.calendar import parse_calendar
from vmhost.model.errors import Absent, AlreadyThere, PermissionDenied, UsageError
from vmhost.model.nightsteps import CRON, FILES, SERVICE, TIMER, UNITS, StopTimer, TimerFile
from vmhost.ops.nightwakes import timer_texts
from vmhost.plan.wakes import plan_wakes

FULL = bool(os.environ.get("VMHOST_TEST_FULL"))
NAMES = ("Mon", "tue", "Wednesday", "thu", "Fri", "SAT", "sunday")
ZONES = ("Europe/Berlin", "America/New_York", "Asia/Tokyo")
BEGINNINGS = ("2026-11-29 12:00:00", "2027-03-27 22:10:00", "2028-02-28 23:00:00", "2026-12-30 20:00:00")
"""A night of spring among them."""


def files(*at: str, program: str = "/bin/true", on_failure: str = "") -> list[TimerFile]:
    """Return the units that wake a program."""
    texts = timer_texts([program, "nightly", "run", "50%", "$x"], at or ("22:00",), on_failure)
    return [TimerFile(path, text) for path, text in texts.items()]


@pytest.fixture
def timers(tmp_path: Path) -> SystemTimers:
    return SystemTimers(tmp_path)


def test_units_are_put_in_place_enabled_and_taken_away(timers: SystemTimers, tmp_path: Path) -> None:
    wanted = files("22:00", "Sun 03:00", on_failure="logger 'it failed' \"$HOSTNAME\"")
    timers.check(wanted)
    for file in wanted:
        timers.put(file)
    assert not timers.state().boot
    timers.start(TIMER)
    assert timers.state().boot
    assert (tmp_path / "etc/systemd/system/timers.target.wants" / TIMER).is_symlink()
    assert plan_wakes(wanted, timers.state()).empty
    timers.stop(TIMER)
    assert not timers.state().boot
    for path in FILES[:3]:
        timers.drop(path)
    assert [found for found in tmp_path.rglob("*") if not found.is_dir()] == []
    with pytest.raises(Absent):
        timers.drop(FILES[0])
    with pytest.raises(Absent):
        timers.stop(TIMER)
    with pytest.raises(Absent):
        timers.start(TIMER)


def test_a_link_whose_timer_is_gone_is_found_and_goes(timers: SystemTimers, tmp_path: Path) -> None:
    for file in files():
        timers.put(file)
    timers.start(TIMER)
    (tmp_path / UNITS.removeprefix("/") / TIMER).unlink()
    seen = timers.state()
    assert seen.boot
    stop = plan_wakes((), seen).steps[0].do
    assert stop == StopTimer(TIMER)
    timers.stop(TIMER)
    timers.drop(f"{UNITS}/{SERVICE}")
    assert [found for found in tmp_path.rglob("*") if not found.is_dir()] == []
    assert plan_wakes((), timers.state()).empty


def test_the_link_of_another_s_timer_is_not_ours(timers: SystemTimers, tmp_path: Path) -> None:
    path = tmp_path / UNITS.removeprefix("/") / TIMER
    path.parent.mkdir(parents=True)
    path.write_text("[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n")
    subprocess.run(["systemctl", f"--root={tmp_path}", "enable", "--quiet", TIMER], check=True)
    assert not timers.state().boot
    assert plan_wakes((), timers.state()).empty
    with pytest.raises(AlreadyThere):
        timers.stop(TIMER)


def test_what_cannot_be_looked_at_is_told(
    timers: SystemTimers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lstat = Path.lstat

    def refuse(path: Path) -> os.stat_result:
        """Root may look everywhere."""
        if path == tmp_path / CRON.removeprefix("/"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", refuse)
    with pytest.raises(PermissionDenied):
        timers.state()


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (files(program="/nonexistent/vmhost"), "is not executable"),
        (files(program="vmhost-of-nowhere"), "is not executable"),
        ([TimerFile(file.path, file.text.replace("=true", "=perhaps")) for file in files()], "Failed to parse"),
        ([TimerFile(file.path, file.text.replace("*-*-* 22", "*-*-* 25")) for file in files()], "calendar"),
    ],
)
def test_systemd_reads_the_units_before_anything_is_put_in_place(
    timers: SystemTimers, wanted: list[TimerFile], words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        timers.check(wanted)
    assert "/tmp" not in caught.value.message


@pytest.mark.parametrize("place", [f"{UNITS}/{TIMER}", f"/usr/lib/systemd/system/{SERVICE}", CRON])
def test_what_is_another_s_is_seen_and_stays(timers: SystemTimers, tmp_path: Path, place: str) -> None:
    path = tmp_path / place.removeprefix("/")
    path.parent.mkdir(parents=True)
    path.write_text("[Timer]\n")
    assert timers.state().foreign == (place,)
    if place in FILES:
        with pytest.raises(AlreadyThere):
            timers.put(TimerFile(place, "x"))
        with pytest.raises(AlreadyThere):
            timers.drop(place)
    assert path.read_text() == "[Timer]\n"


def test_a_unit_that_is_masked_stays_masked(timers: SystemTimers, tmp_path: Path) -> None:
    path = tmp_path / UNITS.removeprefix("/") / TIMER
    path.parent.mkdir(parents=True)
    path.symlink_to("/dev/null")
    assert timers.state().foreign == (f"{UNITS}/{TIMER}",)
    with pytest.raises(AlreadyThere):
        timers.put(files()[0].__class__(f"{UNITS}/{TIMER}", "x"))
    assert path.is_symlink()


def test_systemd_means_the_same_by_its_calendar() -> None:
    """Hundreds of made-up expressions: the same ones are none, and the others come at the same times."""
    drawn = random.Random(int(os.environ.get("VMHOST_TEST_SEED", "11")))
    zone, begin = drawn.choice(ZONES), drawn.choice(BEGINNINGS)
    texts = list(dict.fromkeys(_expression(drawn) for _ in range(10_000 if FULL else 600)))
    good = [text for text in texts if _is_calendar(text)]
    bad = sorted(set(texts) - set(good))
    assert min(len(good), len(bad)) > len(texts) / 10, "both are made up"
    theirs, lost = _ask_systemd(texts, begin, zone)
    assert len(lost) < len(texts) / 50
    for text in good:
        if text not in lost:
            assert text in theirs, f"systemd does not know {text!r}"
            ours = _ours(text, begin, zone, len(theirs[text]))
            if not any(_comes_twice(time, zone) for time in (*ours, *theirs[text])):
                assert ours == theirs[text], f"{text!r} in {zone} from {begin}"
    for text in bad:
        assert not theirs.get(text), f"systemd knows {text!r}"


def _is_calendar(text: str) -> bool:
    try:
        parse_calendar(text)
    except ValueError:
        return False
    return True


def _comes_twice(time: str, zone: str) -> bool:
    """Whether it is in the hour that autumn repeats, of which systemd takes now the one, now the other."""
    local = datetime.fromisoformat(time).replace(tzinfo=UTC).astimezone(ZoneInfo(zone))
    return local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()


def _ours(text: str, begin: str, zone: str, count: int) -> list[str]:
    at, found = datetime.fromisoformat(begin).replace(tzinfo=UTC), list[str]()
    for _ in range(max(1, count)):
        after = parse_calendar(text).after(at, ZoneInfo(zone))
        if after is None:
            break
        at = after
        found.append(f"{at:%Y-%m-%d %H:%M:%S}")
    return found


def _ask_systemd(texts: Sequence[str], begin: str, zone: str) -> tuple[dict[str, list[str]], set[str]]:
    """Return the next three times in UTC of each expression that is one, and those in which systemd loses its way."""
    found, lost = dict[str, list[str]](), set[str]()
    env = {**os.environ, "TZ": zone, "LC_ALL": "C"}
    for start in range(0, len(texts), 200):
        some = texts[start : start + 200]
        argv = ["systemd-analyze", "calendar", f"--base-time={begin} UTC", "--iterations=3", "--", *some]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
        failed = re.findall(r"^Failed to (parse|determine) .*? '(.*)': ", done.stderr, re.MULTILINE)
        lost |= {text for what, text in failed if what == "determine"}
        known = [text for text in some if text not in {text for _, text in failed}]
        blocks = re.split(r"^ *Normalized form: ", done.stdout, flags=re.MULTILINE)[1:]
        for text, block in zip(known, blocks, strict=True):
            found[text] = re.findall(r"\(in UTC\): \w+ (\S+ \S+) UTC", block)
    return found, lost


def _expression(drawn: random.Random) -> str:
    words = []
    if drawn.random() < 0.05:
        words = [
            drawn.choice(("hourly", "Daily", "weekly", "monthly", "quarterly", "yearly", "minutely", "semiannually"))
        ]
    else:
        if drawn.random() < 0.4:
            words.append(",".join(_weekdays(drawn) for _ in range(drawn.choice((1, 1, 2)))))
        if drawn.random() < 0.6:
            words.append(_date(drawn))
        if drawn.random() < 0.85 or not words:
            seconds = f":{_list(drawn, 0, 59, ranges=0)}" if drawn.random() < 0.3 else ""
            words.append(f"{_list(drawn, 0, 23)}:{_list(drawn, 0, 59)}{seconds}")
    if drawn.random() < 0.1:
        words.append(drawn.choice(("UTC", "utc", "America/New_York", "Asia/Kolkata", "Nowhere/Land")))
    return " ".join(words)


def _weekdays(drawn: random.Random) -> str:
    last = f"{drawn.choice(('..', '-'))}{drawn.choice(NAMES)}" if drawn.random() < 0.4 else ""
    return f"{drawn.choice(NAMES)}{last}"


def _date(drawn: random.Random) -> str:
    year = drawn.choice(("", "*-", "*-", "26-", "27/1-", f"{_list(drawn, 2025, 2030)}-"))
    month = _list(drawn, 1, 12)
    if drawn.random() < 0.25:  # of more such days systemd 252 refuses some that are late in the list
        return f"{year}{month}~{_list(drawn, 1, 28, most=1)}"
    return f"{year}{month}-{_list(drawn, 1, 31)}"


def _list(drawn: random.Random, low: int, high: int, *, most: int = 3, ranges: float = 0.25) -> str:
    if drawn.random() < 0.35:
        return "*"
    return ",".join(_part(drawn, low, high, ranges) for _ in range(drawn.choice((1, 1, 1, 2, most)) if most > 1 else 1))


def _part(drawn: random.Random, low: int, high: int, ranges: float) -> str:
    first = drawn.randint(low, high) if drawn.random() > 0.03 else high + 1
    last = min(high, first + drawn.randint(0, 6)) if drawn.random() < 0.7 else drawn.randint(low, high)
    text = f"{first:02}" if drawn.random() < 0.5 else f"{first}"
    text += f"..{last}" if drawn.random() < ranges else ""
    # At the end of a month or year, systemd 252 may jump over hours, days and months after a repetition without an end.
    repeats = drawn.random() < 0.25 and (".." in text or high == 59)
    return text + (f"/{drawn.randint(0, 7)}" if repeats else "")
