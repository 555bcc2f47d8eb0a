"""What services wrote to their guests' journals, merged by time."""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from vmhost.model.errors import DriverError, Refused, Unreachable, VmhostError
from vmhost.model.guestops import GuestCommand
from vmhost.model.text import sanitize

if TYPE_CHECKING:
    from vmhost.ops.services import Found, Services

CAP: Final = 8 << 20
PAUSE: Final = 1.0
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
    cursor: str = ""
    told: str = field(default="")
    cut: bool = False

    def read(self) -> list[LogLine]:
        state = self.item.state
        if state is None or state.unit is None:
            raise Refused("this service has no unit, and so no journal", subject=self.item.guest)
        if not self.item.domain.active:
            raise Unreachable("the guest does not run", subject=self.item.guest)
        newest = ("--lines", str(self.lines), "--since", f"-{self.since:.0f}s")
        place = ("--after-cursor", self.cursor) if self.cursor else newest
        words = ("journalctl", "--no-pager", "--quiet", "--output=json", *place)
        command = GuestCommand((*words, "--unit", state.unit.name))
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
    from vmhost.drivers.ssh.fanout import map_guests

    readers = {f"{item.deployed.name}\0{item.guest}": _Reader(services, item, since, lines) for item in found}
    while not cancelled():
        answers = map_guests(lambda reader: reader.read(), readers)
        heard = [_told(readers[key], answer) for key, answer in answers.items()]
        yield from heapq.merge(*(sorted(part) for part in heard))
        if not follow:
            yield from (_cut(reader) for reader in readers.values() if reader.cut)
            return
        time.sleep(PAUSE)


def _cut(reader: _Reader) -> LogLine:
    text = (
        f"(cut: there is more than {CAP >> 20} MiB, and what came later is missing; ask by --since or --lines for less)"
    )
    return LogLine(0.0, reader.item.guest, reader.item.deployed.name, text)


def _told(reader: _Reader, answer: list[LogLine] | VmhostError) -> list[LogLine]:
    if not isinstance(answer, VmhostError):
        reader.told = ""
        return answer
    if answer.message == reader.told:
        return []
    reader.told = answer.message
    item = reader.item
    return [LogLine(0.0, item.guest, item.deployed.name, f"(not read: {sanitize(answer.message)})")]
