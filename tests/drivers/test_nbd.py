"""A disk that is read at a socket: as QEMU serves it, and by servers that answer anything else."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.exported import CLUSTER, exported, filled
from vmhost.drivers.nbd import Export
from vmhost.model.errors import Absent, Cancelled, DriverError

SIZE = 8 << 20
OPTION, REPLY = b"IHAVEOPT", struct.pack(">Q", 0x3E889045565A9)


def silent() -> None:
    """Nothing is told."""


def test_what_a_disk_holds_and_its_bytes(tmp_path: Path) -> None:
    disk = filled(tmp_path, SIZE, {0: 1, 5: 2, 6: 3, 127: 4})
    with exported(disk) as place, Export(str(place), "vda", silent) as export:
        assert export.size == SIZE
        assert list(export.held()) == [(0, CLUSTER), (5 * CLUSTER, 2 * CLUSTER), (127 * CLUSTER, CLUSTER)]
        buffer = memoryview(bytearray(b"x" * 4 * CLUSTER))
        # Answers may come in another order, and a hole has none of its bytes sent
        cookies = [
            export.read(6 * CLUSTER, buffer[:CLUSTER]),
            export.read(4 * CLUSTER, buffer[CLUSTER : 3 * CLUSTER]),
            export.read(SIZE - 512, buffer[3 * CLUSTER : 3 * CLUSTER + 512]),
        ]
        export.wait(cookies)
    wanted = b"\3" * CLUSTER + bytes(CLUSTER) + b"\2" * CLUSTER + b"\4" * 512 + b"x" * (CLUSTER - 512)
    assert bytes(buffer) == wanted


def test_what_is_beyond_its_end_cannot_be_read(tmp_path: Path) -> None:
    with exported(filled(tmp_path, SIZE, {})) as place, Export(str(place), "vda", silent) as export:
        cookie = export.read(SIZE - 512, memoryview(bytearray(1024)))
        with pytest.raises(DriverError, match=r"the disk vda at .*: cannot be read: "):
            export.wait({cookie})


def test_an_export_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Absent):
        Export(str(tmp_path / "none.sock"), "vda", silent)
    with exported(filled(tmp_path, SIZE, {})) as place, pytest.raises(DriverError, match="refuses option 10"):
        Export(str(place), "vdb", silent)


@contextmanager
def answering(directory: Path, *answers: bytes, hold: bool = False) -> Iterator[str]:
    """Serve at a socket: one answer after the other, each when something has been asked, then the end.

    :param hold: fall silent in the place of the end.
    """
    path, done = str(directory / "false.sock"), threading.Event()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def serve() -> None:
        peer, _ = listener.accept()
        with peer, suppress(ConnectionError):  # who is served may have seen enough
            for number, answer in enumerate(answers):
                if number:
                    peer.recv(1 << 16)
                peer.sendall(answer)
            if hold:
                done.wait(30)
            else:
                peer.recv(1 << 16)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield path
    finally:
        done.set()
        thread.join()
        listener.close()


def reply(option: int, kind: int, body: bytes = b"") -> bytes:
    return REPLY + struct.pack(">III", option, kind, len(body)) + body


HELLO = b"NBDMAGIC" + OPTION + struct.pack(">H", 3)
SIZED = (
    HELLO,
    reply(8, 1),
    reply(10, 4, struct.pack(">I", 7) + b"base:allocation") + reply(10, 1),
    reply(7, 3, struct.pack(">HQH", 0, SIZE, 1)) + reply(7, 1),
)


def chunk(kind: int, body: bytes, *, cookie: int = 1, flags: int = 1) -> bytes:
    return struct.pack(">IHHQI", 0x668E33EF, flags, kind, cookie, len(body)) + body


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        ((b"SSH-2.0-OpenSSH\r\n",), "no NBD server"),
        ((HELLO, reply(9, 1)), "does not answer option 8"),
        ((HELLO, b"\0" * 20), "does not answer option 8"),
        ((HELLO, reply(8, (1 << 31) + 1, b"not\x1b[2J here")), r"refuses option 8: not\?\[2J here"),
        ((HELLO, REPLY + struct.pack(">III", 8, 1, 1 << 30)), "does not answer option 8"),
        ((HELLO,), "it was ended"),
    ],
)
def test_no_server_as_it_should_be(tmp_path: Path, answers: tuple[bytes, ...], text: str) -> None:
    with answering(tmp_path, *answers) as path, pytest.raises(DriverError, match=text):
        Export(path, "vda", silent)


DATA = struct.pack(">Q", 512) + b"d" * 512


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"GARB", "begins with 0x47415242"),
        (chunk(1, DATA, cookie=9), "answers request 9, which nobody made"),
        (chunk(1, struct.pack(">Q", 0) + b"d" * 512), "gives 512 bytes at 0, which nobody asked for"),
        (chunk(1, struct.pack(">Q", 512) + b"d" * 513), "gives 513 bytes at 512, which nobody asked for"),
        (chunk(1, DATA[:-1]), "gave 511 of 512 bytes at 512"),
        (chunk(2, struct.pack(">QI", 512, 1 << 31)), "gives 2147483648 bytes at 512"),
        (chunk(2, struct.pack(">QI", 512, 512) + b"more"), "of the kind 2 and 16 bytes"),
        (chunk(0, b""), "gave 0 of 512 bytes at 512"),
        (chunk(5, struct.pack(">III", 7, 512, 0)), "of the kind 5"),
        (chunk(77, b"what"), "of the kind 77 and 4 bytes"),
        (chunk((1 << 15) + 1, struct.pack(">IH", 5, 4) + b"I/O\n"), r"cannot be read: I/O\?"),
        (chunk((1 << 15) + 1, struct.pack(">IH", 5, 0)), "cannot be read: Input/output error"),
        (struct.pack(">IHHQI", 0x668E33EF, 1, 77, 1, 1 << 30), "an answer has 1073741824 bytes"),
        (struct.pack(">IIQ", 0x67446698, 5, 1), "cannot be read: Input/output error"),
        (struct.pack(">IIQ", 0x67446698, 0, 1), "answers request 1 with nothing"),
        (None, "it was ended"),
    ],
)
def test_an_answer_that_is_none(tmp_path: Path, answer: bytes | None, text: str) -> None:
    answers = SIZED if answer is None else (*SIZED, answer)
    with (
        answering(tmp_path, *answers) as path,
        Export(path, "vda", silent) as export,
        pytest.raises(DriverError, match=text),
    ):
        export.wait({export.read(512, memoryview(bytearray(512)))})


def test_an_answer_in_pieces_and_holes(tmp_path: Path) -> None:
    pieces = (
        chunk(1, struct.pack(">Q", 768) + b"b" * 256, flags=0)
        + chunk(2, struct.pack(">QI", 512, 128), flags=0)
        + chunk(1, struct.pack(">Q", 640) + b"a" * 128, flags=0)
        + chunk(0, b"")
    )
    with answering(tmp_path, *SIZED, pieces) as path, Export(path, "vda", silent) as export:
        buffer = bytearray(b"x" * 512)
        export.wait({export.read(512, memoryview(buffer))})
    assert buffer == bytes(128) + b"a" * 128 + b"b" * 256


NOTHING = (chunk(0, b""), chunk(5, struct.pack(">I", 7)), chunk(5, struct.pack(">III", 7, 0, 0)))
OTHER = chunk(5, struct.pack(">III", 8, 1, 0))


@pytest.mark.parametrize(("answer", "text"), [*((answer, "not say what") for answer in NOTHING), (OTHER, "the kind 5")])
def test_no_answer_about_what_it_holds(tmp_path: Path, answer: bytes, text: str) -> None:
    with (
        answering(tmp_path, *SIZED, answer) as path,
        Export(path, "vda", silent) as export,
        pytest.raises(DriverError, match=text),
    ):
        list(export.held())


def test_who_waits_can_end_it(tmp_path: Path) -> None:
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise Cancelled("enough")

    with (
        answering(tmp_path, *SIZED, hold=True) as path,
        Export(path, "vda", look) as export,
        pytest.raises(Cancelled),
    ):
        export.wait({export.read(0, memoryview(bytearray(512)))})
