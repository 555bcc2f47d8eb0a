"""XML of backup jobs and checkpoints (https://libvirt.org/formatbackup.html, https://libvirt.org/formatcheckpoint.html)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lxml import etree

from vmhost.render.document import write


def pull_xml(socket: str, scratch: Mapping[str, str], others: Iterable[str]) -> str:
    """Return a job that exports disks, each under its target's name, on a socket.

    :param scratch: for each target the file that keeps what the guest overwrites meanwhile; libvirt makes it, and
        removes it at the job's end, also where QEMU was killed.
    :param others: targets of disks that are left alone.
    """
    root = etree.Element("domainbackup", mode="pull")
    etree.SubElement(root, "server", transport="unix", socket=socket)
    disks = etree.SubElement(root, "disks")
    for target, path in scratch.items():
        disk = etree.SubElement(disks, "disk", name=target, backup="yes", type="file", exportname=target)
        etree.SubElement(disk, "scratch", file=path)
    _leave(disks, others)
    return write(root)


def push_xml(since: str, files: Mapping[str, str], others: Iterable[str]) -> str:
    """Return a job in which QEMU itself writes what changed since a checkpoint into qcow2 files that are there.

    :param files: the file of each target.
    """
    root = etree.Element("domainbackup", mode="push")
    etree.SubElement(root, "incremental").text = since
    disks = etree.SubElement(root, "disks")
    for target, path in files.items():
        disk = etree.SubElement(disks, "disk", name=target, backup="yes", type="file")
        etree.SubElement(disk, "driver", type="qcow2")
        etree.SubElement(disk, "target", file=path)
    _leave(disks, others)
    return write(root)


def checkpoint_xml(name: str, targets: Iterable[str], others: Iterable[str]) -> str:
    """Return a checkpoint over some disks of a guest."""
    root = etree.Element("domaincheckpoint")
    etree.SubElement(root, "name").text = name
    disks = etree.SubElement(root, "disks")
    for target in targets:
        etree.SubElement(disks, "disk", name=target, checkpoint="bitmap")
    for target in others:
        etree.SubElement(disks, "disk", name=target, checkpoint="no")
    return write(root)


def _leave(disks: etree._Element, others: Iterable[str]) -> None:
    for target in others:
        etree.SubElement(disks, "disk", name=target, backup="no")
