"""Where a program is, and which Debian package brings it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from vmhost.model.errors import Absent

PACKAGES: Mapping[str, str] = {
    "dnsmasq": "dnsmasq-base",
    "dpkg-deb": "dpkg",
    "gpgv": "gpgv",
    "grub-install": "grub2-common",
    "grub-mkimage": "grub-common",
    "grub-mkstandalone": "grub-common",
    "ip": "iproute2",
    "libvirtd": "libvirt-daemon",
    "linux.uml": "user-mode-linux",
    "mcopy": "mtools",
    "mformat": "mtools",
    "mke2fs": "e2fsprogs",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.fat": "dosfstools",
    "mkfs.vfat": "dosfstools",
    "mmd": "mtools",
    "mmdebstrap": "mmdebstrap",
    "mount": "mount",
    "nbdcopy": "libnbd-bin",
    "nbdinfo": "libnbd-bin",
    "newuidmap": "uidmap",
    "nft": "nftables",
    "nsenter": "util-linux",
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "qemu-nbd": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "restic": "restic",
    "sfdisk": "fdisk",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "swtpm": "swtpm",
    "swtpm_setup": "swtpm-tools",
    "syslinux": "syslinux",
    "unshare": "util-linux",
    "virsh": "libvirt-clients",
    "virt-xml-validate": "libvirt-clients",
    "virtlogd": "libvirt-daemon",
    "xz": "xz-utils",
}
"""The Debian package that brings each program."""

_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


def find(program: str) -> str:
    """The path of a program; the directories of system programs are searched even if ``PATH`` lacks them.

    :raises Absent: it is not installed; the hint installs it.
    """
    path = shutil.which(program) or shutil.which(program, path=_SYSTEM_PATH)
    if path is not None:
        return path
    package = PACKAGES.get(Path(program).name)
    raise Absent("program not found", subject=program, hint=f"apt-get install {package}" if package else "")
