"""Signs of life of a guest: its serial console by inotify, its domain's events by libvirt, anything else by ``notify``.

Nothing here polls. A console line reaches whoever waits as soon as QEMU or virtlogd has written it.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from inotify_simple import INotify, flags

from vmhost.drivers.files import make_directory
from vmhost.model.errors import Absent, PermissionDenied
from vmhost.ports import DomainEvent, Hypervisor

CONSOLE: Final = "console: "
"""What a sign begins with when it is a line of the console, so that no guest can print an event."""

_KEPT: Final = 2000
_LINE_LIMIT: Final = 4096
_READ: Final = 64 * 1024
_TAIL: Final = 128 * 1024
_DIRECTORY_EVENTS: Final = flags.CREATE | flags.MOVED_TO
_FILE_EVENTS: Final = flags.MODIFY

_ESCAPES: Final = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # operating system command: window titles, clipboard
    r"|\x1b[P^_X][^\x1b]*(?:\x1b\\)?"  # device control and other strings
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # control sequence: colours, cursor
    r"|\x1b[ -/]*[0-~]?"
)


def readable(data: bytes) -> str:
    """Return console bytes as text without escape sequences and other characters that act on a terminal."""
    text = _ESCAPES.sub("", data.decode("utf-8", "replace"))
    return "".join(character if character.isprintable() else " " for character in text).strip()


class GuestWakeups:
    """The signs of one guest. Any thread may notify; whoever waits is woken at once.

    At most 2,000 signs are kept for a waiter that does not come; the oldest are dropped.
    """

    def __init__(self) -> None:
        self._signs: deque[str] = deque(maxlen=_KEPT)
        self._changed = threading.Condition()
        self._endings: list[Callable[[], None]] = []

    def __enter__(self) -> GuestWakeups:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def notify(self, sign: str) -> None:
        """Add a sign; from any thread, never waits."""
        with self._changed:
            self._signs.append(sign)
            self._changed.notify_all()

    def wait(self, timeout: float) -> tuple[str, ...]:
        """Return the signs since the last call, waiting up to ``timeout`` seconds for one; empty on time-out.

        A sign is ``console: TEXT`` for a line of the console, or the kind of a :class:`DomainEvent`.
        """
        with self._changed:
            self._changed.wait_for(lambda: bool(self._signs), timeout)
            signs = tuple(self._signs)
            self._signs.clear()
            return signs

    def at_close(self, ending: Callable[[], None]) -> None:
        """Call ``ending`` when the wakeups are closed."""
        self._endings.append(ending)

    def close(self) -> None:
        """Stop watching; signs that were not fetched are lost. Closing twice is fine."""
        while self._endings:
            self._endings.pop()()


class GuestSignals:
    """The ``Signals`` port."""

    def open(self, hypervisor: Hypervisor, uuid: str, serial_log: str) -> GuestWakeups:
        """Watch a guest from now on; what its console said before is not told.

        :param serial_log: the file that its serial console is logged to; it may not exist yet. Empty for none.
        :raises Absent: the directory of ``serial_log`` does not exist.
        """
        wakeups = GuestWakeups()

        def listen(event: DomainEvent) -> None:
            if event.uuid == uuid:
                wakeups.notify(event.kind)

        try:
            if serial_log:
                watch = ConsoleWatch(Path(serial_log), lambda line: wakeups.notify(CONSOLE + line))
                wakeups.at_close(watch.close)
            wakeups.at_close(hypervisor.subscribe(listen))
        except BaseException:
            wakeups.close()
            raise
        return wakeups

    def make_room(self, logs: str) -> None:
        make_directory(Path(logs))

    def console_tail(self, serial_log: str, lines: int) -> tuple[str, ...]:
        """Return the console's last lines that are not blank, safe for a terminal; empty when there is no log."""
        path = Path(serial_log)
        data = b""
        for part in (path, *_rotated(path)) if serial_log else ():
            data = _last_bytes(part) + data
            if data.count(b"\n") > lines * 2:
                break
        found = [line for line in (readable(piece) for piece in data.split(b"\n")) if line]
        return tuple(found[-lines:]) if lines > 0 else ()

    def forget_console(self, serial_log: str) -> None:
        """Delete a console's log and its rotated parts; absent ones are fine.

        :raises PermissionDenied: one may not be deleted; the others before it are gone.
        """
        path = Path(serial_log)
        for part in (path, *_rotated(path)) if serial_log else ():
            try:
                part.unlink(missing_ok=True)
            except PermissionError as error:
                raise PermissionDenied("the console's log may not be deleted", subject=str(part)) from error


class ConsoleWatch:
    """Tells every new line of a growing file, in a thread of its own.

    The file may not exist yet; it may be truncated (a new start), or renamed and made anew (virtlogd rotates at 2 MiB).

    :param on_line: called with each line, made readable; blank ones are left out.
    :raises Absent: the file's directory does not exist.
    """

    def __init__(self, path: Path, on_line: Callable[[str], None]) -> None:
        self._path = path
        self._on_line = on_line
        self._inotify = INotify()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._file: int | None = None
        self._file_watch = -1
        self._position = 0
        self._partial = b""
        try:
            self._directory_watch = self._inotify.add_watch(path.parent, _DIRECTORY_EVENTS)
        except OSError as error:
            self._release()
            raise Absent("no such directory for the console's log", subject=str(path.parent)) from error
        self._follow()
        self._skip_past()
        self._thread = threading.Thread(target=self._run, name=f"console-{path.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; the thread is gone when this returns. Closing twice is fine."""
        if self._thread.is_alive():
            os.eventfd_write(self._stop, 1)
            self._thread.join()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._inotify, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        try:
            while self._stop not in {ready for ready, _ in poll.poll()}:
                self._take_events()
        finally:
            self._release()

    def _take_events(self) -> None:
        """Read what is new; if the file was made anew, first the rest of the old one."""
        events = self._inotify.read(timeout=0)
        self._drain()
        if any(event.wd == self._directory_watch and event.name == self._path.name for event in events):
            self._follow()
            self._drain()

    def _follow(self) -> None:
        """Open the file that now has the name, and watch it."""
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return  # its creation will wake us
        except OSError as error:
            self._on_line(f"({self._path.name} cannot be read: {error.strerror})")
            return
        self._forget_file()
        self._file = file
        self._position = 0
        # By the open file, not by its name, which may already be another's again.
        self._file_watch = self._inotify.add_watch(f"/proc/self/fd/{file}", _FILE_EVENTS)

    def _skip_past(self) -> None:
        """Leave out what the file holds already."""
        if self._file is not None:
            self._position = os.fstat(self._file).st_size

    def _drain(self) -> None:
        if self._file is None:
            return
        if os.fstat(self._file).st_size < self._position:
            self._position, self._partial = 0, b""
        while data := os.pread(self._file, _READ, self._position):
            self._position += len(data)
            self._tell(data)

    def _tell(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > _LINE_LIMIT:
            lines.append(self._partial)
            self._partial = b""
        for line in lines:
            if text := readable(line):
                self._on_line(text)

    def _forget_file(self) -> None:
        if self._file is None:
            return
        with contextlib.suppress(OSError):  # the kernel removes the watch of a deleted file itself
            self._inotify.rm_watch(self._file_watch)
        os.close(self._file)
        self._file = None

    def _release(self) -> None:
        self._forget_file()
        self._inotify.close()
        os.close(self._stop)


def _rotated(path: Path) -> Iterator[Path]:
    """Yield the rotated parts of a log, the newest first: ``NAME.0``, ``NAME.1``, ..."""
    number = 0
    while (part := path.with_name(f"{path.name}.{number}")).exists():
        yield part
        number += 1


def _last_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            return file.read(_TAIL)
    except OSError:
        return b""
