"""The file system of a lab: private directories, and the mounts that put them in place, as a table for mount(8)."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmhost.drivers.command import run
from vmhost.lab import settings
from vmhost.lab.cgroups import Hierarchy
from vmhost.lab.store import Lab

PRIVATE: dict[str, tuple[str, ...]] = {
    "/var/lib": ("libvirt", "vmhost", "vmhost-lab"),
    "/var/log": ("libvirt", "vmhost"),
    "/var/cache": ("libvirt", "vmhost"),
}
"""Directories whose children are the machine's, except these, which are the lab's. They need not exist outside."""

IMAGES = "/var/lib/vmhost/images"
"""Where a lab sees the images that all labs share."""

DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "net/tun")
"""The devices of a lab. With /dev/kvm in sight, libvirtd would probe QEMU anew on every define."""

_FSTAB_ESCAPES = {ord(c): f"\\{ord(c):03o}" for c in " \t\n\\#"}


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of fstab(5)."""

    source: str
    target: str
    kind: str
    options: str = "defaults"

    def __str__(self) -> str:
        words = (self.source, self.target, self.kind, self.options)
        return " ".join(word.translate(_FSTAB_ESCAPES) for word in words)


def make_directories(lab: Lab) -> None:
    """Outside, before the start: make the private directories of a lab on disk."""
    lab.tree.mkdir()
    make_disk(lab)


def make_disk(lab: Lab) -> None:
    """Make the directories that a lab's larger private files are in."""
    for parent, own in PRIVATE.items():
        for name in own:
            (lab.disk / parent[1:] / name).mkdir(parents=True)
    (lab.disk / IMAGES[1:]).mkdir()


def mount_all(lab: Lab, hierarchies: Sequence[Hierarchy]) -> None:
    """In the mount namespace of a lab: make its small private files and put everything in its place.

    What the machine mounts or unmounts later shows in the lab, too, and is not held by it; never the other way round.

    :param hierarchies: the cgroup hierarchies that the lab gets; none: those of the machine, as they are.
    """
    run(["mount", "--make-rslave", "/"], timeout=10)
    run(["mount", "-t", "tmpfs", "-o", "mode=755,nosuid,nodev", lab.source, str(lab.tree)], timeout=10)
    _copy_etc(lab)
    settings.write(lab.tree / "etc")
    mounts = [*_devices(lab), *_farms(lab), *_kernel(lab, hierarchies), *_places(lab)]
    table = lab.tree / "fstab"
    table.write_text("".join(f"{mount}\n" for mount in mounts))
    run(["mount", "--all", "--fstab", str(table)], timeout=30)


def mounts_below(directory: Path, mountinfo: str) -> tuple[str, ...]:
    """The mount points at or below a directory, of a mount table in the form of ``/proc/self/mountinfo``."""
    places = (line.split(" ")[4] for line in mountinfo.splitlines())
    return tuple(place for place in places if Path(place).is_relative_to(directory))


def _bind(source: Path, target: Path, kind: str = "bind") -> Mount:
    return Mount(str(source), str(target), "none", kind)


def _copy_etc(lab: Lab) -> None:
    """Copy /etc, so that whatever is written there stays in the lab; a user's lab lacks what the user may not read."""
    run(["cp", "--archive", "--reflink=auto", "/etc", str(lab.tree)], timeout=60, check=not lab.user)
    for name in ("libvirt", "vmhost"):
        shutil.rmtree(lab.tree / "etc" / name, ignore_errors=True)
        (lab.tree / "etc" / name).mkdir()


def _devices(lab: Lab) -> Iterator[Mount]:
    dev = lab.tree / "dev"
    for name in ("pts", "shm", "net"):
        (dev / name).mkdir(parents=True)
    for name, target in (("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("core", "/proc/kcore")):
        (dev / name).symlink_to(target)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        (dev / name).symlink_to(f"/proc/self/fd/{number}")
    for name in (*DEVICES, *(["kvm"] if lab.kvm else [])):
        (dev / name).touch()
        yield _bind(Path("/dev", name), dev / name)
    yield Mount(lab.source, str(dev / "pts"), "devpts", "newinstance,ptmxmode=0666,mode=0620")
    yield Mount(lab.source, str(dev / "shm"), "tmpfs", "mode=1777,nosuid,nodev")


def _farms(lab: Lab) -> Iterator[Mount]:
    for parent, own in PRIVATE.items():
        farm = lab.tree / parent[1:]
        for name in own:
            (farm / name).mkdir(parents=True)
            yield _bind(lab.disk / parent[1:] / name, farm / name)
        for entry in sorted(Path(parent).iterdir()):
            if entry.name not in own:
                yield from _same(entry, farm / entry.name)


def _same(entry: Path, target: Path) -> Iterator[Mount]:
    """Show an entry of the machine's directory in the lab's; sockets and the like are not shown."""
    mode = entry.lstat().st_mode
    if stat.S_ISLNK(mode):
        target.symlink_to(entry.readlink())
    elif stat.S_ISDIR(mode):
        target.mkdir()
        yield _bind(entry, target, "rbind")
    elif stat.S_ISREG(mode):
        target.touch()
        yield _bind(entry, target)


def _kernel(lab: Lab, hierarchies: Sequence[Hierarchy]) -> Iterator[Mount]:
    """/proc and /sys of the new namespaces; they show the lab's processes, links and cgroups."""
    yield Mount(lab.source, "/proc", "proc", "nosuid,nodev,noexec")
    kept = lab.tree / "sys-fs-cgroup"
    if not hierarchies:
        kept.mkdir()
        yield _bind(Path("/sys/fs/cgroup"), kept, "rbind")
    yield Mount(lab.source, "/sys", "sysfs", "nosuid,nodev,noexec")
    if not hierarchies:
        # Visible but not writable: libvirt then starts guests without groups. Hidden, it would fail.
        yield _bind(kept, Path("/sys/fs/cgroup"), "rbind")
        return
    if all(hierarchy.mountpoint != Path("/sys/fs/cgroup") for hierarchy in hierarchies):
        yield Mount(lab.source, "/sys/fs/cgroup", "tmpfs", "mode=755,nosuid,nodev,noexec")
    for hierarchy in hierarchies:
        kind = "cgroup2" if hierarchy.version == 2 else "cgroup"
        options = ",".join(filter(None, ("nosuid,nodev,noexec", hierarchy.options)))
        yield Mount(lab.source, str(hierarchy.mountpoint), kind, f"{options},X-mount.mkdir")


def _places(lab: Lab) -> Iterator[Mount]:
    """The private directories in their places, last: the lab's own directory may lie under one of them."""
    yield _bind(Path(lab.images), lab.tree / IMAGES[1:])
    yield _bind(lab.tree / "etc", Path("/etc"))
    below = [Path(parent) for parent in PRIVATE]
    below.sort(key=lambda parent: lab.directory.is_relative_to(parent))
    yield _bind(lab.tree / "dev", Path("/dev"), "rbind")
    for parent in below:
        yield _bind(lab.tree / str(parent)[1:], parent, "rbind")
    yield Mount(lab.source, "/run", "tmpfs", "mode=755,nosuid,nodev")
