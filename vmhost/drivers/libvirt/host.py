"""The hypervisor itself: who it is, whether it is this machine's, and what guests it can run."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import libvirt

from vmhost.drivers.libvirt.connection import Connection, Handle, is_privileged
from vmhost.ports import RawDaemon, RawHost

_KVM_OFFERED: Final = "<domain type='kvm'"
_MACHINES: Final = {"x86_64": "q35"}


@dataclass(frozen=True, slots=True)
class _Daemon(RawDaemon):
    architecture: str


class HostReader:
    """Reads the hypervisor; what its daemon is, once for each connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: tuple[Handle, _Daemon] | None = None

    def daemon(self) -> RawDaemon:
        """Return who answers."""
        return self._connection.read(self._daemon, "host", asks=False)

    def read(self) -> RawHost:
        """Return the hypervisor in its own words."""
        return self._connection.read(self._read, "host")

    def _read(self, handle: Handle) -> RawHost:
        daemon = self._daemon(handle)
        capabilities = str(handle.getCapabilities())
        offered = _KVM_OFFERED in capabilities
        usable = offered and (_kvm_runs() if daemon.local else True)
        return RawHost(
            uri=daemon.uri,
            driver=daemon.driver,
            hostname=daemon.hostname,
            libvirt_version=daemon.libvirt_version,
            hypervisor_version=daemon.hypervisor_version,
            capabilities=capabilities,
            domain_capabilities=_domain_capabilities(handle, daemon.architecture, "kvm" if usable else "qemu"),
            local=daemon.local,
            privileged=daemon.privileged,
            kvm=usable,
        )

    def _daemon(self, handle: Handle) -> _Daemon:
        known = self._known
        if known is None or known[0] is not handle:
            known = self._known = (handle, _ask(handle))
        return known[1]


def _ask(handle: Handle) -> _Daemon:
    uri = str(handle.getURI())
    return _Daemon(
        uri=uri,
        driver=str(handle.getType()),
        hostname=str(handle.getHostname()),
        libvirt_version=int(handle.getLibVersion()),
        hypervisor_version=int(handle.getVersion()),
        architecture=str(handle.getInfo()[0]),
        local=_is_local(handle, uri),
        privileged=is_privileged(handle),
    )


def _kvm_runs() -> bool:
    from vmhost.drivers import kvm

    return kvm.usable()


def _domain_capabilities(handle: Handle, architecture: str, kind: str) -> str:
    """What guests of our machine type can have; empty where the driver cannot say (the test driver)."""
    try:
        return str(handle.getDomainCapabilities(None, architecture, _MACHINES.get(architecture), kind, 0))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return ""
        raise


def _is_local(handle: Handle, uri: str) -> bool:
    """Whether the hypervisor is on this machine, judged by libvirt's own normal form of the URI and by its host name.

    A URI without a server is libvirt's word for "here" (https://libvirt.org/uri.html); the name then catches sockets
    and commands that lead elsewhere. A socket forwarded from another machine of the same name would deceive it.
    """
    if urlsplit(uri).netloc:
        return False
    name = str(handle.getHostname())
    return name == socket.gethostname() or name == _own_hostname()


def _own_hostname() -> str:
    """Return the name of this machine as a libvirt daemon on it would say it: resolved, if it resolves."""
    return str(libvirt.open("test:///default").getHostname())
