"""What services wrote to their guests' journals, merged by time."""

from __future__ import annotations

import heapq
import json
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from vmhost.drivers.ssh.fanout import WORKERS, map_guests
from vmhost.model.errors import DriverError, Refused, Unreachable, VmhostError
from vmhost.model.guestops import GuestCommand
from vmhost.model.text import sanitize

if TYPE_CHECKING:
    from vmhost.ops.services import Found, Services

CAP: Final = 8 << 20
PAUSE: Final = 1.0
SLOW: Final = 3.0
"""Seconds for which the log waits for a guest, to merge its lines with those of the others."""

TIMEOUT: Final = 15.0
"""Seconds in which a journal that is followed has to be read."""

_MOMENT: Final = 0.1
_LATEST: Final = 253402300799 * 10**6
"""The end of the year 9999 in microseconds: no calendar here goes further, whatever a guest's clock says."""


@dataclass(frozen=True, slots=True, order=True)
class LogLine:
    """One line of a journal: ``at`` in seconds since the epoch by the guest's clock, ``text`` safe for a terminal."""

    at: float
    guest: str
    service: str
    text: str


@dataclass(slots=True)
class _Reader:
    """Reads one service's journal in one guest, from where it stopped the last time."""

    services: Services
    item: Found
    since: float
    lines: int
    timeout: float = 60.0
    cursor: str = ""
    told: str = field(default="")
    cut: bool = False
    slow: bool = False

    @property
    def key(self) -> str:
        """What this one is known by among the readers of a log."""
        return f"{self.item.deployed.name}\0{self.item.guest}"

    def read(self) -> list[LogLine]:
        state = self.item.state
        if state is None or state.unit is None:
            raise Refused("this service has no unit, and so no journal", subject=self.item.guest)
        if not self.item.domain.active:
            raise Unreachable("the guest does not run", subject=self.item.guest)
        newest = ("--lines", str(self.lines), "--since", f"-{self.since:.0f}s")
        place = ("--after-cursor", self.cursor) if self.cursor else newest
        words = ("journalctl", "--no-pager", "--quiet", "--output=json", *place)
        command = GuestCommand((*words, "--unit", state.unit.name), timeout=self.timeout)
        result = self.services.lines.run(self.item.guest, command, again=True, cap=CAP)
        if result.exit_code not in (0, 1):
            text = result.stderr.decode("utf-8", "replace").strip()[:200]
            raise DriverError(f"its journal cannot be read: {text}", subject=self.item.guest)
        self.cut = result.truncated
        return [line for raw in result.stdout.splitlines() if (line := self._line(raw)) is not None]

    def _line(self, raw: bytes) -> LogLine | None:
        try:
            entry: Any = json.loads(raw)
            self.cursor = str(entry.get("__CURSOR", self.cursor))
            at = min(_LATEST, max(0, int(entry["__REALTIME_TIMESTAMP"]))) / 1e6
        except (ValueError, KeyError, TypeError, AttributeError):
            return None  # the last line of an answer that was cut
        who = entry.get("SYSLOG_IDENTIFIER") or entry.get("_COMM") or ""
        text = " ".join(sanitize(part) for part in _message(entry.get("MESSAGE")).splitlines())
        return LogLine(at, self.item.guest, self.item.deployed.name, f"{sanitize(str(who))}: {text}" if who else text)


def _message(value: Any) -> str:
    """Return a message, which is a list of bytes where it is no text (systemd.journal-fields(7))."""
    if isinstance(value, list):
        return bytes(item for item in value if isinstance(item, int) and 0 <= item < 256).decode("utf-8", "replace")
    return str(value if value is not None else "")


def logs(
    services: Services,
    found: Sequence[Found],
    *,
    since: float,
    lines: int,
    follow: bool,
    cancelled: Callable[[], bool],
) -> Iterator[LogLine]:
    """Yield lines; see :meth:`Services.logs`. A guest that does not answer is told in a line of its own."""
    if follow:
        following = _Following([_Reader(services, item, since, lines, TIMEOUT) for item in found], cancelled)
        while not cancelled():
            yield from heapq.merge(*(sorted(part) for part in following.round()))
            following.pause()
        return
    readers = {reader.key: reader for reader in (_Reader(services, item, since, lines) for item in found)}
    answers = map_guests(lambda reader: reader.read(), readers)
    yield from heapq.merge(*(sorted(_told(readers[key], answer)) for key, answer in answers.items()))
    yield from (_cut(reader) for reader in readers.values() if reader.cut)


class _Following:
    """Guests that are read again and again, eight at a time; one that hangs delays nobody.

    It is waited for once. Then its lines come when it has answered, and it is not asked again before.
    """

    def __init__(self, readers: Sequence[_Reader], cancelled: Callable[[], bool]) -> None:
        self._readers = readers
        self._cancelled = cancelled
        self._begun: dict[str, float] = {}
        self._heard: queue.SimpleQueue[tuple[_Reader, list[LogLine] | BaseException]] = queue.SimpleQueue()

    def round(self) -> list[list[LogLine]]:
        """Return what guests have written since they were read last; of one that is slow what it is waited for."""
        todo = deque(reader for reader in self._readers if reader.key not in self._begun)
        came: list[list[LogLine]] = []
        while not self._cancelled():
            while todo and len(self._waited_for()) < WORKERS:
                self._begin(todo.popleft())
            came += self._take()
            if not todo and not self._waited_for():
                break
        return came

    def pause(self) -> None:
        """Wait until it is time for the next round, or nobody reads the log any more."""
        ends = time.monotonic() + PAUSE
        while not self._cancelled() and (left := ends - time.monotonic()) > 0:
            time.sleep(min(left, _MOMENT))

    def _waited_for(self) -> list[_Reader]:
        return [reader for reader in self._readers if reader.key in self._begun and not reader.slow]

    def _begin(self, reader: _Reader) -> None:
        self._begun[reader.key] = time.monotonic()
        threading.Thread(target=self._read, args=(reader,), name="journal", daemon=True).start()

    def _read(self, reader: _Reader) -> None:
        try:
            self._heard.put((reader, reader.read()))
        except BaseException as error:  # noqa: BLE001 - handed to whoever reads the log; a thread's end would say nothing
            self._heard.put((reader, error))

    def _take(self) -> list[list[LogLine]]:
        """Return what has come by now, and of each guest that becomes slow a word; waits for a moment."""
        came: list[list[LogLine]] = []
        with suppress(queue.Empty):
            came.append(self._answered(*self._heard.get(timeout=_MOMENT)))
            while True:
                came.append(self._answered(*self._heard.get_nowait()))
        now = time.monotonic()
        for reader in self._waited_for():
            if now - self._begun[reader.key] > SLOW:
                reader.slow = True
                came.append([_word_of(reader, "not read yet")])
        return came

    def _answered(self, reader: _Reader, answer: list[LogLine] | BaseException) -> list[LogLine]:
        del self._begun[reader.key]
        if isinstance(answer, BaseException) and not isinstance(answer, VmhostError):
            raise answer
        reader.slow = reader.slow and isinstance(answer, VmhostError)
        return _told(reader, answer)


def _cut(reader: _Reader) -> LogLine:
    there = f"there is more than {CAP >> 20} MiB"
    return _word_of(reader, f"cut: {there}, and what came later is missing; ask by --since or --lines for less")


def _told(reader: _Reader, answer: list[LogLine] | VmhostError) -> list[LogLine]:
    if not isinstance(answer, VmhostError):
        reader.told = ""
        return answer
    if answer.message == reader.told:
        return []
    reader.told = answer.message
    return [_word_of(reader, f"not read: {sanitize(answer.message)}")]


def _word_of(reader: _Reader, text: str) -> LogLine:
    """Return what vmhost itself has to say of a journal."""
    return LogLine(0.0, reader.item.guest, reader.item.deployed.name, f"({text})")
