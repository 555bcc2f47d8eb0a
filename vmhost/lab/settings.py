"""The settings of a lab's daemons: written fresh, since the machine's own may name certificates, guests and secrets."""

from __future__ import annotations

import uuid
from pathlib import Path

QEMU = """\
# QEMU runs as the lab's root: the namespaces around it are the border.
user = "root"
group = "root"
security_driver = "none"
# Remembering owners needs extended attributes that only the machine's own root may write.
remember_owner = 0
# libvirt's own mount namespace for each guest would start from the lab's /dev and add nothing.
namespaces = []
# With it, libvirt asks a starting QEMU for each of 400 features of its CPU, one by one; without it, for all at once.
capability_filters = ["cpu-unavailable-features"]
"""

LIBVIRTD = """\
unix_sock_ro_perms = "0777"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
# Two labs are two hosts.
host_uuid = "{host}"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""

VIRTLOGD = """\
log_outputs = "3:file:/var/log/libvirt/virtlogd.log"
"""


def write(etc: Path) -> None:
    """Write libvirt's settings below the lab's /etc.

    :param etc: the lab's copy of /etc, with an empty directory ``libvirt``.
    """
    libvirt = etc / "libvirt"
    for name in ("qemu", "hooks"):
        (libvirt / name).mkdir()
    (libvirt / "qemu.conf").write_text(QEMU)
    (libvirt / "libvirtd.conf").write_text(LIBVIRTD.format(host=uuid.uuid4()))
    (libvirt / "virtlogd.conf").write_text(VIRTLOGD)
