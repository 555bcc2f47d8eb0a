"""Guests as rows and in detail. The listing is the most used call: it touches libvirt only, and imports little."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmhost.engine.observe import observe_domains
from vmhost.model.domains import meant, numbered
from vmhost.model.errors import NotFound
from vmhost.plan.frozen import frozen_since

if TYPE_CHECKING:
    from vmhost.model.domains import ObservedDomain
    from vmhost.model.observed import ObservedVolume
    from vmhost.ports import Hypervisor, Ports


@dataclass(frozen=True, slots=True)
class GuestRow:
    """One line of the listing. ``site`` is empty for foreign guests; ``memory`` in bytes."""

    name: str
    uuid: str
    state: str
    vcpus: int
    memory: int
    addresses: tuple[str, ...]
    site: str
    autostart: bool
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GuestDetails:
    """Everything about one guest. ``stolen`` is the part of its time that the host gave to others, as the guest itself
    counts it; None: it does not say.
    """

    row: GuestRow
    domain: ObservedDomain
    volumes: tuple[ObservedVolume, ...]
    console: tuple[str, ...]
    stolen: float | None = None


def list_guests(hypervisor: Hypervisor) -> tuple[GuestRow, ...]:
    """Return all guests by name, ours and foreign; first those whose file systems are frozen."""
    rows = (row_of(domain) for domain in observe_domains(hypervisor))
    return tuple(sorted(rows, key=lambda row: "FROZEN" not in row.flags))


def row_of(domain: ObservedDomain) -> GuestRow:
    """Return the listing's line for a domain."""
    metadata = domain.metadata
    nics = metadata.identity.nics if metadata else ()
    flags = (
        ("FROZEN",) if frozen_since(domain) else (),
        ("foreign",) if domain.foreign else (),
        ("copy",) if domain.copied else (),
        ("drill",) if domain.drill else (),
        ("protected",) if metadata and metadata.protect else (),
        ("pending",) if metadata and metadata.pending else (),
        ("saved",) if domain.raw.managed_save else (),
    )
    return GuestRow(
        name=domain.name,
        uuid=domain.uuid,
        state=str(domain.raw.state),
        vcpus=domain.facts.vcpus,
        memory=domain.facts.memory,
        addresses=tuple(
            nic.address.partition("/")[0] or f"127.0.0.1:{nic.ssh_port}" for nic in nics if nic.address or nic.ssh_port
        ),
        site=metadata.site if metadata else "",
        autostart=domain.raw.autostart,
        flags=tuple(flag for group in flags for flag in group),
    )


def find_guest(hypervisor: Hypervisor, name: str, *, numbers: bool = False) -> ObservedDomain:
    """Return the guest of that name or UUID.

    :param numbers: take libvirt's number of one that runs, too. :raises NotFound: with the nearest name.
    """
    domains = observe_domains(hypervisor)
    found = meant(name, domains) or (numbered(name, domains) if numbers else None)
    if found is None:
        from difflib import get_close_matches

        near = get_close_matches(name, [domain.name for domain in domains], 1)
        text = "there is no such guest" + (f"; did you mean {near[0]}?" if near else "")
        raise NotFound(text, subject=name, hint="vmhost guest list")
    return found


def show_guest(ports: Ports, name: str) -> GuestDetails:
    """Return everything about one guest. :raises NotFound: there is none."""
    from vmhost.engine.agent import stolen
    from vmhost.engine.observe import observe_pools

    domain = find_guest(ports.hypervisor, name, numbers=True)
    sources = {disk.source for disk in domain.facts.disks}
    volumes = tuple(
        volume for pool in observe_pools(ports.hypervisor) for volume in pool.volumes if volume.path in sources
    )
    lost = stolen(ports.hypervisor, domain.uuid) if domain.active else None
    return GuestDetails(row_of(domain), domain, volumes, ports.signals.console_tail(domain.facts.serial_log, 10), lost)
