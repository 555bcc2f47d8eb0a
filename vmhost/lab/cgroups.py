"""The lab's own place in every cgroup hierarchy.

Without it libvirt would put the guests of every lab into the machine's ``/machine``, where two guests of equal name and
number meet and where empty groups stay behind. A cgroup namespace (cgroup_namespaces(7)) makes the lab's group the root
of what the lab sees; version 1, version 2 and both side by side occur.
"""

from __future__ import annotations

import errno
import hashlib
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vmhost.drivers.command import ProcessWatch

_MOUNTINFO = Path("/proc/self/mountinfo")
_FLAGS = {"rw", "ro", "xattr", "noprefix", "clone_children", "nsdelegate", "memory_recursiveprot", "favordynmods"}
_OWN = "own"
_END = 5.0


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted hierarchy: where, which version, and the controllers or the name that version 1 is mounted with."""

    mountpoint: Path
    version: int
    options: str = ""

    def group(self, directory: Path) -> Path:
        """The group of the lab in that directory: the root of the lab's namespace."""
        mark = hashlib.sha256(bytes(directory)).hexdigest()[:8]
        return self.mountpoint / f"vmhost-lab-{directory.name}-{mark}"

    def members(self, directory: Path) -> Path:
        """The group of the lab's processes: in version 2, groups with children that have limits hold no processes."""
        return self.group(directory) / _OWN if self.version == 2 else self.group(directory)


def hierarchies(mountinfo: str) -> tuple[Hierarchy, ...]:
    """The cgroup hierarchies of a mount table (proc(5), mountinfo); of mounts on the same place the last one counts."""
    found: dict[Path, Hierarchy] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        place = Path(left.split(" ")[4])
        if kind == "cgroup2":
            found[place] = Hierarchy(place, 2)
        elif kind == "cgroup":
            chosen = (o for o in options.split(",") if o not in _FLAGS and not o.startswith("release_agent="))
            found[place] = Hierarchy(place, 1, ",".join(chosen))
    return tuple(found.values())


def mounted() -> tuple[Hierarchy, ...]:
    """The hierarchies that we see."""
    return hierarchies(_MOUNTINFO.read_text())


def make(directory: Path) -> None:
    """Make the groups of a lab."""
    for hierarchy in mounted():
        group = hierarchy.group(directory)
        hierarchy.members(directory).mkdir(parents=True, exist_ok=True)
        if hierarchy.version == 2:
            _delegate(hierarchy.mountpoint)
        for name in ("cpuset.cpus", "cpuset.mems"):
            # Version 1 lets no process into a group that has no CPUs and no memory.
            if hierarchy.version == 1 and (group / name).exists() and not (group / name).read_text().strip():
                (group / name).write_text((hierarchy.mountpoint / name).read_text())


def enter(directory: Path) -> None:
    """Move this process where a cgroup namespace that it makes begins."""
    for hierarchy in mounted():
        _move(hierarchy.group(directory))


def settle(directory: Path) -> None:
    """Move this process on to where the lab's processes are, after it made the namespace."""
    join(directory)
    for hierarchy in mounted():
        if hierarchy.version == 2:
            _delegate(hierarchy.group(directory))


def join(directory: Path) -> None:
    """Move this process into the groups of a lab."""
    for hierarchy in mounted():
        _move(hierarchy.members(directory))


def remove(directory: Path) -> None:
    """Remove the groups of a lab, and end whoever is in them still; absent groups are no reason to complain.

    After the lab's PID 1 these are programs outside its namespaces that wait for one inside: they are about to end.
    """
    for hierarchy in mounted():
        for path, _, _ in os.walk(hierarchy.group(directory), topdown=False):
            with suppress(FileNotFoundError):
                _clear(Path(path))
                Path(path).rmdir()


def left(directory: Path) -> tuple[Path, ...]:
    """The groups of a lab that exist."""
    return tuple(group for hierarchy in mounted() if (group := hierarchy.group(directory)).exists())


def _move(group: Path) -> None:
    (group / "cgroup.procs").write_text(str(os.getpid()))


def _clear(group: Path) -> None:
    try:
        pids = (group / "cgroup.procs").read_text().split()
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        # A threaded group holds threads of PID 1's children only, and they have ended.
        return
    for pid in map(int, pids):
        with suppress(ProcessLookupError), ProcessWatch(pid) as watch:
            if pid != os.getpid() and not watch.ended(_END):
                watch.send(signal.SIGKILL)
                watch.ended(_END)


def _delegate(group: Path) -> None:
    """Let the children of a version 2 group have every controller that it has itself."""
    for controller in (group / "cgroup.controllers").read_text().split():
        # One that the kernel does not let go is one that libvirt will not see either.
        with suppress(OSError):
            (group / "cgroup.subtree_control").write_text(f"+{controller}")
