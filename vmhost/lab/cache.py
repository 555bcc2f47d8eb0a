"""What labs keep for each other: what libvirt found out about QEMU, and images."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from vmhost.lab.store import Kernel, Lab
from vmhost.model.errors import DriverError

CAPABILITIES = "var/cache/libvirt/qemu/capabilities"
"""Where libvirt keeps what it found out about QEMU."""


def images() -> Path:
    """The directory of images that all labs share: ``VMHOST_IMAGE_CACHE``, else ``~/.cache/vmhost/images``.

    Files in it are named by their content, so sharing is safe.
    """
    moved = os.environ.get("VMHOST_IMAGE_CACHE", "")
    return Path(moved).absolute() if moved else _home() / "images"


def make_images(lab: Lab) -> None:
    """Make the directory of images for a new lab, unless it is there.

    :raises DriverError: it cannot be made.
    """
    try:
        Path(lab.images).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DriverError(
            f"no directory for images: {error.strerror}", subject=lab.images, hint="export VMHOST_IMAGE_CACHE=DIRECTORY"
        ) from error


def lend_capabilities(lab: Lab) -> bool:
    """Give a new lab what an earlier one found out about QEMU; False: nothing is known.

    Asking every QEMU takes libvirt most of a second. It checks by itself that what it finds still holds.
    """
    kept = _kept(lab)
    if not kept.is_dir():
        return False
    shutil.copytree(kept, place(lab))
    return True


def keep_capabilities(lab: Lab) -> None:
    """Keep what a lab's libvirt found out about QEMU, for later labs."""
    kept = _kept(lab)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent, ignore_cleanup_errors=True) as new:
        shutil.copytree(place(lab), Path(new, "kept"))
        # Another lab may have been faster; what it found is as good.
        with suppress(OSError):
            Path(new, "kept").rename(kept)


def place(lab: Lab) -> Path:
    """Where what is known about QEMU is handed over, outside: the lab's own file, unless that is in its memory."""
    return lab.disk / CAPABILITIES if lab.kernel == Kernel.HOST else lab.directory / "capabilities"


def _kept(lab: Lab) -> Path:
    """A place for each combination of libvirtd, QEMUs, kernel and KVM."""
    programs = [Path("/usr/sbin/libvirtd"), *_own_kernel(lab), *sorted(Path("/usr/bin").glob("qemu-system-*"))]
    stats = [(str(program), program.stat().st_size, program.stat().st_mtime_ns) for program in programs]
    mark = repr((stats, os.uname().release, lab.kvm, lab.user, str(lab.kernel)))
    return _home() / "lab" / hashlib.sha256(mark.encode()).hexdigest()[:16]


def _own_kernel(lab: Lab) -> tuple[Path, ...]:
    return (Path("/usr/bin/linux.uml"),) if lab.kernel == Kernel.UML else ()


def _home() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "vmhost"
