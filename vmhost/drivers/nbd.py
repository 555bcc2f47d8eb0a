"""A client of NBD: what a disk holds, and its bytes, from an export on a UNIX socket.

Source: the NBD protocol, https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md (fixed newstyle, structured
replies, the metadata context ``base:allocation``), as QEMU serves it. Several requests may be under way at once.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from vmhost.drivers.files import os_errors
from vmhost.model.errors import DriverError

LOOK: Final = 0.25
"""Seconds of silence after which ``idle`` is called, again and again."""
_MOST: Final = 1 << 30
"""Bytes of a disk of which is asked at once what they hold."""

_AT_ONCE: Final = 16
"""Requests that QEMU takes before it answers one. With more, either could wait for ever until the other reads."""

_HELLO, _OPTION, _OPTION_REPLY = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
_REQUEST, _SIMPLE, _STRUCTURED = 0x25609513, 0x67446698, 0x668E33EF
_FIXED, _NO_ZEROES = 1, 2
_GO, _STRUCTURED_REPLY, _SET_CONTEXT = 7, 8, 10
_ACK, _INFO, _CONTEXT, _ERROR = 1, 3, 4, 1 << 31
_READ, _DISCONNECT, _BLOCK_STATUS = 0, 2, 7
_WHOLE_FLAG, _TAKES_WHOLE = 1 << 2, 1 << 7
"""Of a request: answer in one piece (DF); of an export: it can (SEND_DF)."""
_DONE: Final = 1
_DATA, _HOLE, _STATUS, _FAILED = 1, 2, 5, 1 << 15
_ZERO: Final = 2
_ALLOCATION: Final = b"base:allocation"
_LONGEST: Final = 1 << 20
"""Bytes of an answer that is no data: of options, errors and of what a disk holds."""


@dataclass(slots=True)
class _Asked:
    """A request under way: where its bytes belong, how many have come, or what came of a question about extents."""

    offset: int
    length: int
    view: memoryview | None = None
    come: int = 0
    extents: list[tuple[int, int]] = field(default_factory=list)


class Export:
    """An export that is read; ``size`` is that of its disk in bytes. To be used in ``with``.

    :param idle: called while nothing arrives; what it raises ends the work.
    :raises DriverError: nobody serves it, or not as QEMU does.
    """

    def __init__(self, path: str, name: str, idle: Callable[[], None]) -> None:
        self._path, self._name, self._idle = Path(path), name, idle
        self._under_way: dict[int, _Asked] = {}
        self._last = self._context = self._read_flags = self.size = 0
        with os_errors(self._path, "read the disk at"):
            self._socket = socket.socket(socket.AF_UNIX)
            try:
                self._socket.settimeout(LOOK)
                self._socket.connect(path)
                self._negotiate()
            except BaseException:
                self._socket.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, where: TracebackType | None) -> None:
        with suppress(OSError):
            self._socket.send(_request(0, _DISCONNECT, 0, 0, 0))
        self._socket.close()

    def held(self) -> Iterator[tuple[int, int]]:
        """Yield offset and length in bytes of what does not read as zeros by the disk's own tables, in order."""
        place = 0
        while place < self.size:
            asked = _Asked(place, min(_MOST, self.size - place))
            self.wait({self._ask(asked, _BLOCK_STATUS)})
            if not all(length for length, _ in asked.extents or [(0, 0)]):
                raise self._wrong("it does not say what the disk holds")
            for length, flags in asked.extents:
                # The last one may reach beyond what was asked for
                length = min(length, self.size - place)
                if not flags & _ZERO and length:
                    yield place, length
                place += length

    def read(self, offset: int, view: memoryview) -> int:
        """Ask for bytes; they have arrived when :func:`wait` of what is returned has. Earlier ones may arrive first."""
        return self._ask(_Asked(offset, len(view), view), _READ, self._read_flags)

    def wait(self, cookies: Collection[int]) -> None:
        """Return when what was asked for has arrived. :raises DriverError: it cannot be read."""
        while any(cookie in self._under_way for cookie in cookies):
            self._answer()

    def _ask(self, asked: _Asked, kind: int, flags: int = 0) -> int:
        while len(self._under_way) >= _AT_ONCE:
            self._answer()
        self._last += 1
        self._under_way[self._last] = asked
        self._send(_request(flags, kind, self._last, asked.offset, asked.length))
        return self._last

    def _answer(self) -> None:
        (magic,) = struct.unpack(">I", self._receive(4))
        if magic == _SIMPLE:
            number, cookie = struct.unpack(">IQ", self._receive(12))
            self._refuse(number, b"")
            raise self._wrong(f"it answers request {cookie} with nothing")
        if magic != _STRUCTURED:
            raise self._wrong(f"an answer begins with {magic:#x}")
        flags, kind, cookie, length = struct.unpack(">HHQI", self._receive(16))
        if (asked := self._under_way.get(cookie)) is None:
            raise self._wrong(f"it answers request {cookie}, which nobody made")
        self._take(asked, kind, length)
        if flags & _DONE:
            if asked.view is not None and asked.come != asked.length:
                raise self._wrong(f"it gave {asked.come} of {asked.length} bytes at {asked.offset}")
            del self._under_way[cookie]

    def _take(self, asked: _Asked, kind: int, length: int) -> None:
        if asked.view is not None and ((kind == _DATA and length >= 8) or (kind == _HOLE and length == 12)):
            self._fill(asked, kind, length)
            return
        if length > _LONGEST:
            raise self._wrong(f"an answer has {length} bytes")
        body = self._receive(length)
        if kind & _FAILED and length >= 4:
            self._refuse(struct.unpack(">I", body[:4])[0], body[6:])
        if kind == _STATUS and asked.view is None and length % 8 == 4 and body[:4] == struct.pack(">I", self._context):
            asked.extents += struct.iter_unpack(">II", body[4:])
        elif kind or length:
            raise self._wrong(f"it answers with something of the kind {kind} and {length} bytes")

    def _fill(self, asked: _Asked, kind: int, length: int) -> None:
        assert asked.view is not None
        (offset,) = struct.unpack(">Q", self._receive(8))
        count = length - 8 if kind == _DATA else struct.unpack(">I", self._receive(4))[0]
        start = offset - asked.offset
        if start < 0 or start + count > asked.length:
            raise self._wrong(f"it gives {count} bytes at {offset}, which nobody asked for")
        into = asked.view[start : start + count]
        if kind == _DATA:
            self._receive_into(into)
        else:
            into[:] = bytes(count)
        asked.come += count

    def _negotiate(self) -> None:
        if struct.unpack(">QQ", self._receive(16)) != (_HELLO, _OPTION):
            raise self._wrong("what answers there is no NBD server")
        (flags,) = struct.unpack(">H", self._receive(2))
        self._send(struct.pack(">I", flags & (_FIXED | _NO_ZEROES)))
        name = self._name.encode()
        self._option(_STRUCTURED_REPLY, b"")
        query = struct.pack(">II", 1, len(_ALLOCATION)) + _ALLOCATION
        for kind, body in self._option(_SET_CONTEXT, struct.pack(">I", len(name)) + name + query):
            if kind == _CONTEXT and body[4:] == _ALLOCATION:
                (self._context,) = struct.unpack(">I", body[:4])
        for kind, body in self._option(_GO, struct.pack(">I", len(name)) + name + struct.pack(">H", 0)):
            if kind == _INFO and len(body) == 12 and body[:2] == b"\0\0":
                self.size, flags = struct.unpack(">QH", body[2:])
                self._read_flags = _WHOLE_FLAG if flags & _TAKES_WHOLE else 0

    def _option(self, option: int, body: bytes) -> list[tuple[int, bytes]]:
        """Send an option and return what is answered, with the kind of each answer."""
        self._send(struct.pack(">QII", _OPTION, option, len(body)) + body)
        found: list[tuple[int, bytes]] = []
        while not found or found[-1][0] != _ACK:
            magic, about, kind, length = struct.unpack(">QIII", self._receive(20))
            if magic != _OPTION_REPLY or about != option or length > _LONGEST:
                raise self._wrong(f"it does not answer option {option}")
            found.append((kind, self._receive(length)))
            if kind & _ERROR:
                raise self._wrong(f"it refuses option {option}: {_text(found[-1][1]) or hex(kind)}")
        return found

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except TimeoutError:
                self._idle()
            except OSError as error:
                raise self._lost(error) from error

    def _receive(self, count: int) -> bytes:
        data = bytearray(count)
        self._receive_into(memoryview(data))
        return bytes(data)

    def _receive_into(self, view: memoryview) -> None:
        while view:
            try:
                count = self._socket.recv_into(view)
                if not count:
                    raise self._wrong("it was ended")
                view = view[count:]
            except TimeoutError:
                self._idle()
            except OSError as error:
                raise self._lost(error) from error

    def _refuse(self, number: int, text: bytes) -> None:
        """:raises DriverError: the server could not do what was asked."""
        if number:
            raise self._wrong(f"cannot be read: {_text(text) or os.strerror(number)}")

    def _lost(self, error: OSError) -> DriverError:
        return self._wrong("it was ended" if isinstance(error, ConnectionError) else f"is lost: {error.strerror}")

    def _wrong(self, text: str) -> DriverError:
        return DriverError(text, subject=f"the disk {self._name} at {self._path}", hint="vmhost backup run")


def _request(flags: int, kind: int, cookie: int, offset: int, length: int) -> bytes:
    return struct.pack(">IHHQQI", _REQUEST, flags, kind, cookie, offset, length)


def _text(said: bytes) -> str:
    text = said[:300].decode(errors="replace")
    return "".join(char if char.isprintable() else "?" for char in text)
