"""How the libvirt driver takes refusals that a healthy hypervisor seldom gives."""

from __future__ import annotations

import errno

import libvirt
import pytest

from tests.drivers.test_libvirt_connection import libvirt_error
from vmhost.drivers.libvirt import domains
from vmhost.model.identity import NAMESPACE


class Domain:
    """A domain whose calls fail in a given order, and that may end meanwhile."""

    def __init__(self, *failures: libvirt.libvirtError, active: bool = True) -> None:
        self.failures = list(failures)
        self.active = active
        self.flags: list[int] = []

    def isActive(self) -> bool:  # noqa: N802 - libvirt's name
        return self.active

    def isPersistent(self) -> bool:  # noqa: N802
        return True

    def _call(self, flags: int) -> None:
        self.flags.append(flags)
        if self.failures:
            raise self.failures.pop(0)

    def destroyFlags(self, flags: int) -> None:  # noqa: N802
        self._call(flags)

    def setMetadata(self, kind: int, xml: str, prefix: str, uri: str, flags: int) -> None:  # noqa: N802
        self.active = False
        self._call(flags)


STUCK = [
    libvirt_error(libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_QEMU, errno.EBUSY),
    libvirt_error(libvirt.VIR_ERR_OPERATION_TIMEOUT),
    libvirt_error(libvirt.VIR_ERR_RESOURCE_BUSY),
]
REFUSED = [
    libvirt_error(libvirt.VIR_ERR_OPERATION_DENIED),
    libvirt_error(libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, errno.EPIPE),
    libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR),
]


@pytest.mark.parametrize("failure", STUCK, ids=str)
def test_only_a_stuck_guest_is_killed(failure: libvirt.libvirtError) -> None:
    domain = Domain(failure)
    domains._power_off(domain)
    assert domain.flags == [libvirt.VIR_DOMAIN_DESTROY_GRACEFUL, libvirt.VIR_DOMAIN_DESTROY_DEFAULT]


@pytest.mark.parametrize("failure", REFUSED, ids=str)
def test_any_other_refusal_kills_nothing(failure: libvirt.libvirtError) -> None:
    domain = Domain(failure)
    with pytest.raises(libvirt.libvirtError):
        domains._to_its_end(domain, domains._power_off)
    assert domain.flags == [libvirt.VIR_DOMAIN_DESTROY_GRACEFUL]


def test_a_guest_that_ended_by_itself_meanwhile_is_as_good() -> None:
    domain = Domain(libvirt_error(libvirt.VIR_ERR_OPERATION_INVALID), active=False)
    domains._to_its_end(domain, domains._power_off)


def test_metadata_of_a_guest_that_ends_meanwhile_reaches_its_definition() -> None:
    domain = Domain(libvirt_error(libvirt.VIR_ERR_OPERATION_INVALID))
    domains._set_metadata(domain, "<guest/>", NAMESPACE)
    both = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG
    assert domain.flags == [both, libvirt.VIR_DOMAIN_AFFECT_CONFIG]
