"""Whether a file system takes O_DIRECT is found out without leaving anything; files are read past the cache."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import re
import threading
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from tests.labfixture import InLab
from tests.reliability.image import tiny_image
from tests.reliability.scene import apply, remove, site_file
from vmhost.drivers import directio
from vmhost.drivers.directio import PIECE, pieces, takes_direct
from vmhost.ops.host import Host


def opens_directly(path: Path) -> bool:
    """Ask with a file that has a name."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_DIRECT | os.O_RDWR, 0o600)
    except OSError:
        return False
    os.close(handle)
    return True


def test_it_says_what_a_file_with_a_name_would(tmp_path: Path) -> None:
    said = takes_direct(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert takes_direct(tmp_path / "yet" / "to be made") is said
    assert list(tmp_path.iterdir()) == []
    assert not said or opens_directly(tmp_path / "named")


@pytest.mark.parametrize("place", ["/proc", "/sys", "/proc/1/mem"])
def test_where_no_files_can_be_made_it_says_no(place: str) -> None:
    assert takes_direct(Path(place)) is False


def test_a_file_system_that_refuses_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: object, flags: int, *rest: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return real(path, flags, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(directio.os, "open", refuse)
    assert takes_direct(tmp_path) is False


def refuse(*_: object, **__: object) -> None:
    """What a file system without O_DIRECT does."""
    raise OSError(errno.EINVAL, "Invalid argument")


class Choosy(FileIO):
    """A file on a file system that takes the flag, and then refuses to read."""

    def readinto(self, buffer: Any) -> int | None:  # type: ignore[override]
        if fcntl.fcntl(self, fcntl.F_GETFL) & os.O_DIRECT:
            refuse()
        return super().readinto(buffer)


def test_where_nothing_can_be_read_directly_it_is_read_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc" * PIECE)
    with Choosy(path) as file:
        assert b"".join(bytes(piece) for piece in pieces(file)) == b"abc" * PIECE


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("size", [0, 1, 4096, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 513])
def test_pieces_are_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, direct: bool) -> None:
    if not direct:
        monkeypatch.setattr(directio, "_pass_the_cache", refuse)
    path, data = tmp_path / "file", random.Random(size).randbytes(size)
    path.write_bytes(data)
    with FileIO(path) as file:
        assert b"".join(bytes(piece) for piece in pieces(file)) == data
        passes = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_DIRECT
    assert bool(passes) is (direct and takes_direct(tmp_path))


def test_a_file_that_ends_early_or_is_left_ends_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(4 * PIECE))
    threads = threading.active_count()
    with FileIO(path) as file:
        reading = pieces(file)
        next(reading)
        os.truncate(path, 3 * PIECE)
        assert sum(map(len, reading)) == 2 * PIECE
        file.seek(0)
        left = pieces(file)
        next(left)
        left.close()  # type: ignore[attr-defined]
    assert threading.active_count() == threads


@pytest.mark.lab
@pytest.mark.parametrize("works", [True, False])
def test_disks_pass_the_cache_by_where_that_works(
    lab: InLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    """The guest starts, so QEMU could open its disk and the image below it in that way."""
    if not works:
        monkeypatch.setattr("vmhost.ops.proposals.takes_direct", lambda _directory: False)
    with tiny_image(tmp_path, "tiny"), Host() as host:
        layout = host.ports.layout
        expected = works and takes_direct(layout.disks) and takes_direct(layout.images)
        apply(host, site_file(tmp_path, "shop", "web"))
        xml = lab.virsh("dumpxml", "--inactive", "web").text
        root = re.search(r"<disk type='file' device='disk'>\s*<driver ([^>]*)/>", xml)
        assert root is not None
        assert ("cache='none'" in root[1]) is expected
        assert host.guest("web").row.state == "running"
        remove(host, "web")
