"""The hypervisor itself: who it is, whether it is this machine's, and what guests it can run."""

from __future__ import annotations

import socket
from typing import Final
from urllib.parse import urlsplit

import libvirt

from vmhost.drivers.libvirt.connection import Connection, Handle, is_privileged
from vmhost.ports import RawHost

_KVM_OFFERED: Final = "<domain type='kvm'"
_MACHINES: Final = {"x86_64": "q35"}


def read_host(connection: Connection) -> RawHost:
    """Return the hypervisor in its own words."""
    return connection.read(_read, "host")


def _read(handle: Handle) -> RawHost:
    uri = str(handle.getURI())
    driver = str(handle.getType())
    capabilities = str(handle.getCapabilities())
    local = _is_local(handle, uri)
    offered = _KVM_OFFERED in capabilities
    usable = offered and (_kvm_runs() if local else True)
    return RawHost(
        uri=uri,
        driver=driver,
        hostname=str(handle.getHostname()),
        libvirt_version=int(handle.getLibVersion()),
        hypervisor_version=int(handle.getVersion()),
        capabilities=capabilities,
        domain_capabilities=_domain_capabilities(handle, "kvm" if usable else "qemu"),
        local=local,
        privileged=is_privileged(handle),
        kvm=usable,
    )


def _kvm_runs() -> bool:
    from vmhost.drivers import kvm

    return kvm.usable()


def _domain_capabilities(handle: Handle, kind: str) -> str:
    """What guests of our machine type can have; empty where the driver cannot say (the test driver)."""
    architecture = str(handle.getInfo()[0])
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
