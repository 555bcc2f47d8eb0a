"""A guest's domain XML, from its spec and its identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from lxml import etree
from markupsafe import Markup

from vmhost.model.errors import DamagedData, Refused, UsageError
from vmhost.model.identity import GuestIdentity, GuestMetadata, NicIdentity
from vmhost.model.observed import DiskFacts, DomainFacts, NicFacts, ObservedHost
from vmhost.model.spec import GuestSpec, NetworkSpec
from vmhost.model.tuning import FREE, Tuning
from vmhost.render.document import read, write
from vmhost.render.metadata import metadata_xml
from vmhost.render.parse.domain import DISK_ALIAS, NIC_ALIAS, SEED_ALIAS, parse_domain
from vmhost.render.parse.metadata import parse_metadata
from vmhost.render.parse.tuning import parse_tuning
from vmhost.render.shape import set_shape
from vmhost.render.templates import Templates
from vmhost.render.tuning import tuning_elements
from vmhost.render.views import (
    SEED_TARGET,
    DiskPath,
    UserNicView,
    disk_view,
    kib_a_second,
    nic_view,
    target_name,
    user_nic_slot,
    user_nic_view,
)

__all__ = ["DiskPath", "DomainContext", "render_domain"]

GUEST: Final = "guest.xml.j2"
MEMORY_SLOTS: Final = 16
SPARE_PORTS: Final = 8


@dataclass(frozen=True, slots=True)
class DomainContext:
    """What a domain needs beside its spec: the host, the networks by name, the paths of its disks and of its seed.

    ``nvram`` is the path of UEFI's variables; empty: libvirt's own choice, a file that is named after the guest and
    lost when the guest is renamed.
    """

    host: ObservedHost
    networks: Mapping[str, NetworkSpec]
    disks: tuple[DiskPath, ...]
    seed: str
    serial_log: str
    metadata: GuestMetadata
    nvram: str = ""
    tuning: Tuning = FREE


def render_domain(spec: GuestSpec, identity: GuestIdentity, context: DomainContext, templates: Templates) -> str:
    """Return the domain XML of a guest, read again and compared with what it was made from.

    :raises UsageError: a template is wrong, its output is not well-formed, or it lost what the guest is known by.
    :raises Refused: this host or this vmhost cannot run such a guest.
    """
    _check(spec, identity, context)
    text = templates.render(GUEST, **_values(spec, identity, context))
    try:
        root = read(text)
    except DamagedData as error:
        raise _template_error(spec.name, f"the templates made no XML: {error.message}") from error
    _check_kept(root, _expected(spec, identity, context), context.metadata)
    if parse_tuning(root) != replace(context.tuning, shape=None):
        raise _template_error(spec.name, "the templates lost or changed its pins or limits")
    if context.tuning.shape is not None:
        set_shape(root, context.tuning.shape)
    return write(root)


def _check(spec: GuestSpec, identity: GuestIdentity, context: DomainContext) -> None:
    architecture = context.host.architecture
    if not _is_test(context.host) and architecture not in ("x86_64", ""):
        text = f"guests are x86_64, this host is {architecture}"
        raise Refused(text, subject=spec.name, hint="virsh capabilities")
    if [disk.id for disk in spec.disks] != [disk.id for disk in context.disks]:
        raise UsageError("the paths are not those of its disks", subject=spec.name)
    if [nic.id for nic in identity.nics] != [nic.id or nic.network for nic in spec.nics]:
        raise UsageError("the identity is not that of its NICs", subject=spec.name)


def _is_test(host: ObservedHost) -> bool:
    return host.driver.lower() == "test"


def _type(host: ObservedHost) -> str:
    return "test" if _is_test(host) else "kvm" if host.kvm else "qemu"


def _values(spec: GuestSpec, identity: GuestIdentity, context: DomainContext) -> dict[str, Any]:
    """Return everything that templates may use, by name; plain values only."""
    host = context.host
    bridged = [(nic, context.networks[nic.network]) for nic in identity.nics if not _is_user(nic, context)]
    nics = tuple(nic_view(nic, network) for nic, network in bridged)
    return {
        "type": _type(host),
        "name": spec.name,
        "uuid": identity.uuid,
        "title": f"{context.metadata.site}/{spec.name}",
        "description": f"Made by vmhost for site {context.metadata.site} from image {spec.image}",
        "metadata": Markup(metadata_xml(context.metadata)),  # noqa: S704 - it is an element, escaped where it was made
        "memory": {"size": spec.memory.size, "max": spec.memory.max or spec.memory.size, "slots": MEMORY_SLOTS},
        "vcpus": {"count": spec.cpus.count, "max": spec.cpus.max or spec.cpus.count},
        "tuning": tuple(Markup(text) for text in tuning_elements(context.tuning)),  # noqa: S704 - as above
        "firmware": spec.firmware,
        "nvram": context.nvram,
        "arch": host.architecture or "x86_64",
        "machine": "q35",
        "emulator": host.emulator,
        "disks": tuple(disk_view(disk, index, context.tuning.iothreads) for index, disk in enumerate(context.disks)),
        "seed": {"path": context.seed, "target": SEED_TARGET, "serial": "seed"},
        "nics": nics,
        "user_nics": _user_nics(identity, context),
        "serial_log": context.serial_log,
        "ports": _ports(len(context.disks), len(nics)),
    }


def _is_user(nic: NicIdentity, context: DomainContext) -> bool:
    return context.networks[nic.network].type == "user"


def _user_nics(identity: GuestIdentity, context: DomainContext) -> tuple[UserNicView, ...]:
    views: list[UserNicView] = []
    for nic in identity.nics:
        if _is_user(nic, context):
            slot = user_nic_slot((int(view.slot, 16) for view in views), identity.name)
            views.append(user_nic_view(nic, context.networks[nic.network], slot))
    return tuple(views)


def _ports(disks: int, nics: int) -> int:
    """Return the number of PCI Express root ports: for each device, seed, serial bus, rng and balloon, and to spare."""
    return disks + nics + 4 + SPARE_PORTS


def _expected(spec: GuestSpec, identity: GuestIdentity, context: DomainContext) -> DomainFacts:
    """Return what the rendered XML must say."""
    return DomainFacts(
        uuid=identity.uuid,
        name=spec.name,
        type=_type(context.host),
        vcpus=spec.cpus.count,
        max_vcpus=spec.cpus.max or spec.cpus.count,
        memory=spec.memory.size,
        max_memory=spec.memory.max or spec.memory.size,
        firmware=spec.firmware,
        disks=(
            *(
                DiskFacts(
                    target_name(index),
                    disk.path,
                    disk.format,
                    "virtio",
                    alias=f"{DISK_ALIAS}{disk.id}",
                    limits=disk.limits,
                )
                for index, disk in enumerate(context.disks)
            ),
            DiskFacts(SEED_TARGET, context.seed, "raw", "virtio", alias=SEED_ALIAS, readonly=True),
        ),
        nics=tuple(_expected_nic(nic, context.networks[nic.network]) for nic in identity.nics),
        serial_log=context.serial_log,
    )


def _expected_nic(nic: NicIdentity, network: NetworkSpec) -> NicFacts:
    alias = f"{NIC_ALIAS}{nic.id}"
    if network.type == "user":
        source = f"127.0.0.1:{nic.ssh_port}" if nic.ssh_port else ""
        return NicFacts("user", source, nic.mac, "virtio", "", alias, network.mtu or 0)
    limits = kib_a_second(nic.inbound), kib_a_second(nic.outbound)
    return NicFacts("bridge", network.bridge or "", nic.mac, "virtio", nic.tap, alias, network.mtu or 0, *limits)


def _check_kept(root: etree._Element, want: DomainFacts, metadata: GuestMetadata) -> None:
    """Check that the templates kept what the guest is known by; what an override adds is its own affair."""
    have = parse_domain(root)
    if parse_metadata(root) != parse_metadata(metadata_xml(metadata)):
        raise _template_error(want.name, "the templates lost or changed its metadata element")
    for disk in want.disks:
        if disk not in have.disks:
            raise _template_error(want.name, f"the templates lost or changed its disk {disk.alias} ({disk.source})")
    for nic in want.nics:
        if nic not in have.nics:
            raise _template_error(want.name, f"the templates lost or changed its NIC {nic.alias} ({nic.mac})")
    rest = replace(have, disks=want.disks, nics=want.nics, description=want.description)
    wrong = [field for field in _FIELDS if getattr(rest, field) != getattr(want, field)]
    if wrong:
        raise _template_error(want.name, f"the templates lost or changed its {', '.join(wrong)}")


_FIELDS: Final = ("uuid", "name", "vcpus", "max_vcpus", "memory", "max_memory", "firmware", "serial_log")


def _template_error(guest: str, message: str) -> UsageError:
    return UsageError(
        message, subject=guest, hint="mv domain_templates domain_templates.off   # in vmhost's configuration directory"
    )
