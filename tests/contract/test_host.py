"""The hypervisor itself."""

from __future__ import annotations

from xml.etree.ElementTree import fromstring

from tests.contract.backends import Backend, volume_xml
from vmhost.ports import RawLook

MIB = 1 << 20


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
    seen = hypervisor.look()()
    assert (seen.domains, seen.host) == (hypervisor.domains(), hypervisor.host())
    assert [(pool.name, pool.active) for pool in seen.pools] == [
        (pool.name, pool.active) for pool in hypervisor.pools()
    ]
    assert seen.pools


def test_a_look_at_some_guests_tells_of_them_and_their_disks_alone(backend: Backend) -> None:
    pool, hypervisor = backend.pool(), backend.hypervisor
    for name in ("mine", "other"):
        hypervisor.create_volume(pool, volume_xml(name, MIB))
    place = f"{backend.directory}/{pool}"
    disks = "".join(
        f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{place}/{name}'/>"
        f"<target dev='{target}' bus='virtio'/></disk>"
        for name, target in (("mine", "vda"), ("gone", "vdb"))
    )
    guest = backend.defined(devices=disks)
    backend.defined("bystander")
    seen = hypervisor.look_at([guest.uuid, backend.new_uuid()])
    assert (seen.domains, seen.host) == ((hypervisor.domain(guest.uuid),), None)
    (found,) = seen.pools
    assert (found.name, found.active) == (pool, True)
    assert [fromstring(text).findtext("name") for text in found.volumes] == ["mine"]
    assert hypervisor.look_at([]) == RawLook((), (), None)
