"""``image build``: from a recipe to an image in the store."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from vmhost.drivers.command import run
from vmhost.drivers.images.disk import assemble, plan_for
from vmhost.drivers.images.fakeroot import as_root_of_namespace
from vmhost.drivers.images.inspection import admit
from vmhost.drivers.images.publish import Origin, Progress, check_space, publish
from vmhost.drivers.images.recipe import Recipe
from vmhost.drivers.images.rootfs import make_rootfs
from vmhost.model.image import ImageRecord
from vmhost.model.units import GIB

SPACE: Final = 4 * GIB
"""Bytes that a build needs for a while: the system as archive and as tree, the disk before and after compression."""

FIRMWARE: Final = frozenset({"bios", "uefi"})
_TOLD_PACKAGES: Final = ("linux-image-cloud-amd64", "cloud-init", "systemd", "openssh-server", "qemu-guest-agent")


def build(recipe: Recipe, work: Path, directory: Path, on_progress: Progress) -> ImageRecord:
    """Make the image of a recipe in the empty directory ``work`` and publish it in ``directory``.

    :raises NoCapacity: there is too little space; :raises NotFound: the mirrors do not hold the suite.
    :raises DriverError: a tool is missing or failed; nothing is published.
    """
    check_space(work, SPACE)
    archive = make_rootfs(recipe, work, lambda text, share: on_progress(text, 0.8 * (share or 0)))
    on_progress("unpacking the system", 0.8)
    tree = work / "tree"
    tree.mkdir()
    # What belongs into /dev is made anew at every boot, and an ordinary user could not make it here.
    as_root_of_namespace(["tar", "-C", str(tree), "-xf", str(archive), "--exclude=./dev/*"], timeout=300)
    plan = plan_for(archive.stat().st_size)
    archive.unlink()
    on_progress("writing the disk", 0.86)
    conf, disk, image = work / "mke2fs.conf", work / "disk.raw", work / "image.qcow2"
    conf.write_bytes(recipe.mke2fs_conf)
    assemble(tree, disk, plan, conf)
    on_progress("compressing", 0.92)
    _compress(disk, image)
    facts = admit(image, expect="qcow2")
    origin = Origin(recipe.name, recipe.id, "build", FIRMWARE)
    return publish(image, facts, origin, directory, _contents(recipe, tree), lambda text, _: on_progress(text, 0.98))


def _compress(disk: Path, image: Path) -> None:
    """Version 1.1 for bitmaps; zstd, since every boot unpacks what it reads (QEMU 5.1 and newer)."""
    form = ["-f", "raw", "-O", "qcow2", "-o", "compat=1.1,compression_type=zstd"]
    run(["qemu-img", "convert", "-q", "-c", *form, str(disk), str(image)], timeout=600)


def _contents(recipe: Recipe, tree: Path) -> dict[str, str]:
    """What came out, for people: the suite, Debian's point release, versions of what a guest depends on most."""
    query = ["dpkg-query", f"--admindir={tree / 'var/lib/dpkg'}", "-W", "-f", "${Package}=${Version}\n"]
    lines = run([*query, *_TOLD_PACKAGES], timeout=60, check=False).text.splitlines()
    kernels = sorted(path.name.removeprefix("vmlinuz-") for path in (tree / "boot").glob("vmlinuz-*"))
    return {
        "suite": recipe.suite,
        "date": recipe.date,
        "debian": (tree / "etc/debian_version").read_text().strip(),
        "kernel": ", ".join(kernels),
        **dict(line.split("=", 1) for line in lines if "=" in line),
    }
