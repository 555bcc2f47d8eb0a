"""The store: what is visible, what is damaged, what is in use, and what a crash at any moment leaves."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from vmhost.drivers.command import run
from vmhost.drivers.images import build as build_module
from vmhost.drivers.images import publish
from vmhost.drivers.images.inspection import admit
from vmhost.drivers.images.publish import Origin, making
from vmhost.drivers.images.recipe import Recipe
from vmhost.drivers.images.store import ImageStore, silent
from vmhost.model.errors import Absent, Conflict, DamagedData, DriverError, NoCapacity, NotFound, Refused, UsageError
from vmhost.model.image import ImageRecord

BOTH = frozenset({"bios", "uefi"})


def qcow2(path: Path, size: str = "64M") -> Path:
    run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), size], timeout=60)
    return path


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return qcow2(tmp_path / "mine.qcow2")


def left(store: ImageStore) -> list[str]:
    """What lies in the directory beside locks."""
    return sorted(path.name for path in store.directory.iterdir() if not path.name.endswith(".lock"))


# --- what is visible --------------------------------------------------------------------------------------------------


def test_a_store_that_is_not_there_is_empty(store: ImageStore) -> None:
    assert store.list() == ()
    assert store.find("debian-12") is None
    with pytest.raises(NotFound):
        store.path("debian-12")
    assert not store.directory.exists(), "looking made something"


def test_an_added_file_is_copied_and_listed(store: ImageStore, file: Path) -> None:
    record = store.add("mine", file, firmware=BOTH)
    assert store.list() == (record,)
    assert store.find("mine") == store.find(f"mine-{record.id[:12]}") == record
    assert store.path("mine") == record.path
    assert record.path.read_bytes() == file.read_bytes()
    assert (record.source, record.status, record.firmware) == ("import", "unproven", BOTH)
    assert (record.format, record.virtual_size, record.size) == ("qcow2", 64 << 20, file.stat().st_size)
    assert record.path.stat().st_mode & 0o777 == 0o644, "QEMU runs as another user"
    assert store.add("mine", file, firmware=BOTH) == record


def test_a_raw_disk_is_taken_with_its_holes(store: ImageStore, tmp_path: Path) -> None:
    raw = tmp_path / "disk.raw"
    with raw.open("wb") as handle:
        handle.truncate(256 << 20)
    run(["sfdisk", "--quiet", str(raw)], input=b"label: dos\nstart=2048\n", timeout=60)
    record = store.add("raw-disk", raw, firmware=frozenset({"bios"}))
    assert (record.format, record.path.suffix, record.virtual_size) == ("raw", ".raw", 256 << 20)
    assert record.path.stat().st_blocks * 512 < 16 << 20
    assert store.verify("raw-disk") == record


def test_the_newest_of_a_name_comes_first(store: ImageStore, tmp_path: Path) -> None:
    old = store.add("mine", qcow2(tmp_path / "a", "64M"), firmware=BOTH)
    new = store.add("mine", qcow2(tmp_path / "b", "65M"), firmware=BOTH)
    _edit(old, created="2020-01-01T00:00:00Z")
    assert [record.id for record in store.list()] == [new.id, old.id]
    assert store.find("mine") == new
    assert store.delete(f"mine-{old.id[:12]}").id == old.id
    assert store.list() == (new,)


@pytest.mark.parametrize("name", ["", "..", "a/b", "-rf", "x" * 64, "a b", "a\n", "$(id)"])
def test_names_are_names(store: ImageStore, file: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is not a name"):
        store.add(name, file, firmware=BOTH)
    assert store.list() == ()


def test_nothing_that_is_refused_leaves_a_trace(store: ImageStore, tmp_path: Path) -> None:
    base = qcow2(tmp_path / "base")
    evil = tmp_path / "evil"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "qcow2", str(evil)], timeout=60)
    with pytest.raises(Refused):
        store.add("mine", evil, firmware=BOTH)
    with pytest.raises(Absent):
        store.add("mine", tmp_path / "missing", firmware=BOTH)
    assert store.list() == ()
    assert not store.directory.exists() or left(store) == []


# --- what is damaged --------------------------------------------------------------------------------------------------


def _edit(record: ImageRecord, **changes: object) -> None:
    path = record.path.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_flipped_bit_is_found_by_verify(store: ImageStore, file: Path) -> None:
    record = store.add("mine", file, firmware=BOTH)
    with record.path.open("r+b") as handle:
        handle.seek(record.size - 1)
        handle.write(b"\x01")
    with pytest.raises(DamagedData, match="SHA-256 differs") as damaged:
        store.verify("mine")
    assert damaged.value.hint == f"vmhost image delete mine-{record.id[:12]}"


@pytest.mark.parametrize("damage", ["missing", "shorter", "longer", "backing", "empty"])
def test_what_is_not_whole_is_not_listed_but_known(store: ImageStore, file: Path, tmp_path: Path, damage: str) -> None:
    record = store.add("mine", file, firmware=BOTH)
    match damage:
        case "missing":
            record.path.unlink()
        case "shorter":
            os.truncate(record.path, record.size - 512)
        case "longer":
            os.truncate(record.path, record.size + 512)
        case "empty":
            os.truncate(record.path, 0)
        case "backing":
            words = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", str(record.path)]
            run(words, timeout=60)
    assert store.list() == ()
    assert store.find("mine") is None
    with pytest.raises(DamagedData):
        store.verify("mine")
    store.delete("mine")
    assert left(store) == []
    assert store.add("mine", file, firmware=BOTH).id == record.id


@pytest.mark.parametrize(
    "change",
    [
        {"apiVersion": "vmhost/v2"},
        {"kind": "Site"},
        {"name": "../mine"},
        {"name": "other"},
        {"id": "0" * 64},
        {"id": "xyz"},
        {"file": "/etc/shadow"},
        {"file": "../mine.qcow2"},
        {"format": "vmdk"},
        {"sha256": "short"},
        {"created": "yesterday"},
        {"created": "2026-01-01T00:00:00+01:00"},
        {"firmware": ["coreboot"]},
        {"source": "found"},
        {"status": "fine"},
        {"size": "many"},
        {"virtual_size": None},
    ],
    ids=str,
)
def test_a_manifest_that_lies_is_none(store: ImageStore, file: Path, change: dict[str, object]) -> None:
    record = store.add("mine", file, firmware=BOTH)
    _edit(record, **change)
    assert store.list() == ()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '"x"', "\xff", '{"apiVersion": 1}'])
def test_what_is_no_manifest_is_passed_over(store: ImageStore, file: Path, text: str) -> None:
    record = store.add("mine", file, firmware=BOTH)
    (store.directory / "other-000000000000.json").write_text(text, encoding="latin-1")
    assert store.list() == (record,)


# --- what is in use ---------------------------------------------------------------------------------------------------


def test_an_image_in_use_is_not_deleted(store: ImageStore, file: Path) -> None:
    record = store.add("mine", file, firmware=BOTH)
    with pytest.raises(Refused, match="db-01, web-01"):
        store.delete("mine", used_by=("web-01", "db-01"))
    assert store.list() == (record,)
    assert store.delete("mine") == record
    assert left(store) == []
    with pytest.raises(NotFound):
        store.delete("mine")


def test_two_makers_of_a_name_do_not_work_at_once(store: ImageStore) -> None:
    inside = threading.Event()
    leave = threading.Event()
    seen: list[str] = []

    def first() -> None:
        with making(store.directory, "mine", silent):
            inside.set()
            leave.wait(40)

    holder = threading.Thread(target=first)
    holder.start()
    assert inside.wait(40)
    waiter = threading.Thread(target=lambda: seen.append(_enter(store, seen)))
    waiter.start()
    deadline = time.monotonic() + 40
    while not seen and time.monotonic() < deadline:
        time.sleep(0.01)
    assert seen == ["another process makes this image; waiting"]
    leave.set()
    waiter.join(40)
    holder.join(40)
    assert seen[-1] == "entered"


def _enter(store: ImageStore, seen: list[str]) -> str:
    with making(store.directory, "mine", lambda text, _: seen.append(text)):
        return "entered"


def test_patience_ends(store: ImageStore, file: Path) -> None:
    store.add("mine", file, firmware=BOTH)
    with (
        publish.locked(store.directory, "mine", silent),
        pytest.raises(Conflict, match="another process"),
        publish.locked(store.directory, "mine", silent, patience=0.1),
    ):
        pytest.fail("entered a locked room")


# --- building, with mmdebstrap left out -------------------------------------------------------------------------------


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the long part of a build; returns what was built."""
    built: list[str] = []

    def build(recipe: Recipe, work: Path, directory: Path, on_progress: publish.Progress) -> ImageRecord:
        built.append(recipe.id)
        image = qcow2(work / "image.qcow2")
        origin = Origin(recipe.name, recipe.id, "build", BOTH)
        return publish.publish(image, admit(image), origin, directory, {}, on_progress)

    monkeypatch.setattr(build_module, "build", build)
    return built


def test_an_image_of_the_same_recipe_is_kept(store: ImageStore, builds: list[str]) -> None:
    first = store.build("debian-12")
    assert store.build("debian-12") == first
    assert builds == [first.id]
    assert (first.source, first.status) == ("build", "ok")


def test_a_fresh_build_lies_beside_the_older_one(store: ImageStore, builds: list[str]) -> None:
    old = store.build("debian-12")
    new = store.build("debian-12", fresh=True)
    assert old.path != new.path
    assert old.path.exists()
    assert {record.id for record in store.list()} == {old.id, new.id}
    assert store.build("debian-12", fresh=True) == new, "once a day"
    assert len(builds) == 2


def test_a_lost_image_is_built_anew(store: ImageStore, builds: list[str]) -> None:
    first = store.build("debian-12")
    first.path.unlink()
    assert store.build("debian-12").path == first.path
    assert len(builds) == 2


def test_two_processes_build_once(store: ImageStore, builds: list[str]) -> None:
    found: list[ImageRecord] = []
    threads = [threading.Thread(target=lambda: found.append(store.build("debian-12"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(builds) == 1
    assert len({record.id for record in found}) == 1
    assert len(found) == 4


def test_without_space_nothing_begins(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "SPACE", 1 << 60)
    with pytest.raises(NoCapacity) as full:
        store.build("debian-12")
    assert full.value.hint.startswith("df -h")
    assert left(store) == []


def test_a_tool_that_fails_leaves_nothing(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Path:
        raise DriverError("it failed", subject="mmdebstrap")

    monkeypatch.setattr(build_module, "make_rootfs", fail)
    with pytest.raises(DriverError, match="it failed"):
        store.build("debian-12")
    assert left(store) == []


# --- a crash at any moment --------------------------------------------------------------------------------------------

_EVENTS = frozenset({"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.truncate"})


def _dies_at(moment: int, store: ImageStore, work) -> bool:
    """Do something in a child that is killed at its n-th change of the store; False: it came to its end before."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            if event in _EVENTS and any(str(store.directory) in str(argument) for argument in arguments):
                count += 1
                if count == moment:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        code = 99
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


def test_a_crash_at_any_moment_of_adding_leaves_all_or_nothing(tmp_path: Path, file: Path) -> None:
    moment, died = 0, True
    while died:
        moment += 1
        store = ImageStore(tmp_path / f"images-{moment}")
        died = _dies_at(moment, store, lambda store=store: store.add("mine", file, firmware=BOTH))
        seen = store.list()
        assert len(seen) <= 1
        assert len(seen) == 1 or died
        record = store.add("mine", file, firmware=BOTH)
        assert store.verify("mine") == record
        assert left(store) == [record.path.with_suffix(".json").name, record.path.name]
    assert moment > 8, "the sweep did not reach what it should"


def test_a_crash_at_any_moment_of_deleting_leaves_all_or_nothing(tmp_path: Path, file: Path) -> None:
    moment, died = 0, True
    while died:
        moment += 1
        store = ImageStore(tmp_path / f"images-{moment}")
        record = store.add("mine", file, firmware=BOTH)
        died = _dies_at(moment, store, lambda store=store: store.delete("mine"))
        if store.list():
            assert store.verify("mine") == record
        assert store.add("mine", file, firmware=BOTH).id == record.id
        assert left(store) == [record.path.with_suffix(".json").name, record.path.name]
    assert moment > 3
