"""A running guest's disk on its way into a repository: read, written past the cache and hashed at the same time.

The file's tables come first (:mod:`~vmhost.drivers.images.qcow2layout`), so nothing is read back for its hash.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shlex
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Final, Self

from vmhost.backupports import Tell
from vmhost.drivers.directio import PIECE, takes_direct
from vmhost.drivers.files import os_errors
from vmhost.drivers.images.qcow2 import CLUSTER, Malformed
from vmhost.drivers.images.qcow2layout import Layout
from vmhost.drivers.nbd import LOOK, Export
from vmhost.model.errors import DamagedData, DriverError

_AHEAD: Final = 3
"""Pieces that are being read at a time: so many keep QEMU busy."""
_BUFFERS: Final = 8
"""Pieces that are read, written or hashed at a time."""
_SAMPLE: Final = 509
"""A prime: one in so many bytes tells nearly always that a cluster is not empty."""
_ZEROS: Final = bytes(CLUSTER)


def copy_export(
    socket: str, name: str, target: Path, capacity: int, tell: Tell, *, rate: int, timeout: float
) -> tuple[int, str]:
    """Write all that an export holds, as qcow2, into an empty file; return the file's size in bytes and its SHA-256.

    :param capacity: bytes that the disk is to have. :param rate: bytes a second at most; 0: no limit.
    :param tell: called with the bytes that are read and those that are held, also while nothing moves; what it raises
        ends the copying. :param timeout: seconds that it may take.
    :raises DriverError: the export or the file cannot be used; :raises DamagedData: it is a disk of another size.
    """
    pace = _Pace(tell, rate, monotonic() + timeout, target)
    with Export(socket, name, pace.look) as export:
        if export.size != capacity:
            text = f"is a disk of {export.size} bytes, should be one of {capacity}"
            raise DamagedData(text, subject=name, hint="vmhost backup run")
        try:
            layout = Layout(capacity, export.held())
        except Malformed as error:
            raise DamagedData(str(error), subject=name, hint="vmhost backup run") from error
        pace.total = sum(length for _, length in layout.runs())
        with _Written(target, layout.size, pace.look) as file:
            _write_tables(layout, file)
            _write_data(layout, export, file, pace)
            file.finish()
            return layout.size, file.sha256


def _write_tables(layout: Layout, file: _Written) -> None:
    buffer, filled = file.buffer(), 0
    for table in layout.tables():
        if filled == PIECE:
            file.put(buffer, filled)
            buffer, filled = file.buffer(), 0
        buffer[filled : filled + CLUSTER] = table
        filled += CLUSTER
    file.put(buffer, filled)


def _write_data(layout: Layout, export: Export, file: _Written, pace: _Pace) -> None:
    """Ask for some pieces ahead, and hand each on when all of it has arrived."""
    under_way: deque[tuple[memoryview, int, list[int]]] = deque()

    def hand_on() -> None:
        buffer, count, cookies = under_way.popleft()
        export.wait(cookies)
        file.put(buffer, count)
        pace.tell_done(count)

    for requests in _pieces(layout):
        if len(under_way) == _AHEAD:
            hand_on()
        buffer, filled, cookies = file.buffer(), 0, []
        for offset, length in requests:
            pace.ask(length)
            cookies.append(export.read(offset, buffer[filled : filled + length]))
            whole = -(-length // CLUSTER) * CLUSTER
            buffer[filled + length : filled + whole] = bytes(whole - length)
            filled += whole
        under_way.append((buffer, filled, cookies))
    while under_way:
        hand_on()


def _pieces(layout: Layout) -> Iterator[list[tuple[int, int]]]:
    """Yield offsets and lengths on the disk of what fills one piece of the file after the other."""
    piece, room = list[tuple[int, int]](), PIECE
    for offset, left in layout.runs():
        while left > 0:
            length = min(left, room)
            piece.append((offset, length))
            offset, left, room = offset + length, left - length, room - -(-length // CLUSTER) * CLUSTER
            if not room:
                yield piece
                piece, room = [], PIECE
    if piece:
        yield piece


class _Pace:
    """Tells how far the copying is, keeps it to its rate and ends it when its time is up."""

    def __init__(self, tell: Tell, rate: int, deadline: float, target: Path) -> None:
        self._tell, self._rate, self._deadline, self._target = tell, rate, deadline, target
        self._start = monotonic()
        self._asked = self._done = self.total = 0

    def look(self) -> None:
        """Tell the same again. :raises DriverError: it has taken too long."""
        if monotonic() > self._deadline:
            raise DriverError(
                "copying takes too long",
                subject=str(self._target),
                hint=f"df -h {shlex.quote(str(self._target.parent))}",
            )
        self._tell(self._done, self.total)

    def ask(self, count: int) -> None:
        """Wait until so many bytes more may be read."""
        self._asked += count
        while self._rate and (early := self._start + self._asked / self._rate - monotonic()) > 0:
            sleep(min(early, LOOK))
            self.look()

    def tell_done(self, count: int) -> None:
        """Note that so many bytes more have arrived."""
        self._done = min(self._done + count, self.total)
        self.look()


class _Written:
    """A file that is written and hashed in order, by a thread each; clusters of zeros are left out of it.

    :param size: bytes that it is to have; :param idle: called while the disk is waited for.
    """

    def __init__(self, path: Path, size: int, idle: Callable[[], None]) -> None:
        self._path, self._size, self._idle = path, size, idle
        self._digest = hashlib.sha256()
        self._free = [memoryview(mmap.mmap(-1, PIECE)) for _ in range(_BUFFERS)]
        self._busy: deque[tuple[memoryview, Future[None], Future[None]]] = deque()
        self._place = 0
        self._open = ExitStack()

    def __enter__(self) -> Self:
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_DIRECT if takes_direct(self._path.parent) else 0)
        with os_errors(self._path, "write"), ExitStack() as stack:
            self._handle = os.open(self._path, flags)
            stack.callback(os.close, self._handle)
            os.ftruncate(self._handle, self._size)
            self._writer = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="write"))
            self._hasher = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="hash"))
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, where: TracebackType | None) -> None:
        for _, *works in self._busy:
            for work in works:
                work.cancel()
        self._open.close()

    @property
    def sha256(self) -> str:
        """Of all that was put."""
        return self._digest.hexdigest()

    def buffer(self) -> memoryview:
        """Return one that nobody reads any more, of 2 MiB. :raises DriverError: what was put cannot be written."""
        if not self._free:
            self._await_oldest()
        return self._free.pop()

    def put(self, buffer: memoryview, count: int) -> None:
        """Append so many bytes of a buffer, in whole clusters."""
        place, self._place = self._place, self._place + count
        view = buffer[:count]
        works = self._writer.submit(self._write, view, place), self._hasher.submit(self._digest.update, view)
        self._busy.append((buffer, *works))

    def finish(self) -> None:
        """Return when all that was put is written and hashed. :raises DriverError: it cannot be."""
        while self._busy:
            self._await_oldest()
        if self._place != self._size:
            text = f"{self._place} of {self._size} bytes were written"
            raise DriverError(text, subject=str(self._path), hint="vmhost backup run")

    def _await_oldest(self) -> None:
        buffer, *works = self._busy[0]
        while wait(works, timeout=LOOK).not_done:
            self._idle()
        with os_errors(self._path, "write"):
            for work in works:
                work.result()
        self._busy.popleft()
        self._free.append(buffer)

    def _write(self, view: memoryview, place: int) -> None:
        for start, end in _not_zero(view):
            while start < end:
                start += os.pwrite(self._handle, view[start:end], place + start)


def _not_zero(view: memoryview) -> Iterator[tuple[int, int]]:
    """Yield where clusters begin and end that hold something, neighbours together."""
    start = -1
    for place in range(0, len(view), CLUSTER):
        cluster = view[place : place + CLUSTER]
        if any(cluster[::_SAMPLE]) or bytes(cluster) != _ZEROS:
            start = place if start < 0 else start
        elif start >= 0:
            yield start, place
            start = -1
    if start >= 0:
        yield start, len(view)
