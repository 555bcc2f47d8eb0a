"""What a repository stands on: who may read it, links put in its way, and what a kill leaves of its making."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from filelock import FileLock

from tests.repository.test_repository import GUEST, ID, Shelf, silent
from vmhost.drivers import files
from vmhost.drivers.files import make_directory
from vmhost.drivers.repository import copying, ground, places, readme, restoring
from vmhost.drivers.repository.store import FileRepositories
from vmhost.model.backupsteps import DiskCopy
from vmhost.model.errors import (
    Absent,
    AlreadyThere,
    Cancelled,
    Conflict,
    DamagedData,
    DriverError,
    Refused,
    VmhostError,
)
from vmhost.testing.host import layout_in


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """An empty repository."""
    return Shelf(tmp_path)


def test_of_two_hosts_that_make_a_repository_at_once_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, came = tmp_path / "shared", list[str]()
    ids = [f"{ID[:-1]}{number}" for number in range(2)]
    ports = [FileRepositories(layout_in(tmp_path / name)) for name in ("one", "other")]
    write = ground.write_state

    def make(number: int) -> None:
        try:
            ports[number].make(str(place), ids[number])
        except AlreadyThere:
            came.append(ids[number])

    other = Thread(target=make, args=(1,))

    def slowly(path: Path, *args: Any, **how: Any) -> None:
        if path.name == places.FORMAT and not other.ident:
            other.start()
            other.join(0.3)  # it cannot end before we have; if it could, it would by now
        write(path, *args, **how)

    monkeypatch.setattr(ground, "write_state", slowly)
    make(0)
    other.join(30)
    assert came == [ids[1]]
    assert [port.look(str(place), new_id="").id for port in ports] == [ids[0]] * 2
    monkeypatch.setattr(places, "PATIENCE", 0.0)
    free = tmp_path / "free"
    with FileLock(make_directory(free) / places.LOCK), pytest.raises(Conflict, match="makes this repository"):
        ports[0].make(str(free), ids[0])
    ports[0].make(str(free), ids[0])


def _modes(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


def test_nobody_else_reads_what_disks_held(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.umask(0)
    try:
        shelf.disk.write_bytes(b"x" * (1 << 20))
        new = shelf.new("one", 1)
        shelf.port.begin(new)
        seen: list[int] = []
        convert = copying.convert

        def watched(source: str, form: str, target: Path, tell: Callable[[float], None], **how: int) -> None:
            seen.append(stat.S_IMODE(target.stat().st_mode))
            convert(source, form, target, tell, **how)

        monkeypatch.setattr(copying, "convert", watched)
        shelf.port.copy(new.point.ref, DiskCopy("root.qcow2", "vda", str(shelf.disk), "raw"), "", silent)
        shelf.port.publish(new.point.ref, {"checkpoint.xml": "<x/>"}, silent)
        shelf.port.begin(shelf.new("two", 2, "one"))
        assert seen == [0o600]
        assert set(_modes(places.begun(shelf.ref("two"))).values()) == {0o600}, "before QEMU writes into it, too"
        (places.begun(shelf.ref("two")) / "root.qcow2").chmod(0o644)  # as libvirt may leave it
        shelf.port.publish(shelf.ref("two"), {}, silent)
    finally:
        os.umask(plain)
    for name in ("one", "two"):
        assert set(_modes(shelf.place(name)).values()) == {0o600}


@pytest.mark.parametrize("level", range(4))
def test_a_link_above_points_is_not_followed(shelf: Shelf, level: int) -> None:
    shelf.take("one", 1)
    above = places.points(shelf.ref("one"))
    path = (above, *above.parents)[level]
    shelf.port.begin(shelf.new("half", 2))
    elsewhere = shelf.directory / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    acts: tuple[Callable[[], object], ...] = (
        lambda: shelf.port.publish(shelf.ref("half"), {}, silent),
        lambda: shelf.port.delete(shelf.ref("one")),
        lambda: shelf.port.discard(shelf.ref("half")),
        lambda: FileRepositories(layout_in(shelf.directory)).begin(shelf.new("more", 3)),
    )
    for act in acts:
        with pytest.raises(DamagedData, match="is no directory") as caught:
            act()
        assert caught.value.subject == str(path)
    assert sorted(elsewhere.rglob("*")) == before
    assert shelf.port.points(shelf.path) == ()
    found = shelf.port.damaged(shelf.path)
    assert any("is a link" in damage.text for damage in found), "points that nobody sees any more are missed"
    with pytest.raises(Absent):
        FileRepositories(layout_in(shelf.directory)).discard(shelf.ref("never"))


@pytest.mark.parametrize("what", ["link", "file"])
def test_what_lies_in_the_place_of_a_point_is_damage_of_its_guest(shelf: Shelf, what: str) -> None:
    shelf.take("one", 1)
    shelf.take("two", 2)
    place, elsewhere = shelf.place("two"), shelf.directory / "elsewhere"
    place.rename(elsewhere)
    if what == "link":
        place.symlink_to(elsewhere)
    else:
        place.touch()
    for guest in ("", GUEST):
        (damage,) = shelf.port.damaged(shelf.path, guest)
        assert (damage.point, damage.guest) == ("two", GUEST)
    assert shelf.port.damaged(shelf.path, "another") == ()
    assert [point.id for point in shelf.port.points(shelf.path)] == ["one"]


def test_what_a_killed_prune_left_goes_when_it_is_settled(shelf: Shelf) -> None:
    """The guest may never be backed up again, so nobody else would remove it."""
    shelf.take("one", 1)
    places.published(shelf.ref("one")).rename(places.begun(shelf.ref("one")))
    shelf.port.delete(shelf.ref("one"))
    assert [path.name for path in places.points(shelf.ref("one")).iterdir() if path.is_dir()] == []
    with pytest.raises(Absent):
        shelf.port.delete(shelf.ref("one"))


class Killed(BaseException):
    """The process is dead from here."""


def test_a_kill_while_a_repository_is_made_leaves_a_place_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every call that names a file: what is there may be made a repository of by the next run."""
    calls = ("mkdir", "replace", "open")
    ends = 0
    for at in range(40):
        port, path = FileRepositories(layout_in(tmp_path / f"{at}")), tmp_path / f"{at}" / "repository"
        count = 0

        def strike(name: str, at: int = at) -> Callable[..., object]:
            plain = getattr(os, name)

            def struck(*args: object, **named: object) -> object:
                nonlocal count
                count += 1
                if count > at:
                    raise Killed
                return plain(*args, **named)

            return struck

        with monkeypatch.context() as patched:
            for name in calls:
                patched.setattr(files.os, name, strike(name))  # type: ignore[attr-defined]
            # a dead process removes nothing
            patched.setattr(Path, "unlink", lambda *_args, **_named: None)
            try:
                port.make(str(path), ID)
            except Killed:
                pass
            else:
                ends += 1
        found = port.look(str(path), new_id=ID)
        if not found.known:
            port.make(str(path), ID)
        assert port.look(str(path), new_id=ID).id == ID
        assert sorted(entry.name for entry in path.iterdir()) == [places.LOCK, places.README, places.FORMAT]
    assert 0 < ends < 35


@pytest.mark.parametrize("name", ["README.md", ".format", ".format.1.tmp", ".README.md.1-2.tmp.gpg", "hosts"])
def test_what_is_not_ours_is_no_place_for_a_repository(tmp_path: Path, name: str) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / name).write_text(f"{readme.TEXT} and more")
    with pytest.raises(Refused, match="something else"):
        FileRepositories(layout_in(tmp_path)).make(str(place), ID)


def test_each_new_directory_is_brought_to_the_disk(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    plain = files.sync_directory
    monkeypatch.setattr(files, "sync_directory", lambda path: (synced.append(path), plain(path)))
    shelf.port.begin(shelf.new("one", 1))
    root = Path(shelf.path)
    hosts = root / "hosts"
    guests = hosts / shelf.host / "guests"
    assert synced[:5] == [root, hosts, hosts / shelf.host, guests, guests / GUEST]


def test_what_a_restore_keeps_is_seen_or_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "a[b]*" / "root.qcow2"
    assert restoring.kept(disk) == ()
    disk.parent.mkdir()
    kept = disk.with_name("root.qcow2.before-one")
    kept.touch()
    assert restoring.kept(disk) == (str(kept),)

    def unreadable(_path: Path) -> object:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "iterdir", unreadable)
    with pytest.raises(DriverError):
        restoring.kept(disk)


def test_a_file_that_is_in_the_way_of_a_restore_stays(shelf: Shelf) -> None:
    shelf.take("one", 1)
    target = shelf.directory / "there"
    target.write_text("of somebody else")
    with pytest.raises(VmhostError, match="there already"):
        shelf.port.restore(shelf.ref("one"), "root.qcow2", str(target), "", silent)
    assert target.read_text() == "of somebody else"


@pytest.mark.timeout(60)
def test_a_copy_that_hangs_is_ended_when_nobody_wants_it_any_more(tmp_path: Path) -> None:
    """The other side takes the connection, and says nothing ever."""
    target, asked = tmp_path / "copy.qcow2", list[float]()

    def tell(share: float) -> None:
        asked.append(share)
        if len(asked) == 2:
            raise Cancelled("cancelled")

    copying.make(target)
    with socket.socket(socket.AF_UNIX) as silence:
        silence.bind(str(tmp_path / "nbd.sock"))
        silence.listen()
        with pytest.raises(Cancelled):
            copying.convert(copying.export_of(str(tmp_path / "nbd.sock"), "vda"), "raw", target, tell)
    assert asked == [0.0, 0.0]
