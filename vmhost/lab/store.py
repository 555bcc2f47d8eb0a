"""What is known of each lab: one directory with ``lab.json``, guarded by a lock on the directory itself.

The lock (flock(2)) needs no file of its own, so none is left behind, and the kernel releases it with the last process
that holds it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from vmhost.drivers.command import ProcessWatch
from vmhost.model.errors import Conflict, NotFound, PermissionDenied, UsageError
from vmhost.model.units import shown

_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_STATE = "lab.json"


class Status(StrEnum):
    """How a lab is: STARTING may also be one whose start was interrupted, DEAD is only files."""

    STARTING = "starting"
    READY = "ready"
    DEAD = "dead"


class Kernel(StrEnum):
    """Whose kernel a lab runs on: the machine's, in namespaces, or User-Mode Linux, one of its own."""

    HOST = "host"
    UML = "uml"


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab as its directory tells it.

    ``kernel`` is whose kernel it runs on. ``pid`` is the process that is PID 1 in the lab, or is the lab's own kernel,
    as it is numbered here; ``started`` (clock ticks after boot) and ``boot`` (the kernel's boot id) tell it from a
    later process with the same number. 0 and "" while there is none.
    """

    name: str
    directory: Path
    created: str = ""
    mark: str = ""
    images: str = ""
    user: bool = False
    bridge: bool = False
    kvm: bool = False
    kernel: str = Kernel.HOST
    ready: bool = False
    pid: int = 0
    started: int = 0
    boot: str = ""

    @property
    def disk(self) -> Path:
        """The private files that may be large: what the lab sees as ``/x`` lies in ``disk/x``."""
        return self.directory / "disk"

    @property
    def tree(self) -> Path:
        """Where the lab, and only the lab, has a tmpfs with its small private files and its mount points."""
        return self.directory / "tree"

    @property
    def source(self) -> str:
        """What the mount table of the lab gives as the device of its own file systems.

        No two are alike: mount(8) would take that of a lab around this one for already mounted.
        """
        return f"vmhost-lab-{self.name}-{self.mark}"

    @property
    def log(self) -> Path:
        """What the start of the lab had to say."""
        return self.directory / "lab.log"

    @property
    def status(self) -> Status:
        """How the lab is at this moment."""
        with self.watch() as watch:
            if watch is None:
                return Status.DEAD
        return Status.READY if self.ready else Status.STARTING

    @contextmanager
    def watch(self) -> Iterator[ProcessWatch | None]:
        """Hold the lab's PID 1; None when it has ended."""
        try:
            watch = ProcessWatch(self.pid) if self.pid else None
        except ProcessLookupError:
            watch = None
        if watch is None:
            yield None
            return
        with watch:
            # Checked while we hold it: from here on the number cannot change its meaning.
            same = (self.started, self.boot) == (start_time(self.pid), boot_id())
            yield watch if same and not watch.ended(0) else None


def check_name(name: str) -> str:
    """Return a name that may name a lab.

    :raises UsageError: it may not.
    """
    if not _NAME.fullmatch(name):
        text = "not a name for a lab: letters, digits, '.', '_' and '-', at most 63"
        raise UsageError(text, subject=shown(name), hint="vmhost lab up lab")
    return name


def root() -> Path:
    """The directory of all labs: ``VMHOST_LAB_DIR``, else ``/var/lib/vmhost-lab``, for users in their own state."""
    moved = os.environ.get("VMHOST_LAB_DIR", "")
    return Path(moved).absolute() if moved else _standard_root()


def _standard_root() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/vmhost-lab")
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(state) / "vmhost-lab"


def directories() -> tuple[Path, ...]:
    """The directories of all labs, by name."""
    try:
        return tuple(sorted(entry for entry in root().iterdir() if entry.is_dir() and _NAME.fullmatch(entry.name)))
    except FileNotFoundError:
        return ()
    except PermissionError as error:
        raise _denied(root()) from error


def claim(directory: Path) -> None:
    """Make the directory of a new lab; of several who want the name, one gets it.

    :raises Conflict: it exists.
    """
    name = directory.name
    while True:
        directory.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            directory.mkdir(mode=0o700)
        except FileNotFoundError:
            # The last lab of others went this very moment, and with it the directory of all.
            continue
        except FileExistsError as error:
            raise Conflict("a lab of that name exists", subject=name, hint=f"vmhost lab down {name}") from error
        return


def release(directory: Path) -> None:
    """After the directory of a lab was deleted: delete that of all labs, if it is empty and nobody chose it."""
    if directory.parent == _standard_root():
        with suppress(OSError):
            directory.parent.rmdir()


def find(name: str) -> Lab:
    """The lab of that name.

    :raises NotFound: there is none.
    :raises PermissionDenied: it is another user's.
    """
    directory = root() / check_name(name)
    try:
        if not directory.is_dir():
            raise NotFound("no such lab", subject=name, hint="vmhost lab list")
        return read(directory)
    except PermissionError as error:
        raise _denied(directory) from error


def read(directory: Path) -> Lab:
    """What the directory of a lab tells; without a (readable) state the lab never came to life."""
    try:
        state = json.loads((directory / _STATE).read_text())
    except (FileNotFoundError, ValueError):
        state = None
    if not isinstance(state, dict):
        return Lab(directory.name, directory)
    fields = {key: value for key, value in state.items() if key in Lab.__dataclass_fields__}
    return Lab(**{**fields, "name": directory.name, "directory": directory})


def write(lab: Lab) -> None:
    """Put down what is known of a lab, at once or not at all."""
    state = {"version": _VERSION, **asdict(lab), "directory": str(lab.directory)}
    new = lab.directory / f".{_STATE}.{os.getpid()}"
    new.write_text(json.dumps(state, indent=1) + "\n")
    new.replace(lab.directory / _STATE)


@contextmanager
def locked(directory: Path) -> Iterator[int]:
    """Hold the lock of a lab, waiting for whoever has it; gives the descriptor that holds it.

    :raises NotFound: the lab is gone, perhaps while we waited.
    """
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound("no such lab", subject=directory.name, hint="vmhost lab list") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists() or not os.path.samestat(os.fstat(lock), directory.stat()):
            raise NotFound("no such lab", subject=directory.name, hint="vmhost lab list")
        yield lock
    finally:
        os.close(lock)


def start_time(pid: int) -> int:
    """When a process started, in clock ticks after boot (proc(5), field 22 of ``stat``); 0: there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat.rpartition(")")[2].split()[19])


def boot_id() -> str:
    """The kernel's name for the time since its last boot (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _denied(path: Path) -> PermissionDenied:
    return PermissionDenied("another user's labs", subject=str(path), hint="sudo vmhost lab list")
