"""Builds the ports for a hypervisor, each on first use, so that a listing pays for nothing that it does not touch."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

from vmhost.model.errors import Unreachable

if TYPE_CHECKING:
    from vmhost.drivers.images.store import ImageStore
    from vmhost.drivers.libvirt.hypervisor import LibvirtHypervisor
    from vmhost.model.layout import Layout
    from vmhost.ports import Clock, Entropy, History, Journals, Ports

FAKE = "fake:"


class Builder:
    """The drivers behind one connection.

    :param uri: as for virsh's ``-c``; None: libvirt's own default; ``fake:demo``: the built-in fake host.
    """

    def __init__(self, uri: str | None) -> None:
        self.uri = uri

    @cached_property
    def hypervisor(self) -> LibvirtHypervisor:
        """The open connection. :raises Unreachable: libvirt does not answer."""
        from vmhost.drivers.libvirt.hypervisor import connect

        return connect(self.uri)

    @cached_property
    def layout(self) -> Layout:
        """Where things lie for this hypervisor; where none answers, for the one that this user would have.

        So images can be built before libvirt is there.
        """
        from vmhost.drivers.layout import layout_for

        try:
            return layout_for(self.hypervisor.privileged)
        except Unreachable:
            return layout_for(os.geteuid() == 0)

    @cached_property
    def journals(self) -> Journals:
        """The journals of this hypervisor."""
        from vmhost.drivers.journals import FileJournals

        return FileJournals(self.layout)

    @cached_property
    def clock(self) -> Clock:
        """Time."""
        from vmhost.drivers.clock import SystemClock

        return SystemClock()

    @cached_property
    def entropy(self) -> Entropy:
        """Chance."""
        from vmhost.drivers.entropy import SystemEntropy

        return SystemEntropy()

    @cached_property
    def history(self) -> History:
        """Jobs of all processes."""
        from vmhost.drivers.history import SqliteHistory

        return SqliteHistory(self.layout)

    @cached_property
    def images(self) -> ImageStore:
        """The image store."""
        from vmhost.drivers.images.store import ImageStore

        return ImageStore(self.layout.images)

    @cached_property
    def ports(self) -> Ports:
        """Everything."""
        from vmhost.drivers.diskfiles import LocalDiskFiles
        from vmhost.drivers.hook import LibvirtHook
        from vmhost.drivers.kernel import LinuxKernel
        from vmhost.drivers.keys import FileKeys
        from vmhost.drivers.locks import FileLocks
        from vmhost.drivers.netkeeper import NetworkKeeper
        from vmhost.drivers.netlink import Netlink
        from vmhost.drivers.nft import Nft
        from vmhost.drivers.nighttimers import SystemTimers
        from vmhost.drivers.prober import NetworkProber
        from vmhost.drivers.repository.store import FileRepositories
        from vmhost.drivers.reservations import FileReservations
        from vmhost.drivers.seediso import IsoSeedMaker
        from vmhost.drivers.signals import GuestSignals
        from vmhost.drivers.ssh.shell import SshShell
        from vmhost.drivers.thawguard import ProcessThawGuards
        from vmhost.ports import Ports

        return Ports(
            hypervisor=self.hypervisor,
            links=Netlink(),
            hook=LibvirtHook(),
            keeper=NetworkKeeper(self.layout),
            kernel=LinuxKernel(),
            packet=Nft(),
            shell=SshShell(),
            prober=NetworkProber(),
            signals=GuestSignals(),
            seeds=IsoSeedMaker(),
            images=self.images,
            files=LocalDiskFiles(lambda: self.hypervisor.privileged),
            clock=self.clock,
            entropy=self.entropy,
            keys=FileKeys(self.layout),
            locks=FileLocks(self.layout),
            journals=self.journals,
            reservations=FileReservations(self.layout),
            repositories=FileRepositories(self.layout),
            timers=SystemTimers(),
            thawing=ProcessThawGuards(self.layout, lambda: self.hypervisor.uri),
            history=self.history,
            layout=self.layout,
        )


def user_name() -> str:
    """Return the person who acts, also behind sudo."""
    import getpass

    return os.environ.get("SUDO_USER") or getpass.getuser()
