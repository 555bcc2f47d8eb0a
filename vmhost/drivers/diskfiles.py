"""``ports.DiskFiles``: qcow2 files that no guest writes to, and the files of UEFI's variables.

Files with data in them are qemu-img's; an empty overlay is four clusters, written here in a hundredth of the time that
libvirt needs to start qemu-img for it.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from stat import S_IMODE
from typing import Final
from xml.etree.ElementTree import fromstring

from vmhost.drivers.command import run
from vmhost.drivers.files import os_errors, write_atomically
from vmhost.drivers.images import qcow2
from vmhost.drivers.images.inspection import inspect
from vmhost.model.domains import RawDomain
from vmhost.model.errors import Absent, AlreadyThere, DriverError

_A_DAY: Final = 86_400.0
_QUICK: Final = 60.0
_SYSTEM: Final = Path("/var/lib/libvirt/qemu/nvram")


class LocalDiskFiles:
    """The files of this machine.

    :param privileged: asked whether it is the system's hypervisor, whose UEFI variables lie elsewhere.
    """

    def __init__(self, privileged: Callable[[], bool]) -> None:
        self._privileged = privileged

    def backing(self, path: str) -> str:
        return inspect(Path(path)).backing_file

    def make_overlay(self, path: str, base: str, capacity: int) -> None:
        hint = f"qemu-img info {shlex.quote(base)}"
        if (found := inspect(Path(base)).format) != "qcow2":
            raise DriverError(f"it is {found}, not qcow2", subject=base, hint=hint)
        try:
            pieces = tuple(qcow2.empty(capacity, base))
        except qcow2.Malformed as error:
            raise DriverError(str(error), subject=path, hint=hint) from error
        place = Path(path)
        with os_errors(place, "make the overlay"):
            # Its mode is that of volumes; libvirt gives it to QEMU's user, as it does with those, when a guest gets it.
            handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                for offset, data in pieces:
                    os.pwrite(handle, data, offset)
                os.fdatasync(handle)  # before a definition names it; its own name goes to the disk along with it
            except BaseException:
                place.unlink()
                raise
            finally:
                os.close(handle)

    def commit(self, top: str, base: str) -> None:
        # Its target is what top lies on, which the caller has looked at; -d leaves top as it is.
        run(("qemu-img", "commit", "-q", "-d", "-f", "qcow2", top), timeout=_A_DAY, hint=f"qemu-img check {base}")

    def written(self, path: str) -> bool:
        if not _is_qcow2(Path(path)):
            return False
        node = {"driver": "qcow2", "file": {"driver": "file", "filename": path}, "backing": None}
        words = ("qemu-img", "map", "-U", "--output=json", f"json:{json.dumps(node)}")
        said = run(words, timeout=_QUICK, hint=f"qemu-img info -U {path}").text
        return any(extent["present"] for extent in json.loads(said))

    def rebase(self, path: str, base: str) -> None:
        words = ("qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-b", base, "-F", "qcow2", path)
        run(words, timeout=_QUICK, hint=f"qemu-img info {path}")

    def nvram(self, domain: RawDomain) -> bytes:
        place = self._place(domain)
        with os_errors(place, "read"):
            return place.read_bytes() if place.exists() else b""

    def keep_nvram(self, domain: RawDomain, path: str) -> None:
        if os.path.lexists(path):
            raise AlreadyThere("there is a file of that name", subject=path, hint=f"ls -l {path}")
        write_atomically(Path(path), self.nvram(domain))

    def same_nvram(self, domain: RawDomain, path: str) -> bool:
        with os_errors(Path(path), "read"):
            return Path(path).read_bytes() == self.nvram(domain)

    def put_nvram(self, domain: RawDomain, path: str) -> None:
        if domain.state.active:
            text = "it runs; its UEFI variables were not touched"
            raise DriverError(text, subject=domain.name, hint=f"vmhost guest stop {domain.name}")
        place = self._place(domain)
        with os_errors(Path(path), "read"):
            data = Path(path).read_bytes()
        with os_errors(place, "write"):
            if not data:
                place.unlink(missing_ok=True)  # libvirt makes it anew at the next start, as at the first one
                return
            if not place.exists():
                write_atomically(place, data)
                return
            before = place.stat()
            write_atomically(place, data, mode=S_IMODE(before.st_mode), owner=(before.st_uid, before.st_gid))

    def _place(self, domain: RawDomain) -> Path:
        """Return where libvirt keeps a domain's variables; a definition need not say it."""
        for xml in (domain.live_xml, domain.xml):
            found = fromstring(xml).find("os/nvram") if xml else None  # noqa: S314 - libvirt's own
            if found is not None:
                source = found.find("source")
                text = (found.text or "").strip() or ("" if source is None else source.get("file", ""))
                if text:
                    return Path(text)
        home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        directory = _SYSTEM if self._privileged() else home / "libvirt" / "qemu" / "nvram"
        return directory / f"{domain.name}_VARS.fd"


def _is_qcow2(path: Path) -> bool:
    """Whether a file is there and is one; a power cut may leave a new one empty, with which no guest can have begun."""
    try:
        with os_errors(path, "read"), path.open("rb") as opened:
            return opened.read(len(qcow2.MAGIC)) == qcow2.MAGIC
    except Absent:
        return False
