"""The repository on a file system: whole points or none, and nothing believed that it says about itself."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from tests.exported import exported
from vmhost.drivers.command import CommandFailed, run
from vmhost.drivers.files import checksum
from vmhost.drivers.repository import checking, copying, ground, places
from vmhost.drivers.repository.store import FileRepositories
from vmhost.model.backupsteps import DiskCopy
from vmhost.model.errors import Absent, AlreadyThere, Conflict, DamagedData, DriverError, Refused, VmhostError
from vmhost.model.points import Compression, NewPoint, Point, PointDisk, PointRef
from vmhost.testing.host import layout_in

ID = "0123abcd-0000-4000-8000-000000000000"
GUEST = "11111111-2222-4333-8444-555555555555"
SIZE = 1 << 20
FULL = os.environ.get("VMHOST_TEST_FULL") == "1"


def silent(_done: int, _total: int) -> None:
    """Nobody listens."""


class Shelf:
    """A repository with points of one guest, taken from a raw file."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "repository")
        self.disk = directory / "disk.raw"
        self.directory = directory
        self.port = FileRepositories(layout_in(directory))
        self.port.make(self.path, ID)
        self.host = self.port.look(self.path, new_id=ID).host

    def ref(self, name: str) -> PointRef:
        return PointRef(self.path, self.host, GUEST, name)

    def new(self, name: str, number: int, parent: str = "") -> NewPoint:
        backing = f"../{parent}/root.qcow2" if parent else ""
        disks = (PointDisk("root", "vda", "root.qcow2", SIZE, backing=backing, source=str(self.disk), format="raw"),)
        kind = "incremental" if parent else "full"
        point = Point(self.ref(name), number, "2026-11-19T22:00:00Z", kind, "web", parent=parent, disks=disks)
        return NewPoint(point, "<domain/>\n", spec="{}")

    def take(
        self, name: str, number: int, parent: str = "", *, fill: int = 65, compression: Compression = "none"
    ) -> Point:
        """Take a point; an increment gets one cluster of its own, written as QEMU would."""
        new = self.new(name, number, parent)
        self.port.begin(new)
        if parent:
            file = places.begun(new.point.ref) / "root.qcow2"
            run(["qemu-io", "-f", "qcow2", "-c", f"write -P {fill} 64k 64k", file.name], timeout=30, cwd=file.parent)
            if compression != "none":
                self.port.pack(new.point.ref, file.name, compression, silent)
        else:
            self.disk.write_bytes(bytes([fill]) * SIZE)
            disk = DiskCopy("root.qcow2", "vda", str(self.disk), "raw")
            self.port.copy(new.point.ref, disk, "", silent, compression=compression)
        return self.port.publish(new.point.ref, {}, silent)

    def place(self, name: str) -> Path:
        return places.published(self.ref(name))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """An empty repository."""
    return Shelf(tmp_path)


@pytest.fixture
def chain(shelf: Shelf) -> Shelf:
    """A full point, and two increments on it."""
    shelf.take("one", 1)
    shelf.take("two", 2, "one", fill=66)
    shelf.take("three", 3, "two", fill=67)
    return shelf


def test_a_restore_that_fails_gives_its_room_back_before_it_reads_on(
    chain: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guests of that disk wait for room meanwhile."""
    target, failed = chain.directory / "x", Event()
    sizes: list[int] = []

    def full(_source: str, _form: str, path: Path, *_: object, **__: object) -> None:
        path.write_bytes(bytes(4096))
        failed.set()
        raise CommandFailed("qemu-img", "No space left on device", code=1)

    def checked(*_: object) -> None:
        assert failed.wait(30)
        deadline = time.monotonic() + 30
        while target.stat().st_size and time.monotonic() < deadline:
            time.sleep(0.01)
        sizes.append(target.stat().st_size)

    monkeypatch.setattr(copying, "convert", full)
    monkeypatch.setattr(checking, "file_damage", checked)
    with pytest.raises(CommandFailed):
        chain.port.restore(chain.ref("two"), "root.qcow2", str(target), "", silent)
    assert sizes == [0, 0]
    assert not target.exists()


def test_a_point_is_published_whole_and_reads_back(chain: Shelf) -> None:
    points = chain.port.points(chain.path)
    assert [point.id for point in points] == ["one", "two", "three"]
    assert chain.port.points(chain.path, GUEST) == points
    assert chain.port.points(chain.path, "another") == ()
    for point in points:
        run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], timeout=30, cwd=chain.place(point.id))
        assert chain.port.verify(point.ref, silent) == ()
    chain.port.restore(chain.ref("three"), "root.qcow2", str(chain.directory / "back"), str(chain.disk), silent)
    run(["qemu-img", "convert", "-O", "raw", "back", "back.raw"], timeout=30, cwd=chain.directory)
    wanted = bytearray(b"A" * SIZE)
    wanted[1 << 16 : 2 << 16] = b"C" * (1 << 16)
    assert (chain.directory / "back.raw").read_bytes() == wanted


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_what_qemu_has_not_closed_yet_is_waited_for_and_then_hashed(
    shelf: Shelf, compression: Compression, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libvirt calls a backup done before QEMU has closed its file, and brought the last tables into it."""
    shelf.take("one", 1)
    new = shelf.new("two", 2, "one")
    shelf.port.begin(new)
    file = places.begun(new.point.ref) / "root.qcow2"
    words = ["qemu-io", "-t", "writeback", "-f", "qcow2", file.name]
    qemu = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=file.parent, text=True)
    assert qemu.stdin is not None
    assert qemu.stdout is not None
    qemu.stdin.write("write -P 66 64k 64k\n")
    qemu.stdin.flush()
    assert "wrote" in qemu.stdout.readline()
    waited: list[float] = []

    def close(seconds: float) -> None:
        waited.append(seconds)
        qemu.communicate(timeout=30)

    monkeypatch.setattr(copying, "sleep", close)
    if compression != "none":
        shelf.port.pack(new.point.ref, file.name, compression, silent)
    point = shelf.port.publish(new.point.ref, {}, silent)
    assert len(waited) == 1
    assert shelf.port.verify(point.ref, silent) == ()
    shelf.port.restore(point.ref, "root.qcow2", str(shelf.directory / "back"), "", silent)
    run(["qemu-img", "convert", "-O", "raw", "back", "back.raw"], timeout=30, cwd=shelf.directory)
    assert (shelf.directory / "back.raw").read_bytes()[1 << 16 : 2 << 16] == b"B" * (1 << 16)


def test_until_it_is_published_nobody_sees_it_and_a_dead_owner_leaves_nothing(shelf: Shelf) -> None:
    shelf.port.begin(shelf.new("one", 1))
    assert shelf.port.points(shelf.path) == ()
    other = FileRepositories(layout_in(shelf.directory))
    with pytest.raises(Conflict):
        other.begin(shelf.new("two", 2))
    shelf.port.discard(shelf.ref("one"))
    with pytest.raises(Absent):
        shelf.port.discard(shelf.ref("one"))
    places.begun(shelf.ref("dead")).mkdir()
    shelf.take("three", 3)
    assert [entry.name for entry in places.points(shelf.ref("x")).iterdir() if entry.is_dir()] == ["three"]
    with pytest.raises(AlreadyThere):
        shelf.take("three", 3)


def test_a_deleted_point_is_gone_and_what_lay_on_it_says_so(chain: Shelf) -> None:
    chain.port.delete(chain.ref("one"))
    with pytest.raises(Absent):
        chain.port.delete(chain.ref("one"))
    (damage,) = chain.port.verify(chain.ref("three"), silent)
    assert "lies on one, which is not there" in str(damage)


def test_what_was_read_lately_is_only_seen_to_be_there(chain: Shelf) -> None:
    """A changed byte needs reading, a file that is gone, cut or no file does not."""
    read: list[int] = []

    def told(done: int, total: int) -> None:
        assert total == chain.port.points(chain.path)[-1].size
        read.append(done)

    file = chain.place("one") / "root.qcow2"
    data = file.read_bytes()
    _flip(file, random.Random(1))
    assert chain.port.verify(chain.ref("three"), told, {"one", "two"}) == ()
    assert read
    assert len(chain.port.verify(chain.ref("three"), silent, {"two"})) == 1
    for harm, said in ((data[:-1], "has"), (b"", "has"), (None, "missing"), ("link", "symbolic link")):
        if isinstance(harm, bytes):
            file.write_bytes(harm)
        elif harm is None:
            file.unlink()
        else:
            file.symlink_to("../two/root.qcow2")
        (damage,) = chain.port.verify(chain.ref("three"), told, {"one", "two"})
        assert damage.point == "one"
        assert said in damage.text


def test_damage_that_a_restore_finds_is_noted(chain: Shelf) -> None:
    """Else the next increments would go on lying on it."""
    _flip(chain.place("two") / "root.qcow2", random.Random(1))
    target = chain.directory / "never"
    with pytest.raises(DamagedData, match="is not restorable"):
        chain.port.restore(chain.ref("three"), "root.qcow2", str(target), "", silent)
    assert not target.exists()
    assert [(point.id, point.damaged) for point in chain.port.points(chain.path)] == [
        ("one", False),
        ("two", True),
        ("three", True),
    ]


HARM: dict[str, Callable[[Path, random.Random], None]] = {
    "flip": lambda path, chance: _flip(path, chance),
    "cut": lambda path, chance: os.truncate(path, chance.randrange(path.stat().st_size)),
    "longer": lambda path, chance: path.open("ab").write(b"x" * chance.randrange(1, 9)) and None,
    "delete": lambda path, chance: path.unlink(),
    "link": lambda path, chance: _link(path),
}


def _flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def _link(path: Path) -> None:
    other = path.with_name(f".{path.name}.real")
    path.rename(other.parent.parent / other.name)
    path.symlink_to(f"../{other.name}")


def _swap(chain: Shelf, chance: random.Random) -> None:
    """Let two files of different points change places."""
    name = chance.choice(["root.qcow2", "manifest.json", "SHA256SUMS"])
    one, other = chance.sample(["one", "two", "three"], 2)
    first, second = chain.place(one) / name, chain.place(other) / name
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)


def _damages(chain: Shelf) -> list[str]:
    found = [str(damage) for damage in chain.port.damaged(chain.path)]
    for point in chain.port.points(chain.path):
        found += [str(damage) for damage in chain.port.verify(point.ref, silent)]
    return found


@pytest.mark.timeout(3600 if FULL else 60)
@pytest.mark.parametrize("kind", [*HARM, "swap", "stranger"])
def test_damage_anywhere_is_found_and_named(chain: Shelf, kind: str) -> None:
    chance = random.Random(f"{os.environ.get('VMHOST_TEST_SEED', '1')} {kind}")
    files = sorted(path for name in ("one", "two", "three") for path in chain.place(name).iterdir())
    files += [Path(chain.path, places.README)]
    whole = {path: path.read_bytes() for path in files}
    for _ in range(1000 if FULL else 20):
        path = chance.choice(files)
        if kind == "swap":
            _swap(chain, chance)
            said = _damages(chain)
            assert said, "two files that changed places"
        elif kind == "stranger":
            (path.parent if path.name != places.README else chain.place("one")).joinpath("stranger").write_text("x")
            said = _damages(chain)
            assert any("stranger" in text for text in said), said
        else:
            HARM[kind](path, chance)
            said = _damages(chain)
            assert any(path.name in text for text in said), (path, said)
        if kind in ("flip", "cut", "longer", "delete", "link") and path.name == "root.qcow2":
            target = chain.directory / "never"
            with pytest.raises(VmhostError):
                chain.port.restore(chain.ref("three"), "root.qcow2", str(target), str(chain.disk), silent)
            assert not (chain.directory / "never").exists()
        for path_again, data in whole.items():
            path_again.unlink(missing_ok=True)
            path_again.write_bytes(data)
        for left in Path(chain.path).rglob("stranger"):
            left.unlink()
    assert _damages(chain) == []


def _rewritten(chain: Shelf, name: str, change: Callable[[dict[str, object]], None]) -> None:
    """Write a manifest whose checksum holds, as somebody who means harm would."""
    path = chain.place(name) / places.MANIFEST
    data = json.loads(path.read_text())["data"]
    change(data)
    document = {"version": 1, "sha256": checksum([1, data]), "data": data}
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["disks"][0].update(backing="/etc/shadow"),
        lambda data: data["disks"][0].update(backing="../../../../../../etc/shadow"),
        lambda data: data["disks"][0].update(file="../one/root.qcow2"),
        lambda data: data["files"][0].update(name="/etc/shadow"),
        lambda data: data["files"][0].update(name=".."),
        lambda data: data.update(parent="../one"),
        lambda data: data.update(id="three"),
        lambda data: data.update(guest="../.."),
        lambda data: data.update(generation="2"),
        lambda data: data.update(kind="whole"),
        lambda data: data.update(disks=None),
        lambda data: data["disks"][0].update(capacity=True),
        lambda data: data["disks"][0].update(capacity=10**400),
        lambda data: data.update(taken="2026-02-30T22:00:00Z"),
        lambda data: data.update(taken="0001-01-01T00:00:00Z"),
        lambda data: data.update(taken="2026-11-19T22:00:60Z"),
        lambda data: data.update(name="\ud800"),
        lambda data: data["disks"][0].update(id="/../../../../etc/evil"),
        lambda data: data.update(site="../../root"),
    ],
)
def test_a_hostile_manifest_is_damage_and_nothing_it_names_is_opened(
    chain: Shelf, change: Callable[[dict[str, object]], None]
) -> None:
    _rewritten(chain, "two", change)
    assert [point.id for point in chain.port.points(chain.path)] == ["one", "three"]
    assert [damage.point for damage in chain.port.damaged(chain.path)] == ["two"]
    with pytest.raises(DamagedData):
        chain.port.restore(chain.ref("three"), "root.qcow2", str(chain.directory / "x"), str(chain.disk), silent)


PLANTED: dict[str, Callable[[Path], object]] = {
    "deep": lambda path: path.write_text("[" * 100_000),
    "no number": lambda path: path.write_text('{"version": 1, "sha256": "", "data": {"x": NaN}}'),
    "long": lambda path: path.write_bytes(b" " * (5 << 20)),
    "a link": lambda path: (path.rename(path.with_name(".real")), path.symlink_to(".real")),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a socket": lambda path: (path.unlink(), socket.socket(socket.AF_UNIX).bind(str(path))),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
    "nothing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_manifest_hides_its_own_point_only(chain: Shelf, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(chain.place("two"))
    PLANTED[kind](Path(places.MANIFEST))
    assert [point.id for point in chain.port.points(chain.path)] == ["one", "three"]
    assert [(damage.point, damage.guest) for damage in chain.port.damaged(chain.path)] == [("two", GUEST)]
    assert chain.port.verify(chain.ref("three"), silent)


@pytest.mark.parametrize("kind", [kind for kind in PLANTED if kind != "nothing"])
def test_a_planted_format_is_no_repository(shelf: Shelf, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shelf.path)
    PLANTED[kind](Path(places.FORMAT))
    with pytest.raises(DamagedData):
        shelf.port.look(shelf.path, new_id=ID)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE])
def test_what_cannot_be_read_now_is_no_damage(chain: Shelf, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.open

    def failing(name: str) -> None:
        def opens(path: str | Path, *how: int) -> int:
            if Path(path) == chain.place("two") / name:
                raise OSError(number, os.strerror(number))
            return plain(path, *how)

        monkeypatch.setattr(places.os, "open", opens)  # type: ignore[attr-defined]

    failing("root.qcow2")
    with pytest.raises(DriverError):
        chain.port.verify(chain.ref("three"), silent)
    failing(places.MANIFEST)
    for read in (chain.port.points, chain.port.damaged):
        with pytest.raises(DriverError):
            read(chain.path)


def test_a_disk_that_names_another_file_below_it_is_not_restored(chain: Shelf) -> None:
    """Even where manifest and hashes agree with it."""
    file = chain.place("two") / "root.qcow2"
    run(["qemu-img", "rebase", "-u", "-F", "raw", "-b", "/etc/passwd", file.name], timeout=30, cwd=file.parent)
    from hashlib import sha256

    digest = sha256(file.read_bytes()).hexdigest()
    size = file.stat().st_size
    _rewritten(
        chain,
        "two",
        lambda data: next(f for f in data["files"] if f["name"] == "root.qcow2").update(sha256=digest, size=size),  # type: ignore[index]
    )
    with pytest.raises(DamagedData, match="should lie on"):
        chain.port.restore(chain.ref("three"), "root.qcow2", str(chain.directory / "x"), str(chain.disk), silent)


def test_a_newer_format_and_a_stranger_are_not_touched(shelf: Shelf, tmp_path: Path) -> None:
    path = Path(shelf.path, places.FORMAT)
    data = json.loads(path.read_text())["data"]
    path.write_text(json.dumps({"version": 2, "sha256": checksum([2, data]), "data": data}))
    with pytest.raises(Refused, match="newer vmhost"):
        shelf.port.look(shelf.path, new_id=ID)
    other = tmp_path / "photos"
    other.mkdir()
    (other / "holiday.jpg").touch()
    with pytest.raises(Refused, match="something else"):
        shelf.port.look(str(other), new_id=ID)


def test_nothing_is_written_below_a_mount_point(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(shelf.path).rename(tmp_path / "elsewhere")
    Path(shelf.path).mkdir()
    with pytest.raises(Refused, match="not mounted, or it was moved"):
        shelf.port.make(shelf.path, ID)
    assert list(Path(shelf.path).iterdir()) == []
    assert shelf.port.look(str(tmp_path / "elsewhere"), new_id="x").id == ID, "its id went with it"

    point = tmp_path / "mnt"
    point.mkdir()
    table = tmp_path / "fstab"
    table.write_text(f"# nothing\nnas:/backups {point} nfs defaults 0 0\n")
    monkeypatch.setattr(ground, "_FSTAB", table)
    with pytest.raises(Refused, match="is not mounted"):
        shelf.port.look(str(point / "repository"), new_id=ID)
    assert list(point.iterdir()) == []
    shutil.copytree(tmp_path / "elsewhere", point / "repository")
    with pytest.raises(Refused, match="is not mounted"):
        shelf.port.look(str(point / "repository"), new_id=ID)


def test_what_is_written_after_a_swap_is_seen_and_nothing_else(shelf: Shelf, tmp_path: Path) -> None:
    disk, new, kept = tmp_path / "d.qcow2", tmp_path / "d.new", tmp_path / "d.qcow2.before-x"
    disk.write_text("old")
    os.utime(disk, ns=(5, 1_700_000_000_123_456_789))
    new.write_text("new")
    shelf.port.swap(str(disk), str(new), str(kept))
    assert shelf.port.swapped(str(disk), str(kept))
    assert not shelf.port.written(str(disk), str(kept))
    disk.chmod(0o640)  # as libvirt does when it starts a guest
    with disk.open("r+") as opened:
        opened.read()
    assert not shelf.port.written(str(disk), str(kept))
    with disk.open("r+") as opened:
        opened.write("neu")
    assert shelf.port.written(str(disk), str(kept))


def test_a_swap_never_leaves_nothing_and_is_put_back(shelf: Shelf, tmp_path: Path) -> None:
    disk, new, kept = tmp_path / "d.qcow2", tmp_path / "d.new", tmp_path / "d.qcow2.before-x"
    disk.write_text("old")
    new.write_text("new")
    shelf.port.swap(str(disk), str(new), str(kept))
    assert (disk.read_text(), kept.read_text(), new.exists()) == ("new", "old", False)
    assert shelf.port.kept(str(disk)) == (str(kept),)
    shelf.port.unswap(str(disk), str(kept))
    assert (disk.read_text(), kept.exists()) == ("old", False)
    assert not shelf.port.swapped(str(disk), str(kept))
    with pytest.raises(Absent):
        shelf.port.unswap(str(disk), str(kept))
    # killed between the two halves of a swap: both names are one file
    os.link(disk, kept)
    assert not shelf.port.swapped(str(disk), str(kept))
    shelf.port.unswap(str(disk), str(kept))
    assert (disk.read_text(), kept.exists()) == ("old", False)


def test_what_qemu_has_open_is_not_removed(shelf: Shelf) -> None:
    """A guest that somebody let go back to what a restore kept would lose it at its end."""
    path = shelf.directory / "kept.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "1M"], timeout=30)
    with exported(path):
        with pytest.raises(DriverError, match="has it open; it stays") as caught:
            shelf.port.remove(str(path))
        assert caught.value.retryable
    shelf.port.remove(str(path))
    assert not path.exists()
