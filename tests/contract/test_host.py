"""The hypervisor itself."""

from __future__ import annotations

from xml.etree.ElementTree import fromstring

from tests.contract.backends import Backend


def test_it_says_who_it_is(backend: Backend) -> None:
    host = backend.hypervisor.host()
    assert host.uri
    assert host.driver
    assert host.hostname
    assert host.libvirt_version >= 9_000_000
    assert host.local
    assert fromstring(host.capabilities).findtext("host/cpu/arch")


def test_who_answers_is_the_same_in_both_questions(backend: Backend) -> None:
    daemon, host = backend.hypervisor.daemon(), backend.hypervisor.host()
    for name in ("uri", "driver", "hostname", "libvirt_version", "hypervisor_version", "local", "privileged"):
        assert getattr(daemon, name) == getattr(host, name)


def test_it_says_what_guests_can_have_or_nothing(backend: Backend) -> None:
    capabilities = backend.hypervisor.host().domain_capabilities
    if backend.lacks("domain capabilities"):
        assert capabilities == ""
    else:
        root = fromstring(capabilities)
        assert "q35" in (root.findtext("machine") or "")
        assert root.findtext("domain") == ("kvm" if backend.hypervisor.host().kvm else "qemu")


def test_one_look_tells_what_the_single_questions_tell(backend: Backend) -> None:
    backend.pool()
    hypervisor = backend.hypervisor
    seen = hypervisor.look(host=True)()
    assert (seen.domains, seen.host) == (hypervisor.domains(), hypervisor.host())
    assert [(pool.name, pool.active) for pool in seen.pools] == [
        (pool.name, pool.active) for pool in hypervisor.pools()
    ]
    assert seen.pools
    assert hypervisor.look(host=False)().host is None
