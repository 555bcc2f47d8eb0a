"""What a repository says to somebody who has no vmhost."""

from __future__ import annotations

from typing import Final

TEXT: Final = """\
# Backups of virtual machines

This directory holds backups that vmhost has made. Nothing in it needs vmhost: a point in time is a directory with

    manifest.json     what it is: guest, time, disks; "parent" is the point that an incremental one lies on
    SHA256SUMS        of every file beside it
    domain.xml        the guest's definition, for virsh
    checkpoint.xml    what libvirt kept for the next increment, if it ran
    nvram.fd          UEFI's variables, if it has any
    seed.iso          for cloud-init: that this machine is the one that it knows; no secrets
    DISK.qcow2        one for each disk; an increment's backing file is the same disk of its parent, by a relative name;
                      if it is compressed, with zstd, qemu-img must be of QEMU 5.1 or later

and lies in hosts/HOST/guests/UUID/points/POINT. Names of points begin with their time in UTC. Directories whose names
begin with a dot were never finished and are no points.

## Restoring by hand

Choose a point, and check it and every point below it (follow "parent" in manifest.json):

    cd hosts/HOST/guests/UUID/points/POINT
    sha256sum --check SHA256SUMS
    qemu-img info --backing-chain DISK.qcow2

Write each disk, whole, to where the guest is to have it. domain.xml says where it was: <source file='...'/>.

    qemu-img convert -f qcow2 -O qcow2 DISK.qcow2 /var/lib/libvirt/images/DISK.qcow2

For a guest with nvram.fd, copy it to the file that domain.xml names in <nvram>, or, if it names none, to libvirt's own
choice, below. For one with seed.iso, copy that to the file of its read-only disk: without it cloud-init takes the guest
for a new machine, with other host keys and no network.

    cp nvram.fd /var/lib/libvirt/qemu/nvram/GUEST_VARS.fd
    cp seed.iso /var/lib/libvirt/images/SEED.iso

Then, if the guest is not defined any more, or on another machine: change paths in a copy of domain.xml where they
differ, take out disks that you did not write, then

    virsh define domain.xml
    virsh checkpoint-list GUEST --name | xargs -r -n 1 virsh checkpoint-delete GUEST --metadata
    virsh start GUEST

Never start a guest on files in this directory: that would change them, and every point that lies on them.
"""
