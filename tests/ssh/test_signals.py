"""A guest's signs of life: console lines as they are written, events, and a queue that wakes whoever waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from tests.ssh.used import no_more_than, used
from vmhost.drivers.signals import ConsoleWatch, GuestSignals, GuestWakeups, readable
from vmhost.model.errors import Absent
from vmhost.ports import DomainEvent, Hypervisor

pytestmark = pytest.mark.serial  # it has deadlines in real time

UUID = "3f2a91c4-5d0b-4c53-9d8e-0c6f4d3a2b1e"


class Domains:
    """The part of a hypervisor that tells events."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[DomainEvent], None]] = []

    def subscribe(self, listener: Callable[[DomainEvent], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def tell(self, uuid: str, kind: str) -> None:
        for listener in list(self.listeners):
            listener(DomainEvent(uuid, "web-01", kind))


@pytest.fixture
def domains() -> Domains:
    return Domains()


@pytest.fixture
def watched(domains: Domains, area: Path) -> Iterator[tuple[GuestWakeups, Path]]:
    log = area / "web-01.log"
    with GuestSignals().open(cast("Hypervisor", domains), UUID, str(log)) as wakeups:
        yield wakeups, log


def lines(wakeups: GuestWakeups, count: int) -> list[str]:
    """The next ``count`` signs."""
    found: list[str] = []
    until = time.monotonic() + 30
    while len(found) < count and time.monotonic() < until:
        found += wakeups.wait(until - time.monotonic())
    assert len(found) == count, found
    return found


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_lines_come_as_they_are_written_to_a_file_that_is_made_later(watched: tuple[GuestWakeups, Path]) -> None:
    wakeups, log = watched
    append(log, b"SeaBIOS\r\n")
    assert lines(wakeups, 1) == ["console: SeaBIOS"]
    append(log, b"Linux ver")
    append(log, b"sion 6.1\r\n\r\n")
    assert lines(wakeups, 1) == ["console: Linux version 6.1"]
    assert wakeups.wait(0.05) == ()


def test_what_was_said_before_is_not_told(domains: Domains, area: Path) -> None:
    log = area / "log"
    log.write_bytes(b"an earlier boot\n")
    with GuestSignals().open(cast("Hypervisor", domains), UUID, str(log)) as wakeups:
        append(log, b"this boot\n")
        assert lines(wakeups, 1) == ["console: this boot"]


def test_a_new_start_truncates_the_file(watched: tuple[GuestWakeups, Path]) -> None:
    wakeups, log = watched
    append(log, b"a long line of the first start\n")
    lines(wakeups, 1)
    log.write_bytes(b"")
    append(log, b"second\n")
    assert lines(wakeups, 1) == ["console: second"]


def test_rotation_loses_nothing(watched: tuple[GuestWakeups, Path]) -> None:
    """virtlogd renames the full file and goes on in a new one (max_size of virtlogd.conf)."""
    wakeups, log = watched
    for turn in range(4):
        append(log, f"first of {turn}\n".encode())
        assert lines(wakeups, 1) == [f"console: first of {turn}"]
        append(log, f"last of {turn}\n".encode())
        log.rename(log.with_name("web-01.log.0"))
        assert lines(wakeups, 1) == [f"console: last of {turn}"]


def test_a_line_without_an_end_is_told_in_pieces(watched: tuple[GuestWakeups, Path]) -> None:
    wakeups, log = watched
    append(log, b"x" * 10_000)
    assert sum(len(line) - len("console: ") for line in lines(wakeups, 1)) >= 4096


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"[\x1b[0;32m  OK  \x1b[0m] Started \x1b[0;1;39mssh.service\x1b[0m.", "[  OK  ] Started ssh.service."),
        (b"\x1b]52;c;cm0gLXJm\x07hello", "hello"),
        (b"\x1b]0;title\x1b\\hello", "hello"),
        (b"\x1bPq#0\x1b\\hello", "hello"),
        (b"\x1bc\x1b[2J\x1b[1;1Hhello", "hello"),
        ("\x9b31mhello\N{RIGHT-TO-LEFT OVERRIDE}x".encode(), "hello x"),
        (b"\xff\xfe\x00a\x07b\x7fc", "\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER} a b c"),
        ("gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n".encode(), "gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n"),
    ],
)
def test_the_console_cannot_act_on_a_terminal(data: bytes, text: str) -> None:
    assert readable(data) == text
    assert readable(data).isprintable()


def test_no_console_line_passes_for_an_event(watched: tuple[GuestWakeups, Path], domains: Domains) -> None:
    wakeups, log = watched
    append(log, b"stopped\n")
    assert lines(wakeups, 1) == ["console: stopped"]
    domains.tell(UUID, "stopped")
    assert lines(wakeups, 1) == ["stopped"]


def test_events_of_other_guests_are_theirs(watched: tuple[GuestWakeups, Path], domains: Domains) -> None:
    wakeups, _ = watched
    domains.tell("00000000-0000-4000-8000-000000000000", "stopped")
    domains.tell(UUID, "agent-connected")
    assert wakeups.wait(30) == ("agent-connected",)


def test_closing_leaves_no_thread_no_descriptor_and_no_listener(domains: Domains, area: Path) -> None:
    def watch(name: str) -> None:
        wakeups = GuestSignals().open(cast("Hypervisor", domains), UUID, str(area / name))
        append(area / name, b"hello\n")
        lines(wakeups, 1)
        wakeups.close()
        wakeups.close()

    watch("first")
    before = used()
    for number in range(5):
        watch(str(number))
    assert no_more_than(before)
    assert domains.listeners == []


def test_without_a_console_there_are_still_events(domains: Domains) -> None:
    with GuestSignals().open(cast("Hypervisor", domains), UUID, "") as wakeups:
        domains.tell(UUID, "started")
        assert wakeups.wait(30) == ("started",)


def test_a_directory_that_is_not_there(domains: Domains) -> None:
    with pytest.raises(Absent, match="no such directory"):
        GuestSignals().open(cast("Hypervisor", domains), UUID, "/nonexistent/log")
    assert domains.listeners == []


def test_a_waiter_wakes_at_once_and_a_late_one_gets_all() -> None:
    wakeups = GuestWakeups()
    threading.Timer(0.1, wakeups.notify, ("ssh",)).start()
    began = time.monotonic()
    assert wakeups.wait(60) == ("ssh",)
    assert time.monotonic() - began < 10
    for number in range(3000):
        wakeups.notify(str(number))
    signs = wakeups.wait(0)
    assert (len(signs), signs[-1]) == (2000, "2999")
    assert wakeups.wait(0) == ()


def test_the_tail_of_a_console_reaches_into_its_rotated_part(area: Path) -> None:
    log = area / "log"
    (area / "log.0").write_bytes(b"one\ntwo\n")
    log.write_bytes(b"\x1b[31mthree\x1b[0m\r\n\r\nfo")
    signals = GuestSignals()
    assert signals.console_tail(str(log), 3) == ("two", "three", "fo")
    assert signals.console_tail(str(log), 0) == ()
    assert signals.console_tail(str(area / "absent"), 3) == ()
    assert signals.console_tail("", 3) == ()


def test_the_tail_of_a_large_console_is_read_from_its_end(area: Path) -> None:
    log = area / "log"
    log.write_bytes(b"x" * (8 << 20) + b"\n" + b"the end\n")
    assert GuestSignals().console_tail(str(log), 1) == ("the end",)


def test_a_console_is_forgotten_with_all_its_parts(area: Path) -> None:
    log = area / "log"
    for name in ("log", "log.0", "log.1", "log.2", "logbook"):
        (area / name).touch()
    GuestSignals().forget_console(str(log))
    assert [entry.name for entry in area.iterdir()] == ["logbook"]
    GuestSignals().forget_console(str(log))
    GuestSignals().forget_console("")


def test_every_line_wakes_before_the_next_is_written(area: Path) -> None:
    log = area / "log"
    arrived: list[str] = []
    got = threading.Event()

    def on_line(line: str) -> None:
        arrived.append(line)
        got.set()

    watch = ConsoleWatch(log, on_line)
    for number in range(100):
        got.clear()
        with log.open("ab", buffering=0) as file:
            file.write(f"{number}\n".encode())
        assert got.wait(30)
    watch.close()
    assert arrived == [str(number) for number in range(100)]
