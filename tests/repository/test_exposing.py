"""Disks of points that are read at a socket: exactly the files of the chain, and by nobody else."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.repository.test_repository import SIZE, Shelf, shelf, silent
from vmhost.drivers.command import run
from vmhost.drivers.repository import checking, exposing
from vmhost.model.errors import DamagedData, Refused

__all__ = ["shelf"]


@pytest.fixture
def chain(shelf: Shelf) -> Shelf:
    """A full point, and an increment on it."""
    shelf.take("one", 1)
    shelf.take("two", 2, "one", fill=66)
    return shelf


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[Path]:
    """Where a disk is read; nobody serves it afterwards."""
    path = tmp_path / "s" / "disk.sock"
    yield path
    if path.exists():
        exposing.conceal(path)


def test_a_disk_is_read_through_all_that_it_lies_on(chain: Shelf, socket: Path) -> None:
    chain.port.expose(chain.ref("two"), "root.qcow2", str(socket))
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    run(
        ["qemu-img", "convert", f"nbd+unix:///?socket={socket}", "-O", "raw", "read.raw"], timeout=30, cwd=socket.parent
    )
    wanted = bytearray(b"A" * SIZE)
    wanted[64 << 10 : 128 << 10] = b"B" * (64 << 10)
    assert (socket.parent / "read.raw").read_bytes() == wanted
    chain.port.conceal(str(socket))
    assert not socket.exists()


@pytest.mark.parametrize("name", ["one", "two"])
def test_no_file_is_opened_because_a_header_names_it(chain: Shelf, socket: Path, name: str) -> None:
    file = chain.place(name) / "root.qcow2"
    run(["qemu-img", "rebase", "-u", "-F", "raw", "-b", "/etc/passwd", file.name], timeout=30, cwd=file.parent)
    with pytest.raises(DamagedData, match="lies on /etc/passwd, should lie on"):
        chain.port.expose(chain.ref("two"), "root.qcow2", str(socket))
    assert not socket.exists()


def test_no_link_is_followed(chain: Shelf, socket: Path) -> None:
    file = chain.place("one") / "root.qcow2"
    file.rename(file.with_name("moved"))
    file.symlink_to("moved")
    with pytest.raises(DamagedData, match="is a symbolic link"):
        chain.port.expose(chain.ref("two"), "root.qcow2", str(socket))


def test_what_a_header_says_later_leads_nowhere(chain: Shelf, socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between our look at the file and QEMU's."""
    run(
        ["qemu-img", "rebase", "-u", "-F", "raw", "-b", "/etc/passwd", "root.qcow2"], timeout=30, cwd=chain.place("two")
    )
    monkeypatch.setattr(checking, "header_damage", lambda path, disk: "")
    chain.port.expose(chain.ref("two"), "root.qcow2", str(socket))
    run(
        ["qemu-img", "convert", f"nbd+unix:///?socket={socket}", "-O", "raw", "read.raw"], timeout=30, cwd=socket.parent
    )
    assert b"root:" not in (socket.parent / "read.raw").read_bytes()
    assert (socket.parent / "read.raw").read_bytes()[:4] == b"AAAA"


def test_a_chain_that_qemu_cannot_be_told_of_is_refused(
    chain: Shelf, socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "LEVELS", 1)
    with pytest.raises(Refused, match="lies on 1 points"):
        chain.port.expose(chain.ref("two"), "root.qcow2", str(socket))


def test_the_longest_chain_fits_into_what_qemu_is_told(chain: Shelf) -> None:
    level = len(checking.tree(chain.ref("two"), "root.qcow2")) - len(checking.tree(chain.ref("one"), "root.qcow2"))
    longest = 40  # more than a point's id and the name of a disk's file have
    assert checking.LEVELS * (level + longest) < 128 << 10
    assert chain.port.verify(chain.ref("two"), silent) == ()
