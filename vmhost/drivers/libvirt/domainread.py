"""Domains as libvirt tells of them: all in bulk, or single ones."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, Final, TypeVar

import libvirt

from vmhost.drivers.libvirt.connection import Handle
from vmhost.drivers.libvirt.errors import skipping
from vmhost.model.domains import DomainState, RawDomain, number_of

Domain = Any  # libvirt.virDomain
T = TypeVar("T")

_STATES: Final = dict(enumerate(DomainState))


def read_all(handle: Handle) -> tuple[RawDomain, ...]:
    """Read the few facts of all domains in a few calls; only XML costs a call for each domain."""
    states = {
        domain.UUIDString(): stats.get("state.state", -1)
        for domain, stats in handle.getAllDomainStats(
            libvirt.VIR_DOMAIN_STATS_STATE, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        )
    }
    autostart = _marked(handle, libvirt.VIR_CONNECT_LIST_DOMAINS_AUTOSTART)
    saved = _marked(handle, libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE)
    with_snapshots = _marked(handle, libvirt.VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT)
    persistent = _marked(handle, libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT)
    found: list[RawDomain] = []
    for domain in handle.listAllDomains(0):
        uuid = domain.UUIDString()
        with skipping(libvirt.VIR_ERR_NO_DOMAIN):
            state = _STATES.get(states[uuid] if uuid in states else domain.state()[0], DomainState.NO_STATE)
            found.append(
                RawDomain(
                    uuid=uuid,
                    name=domain.name(),
                    state=state,
                    xml=domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE),
                    live_xml=domain.XMLDesc(0) if state.active else "",
                    persistent=uuid in persistent,
                    autostart=uuid in autostart,
                    managed_save=uuid in saved,
                    snapshots=domain.snapshotNum(0) if uuid in with_snapshots else 0,
                )
            )
    return tuple(found)


def read_some(handle: Handle, uuids: Collection[str]) -> tuple[RawDomain, ...]:
    """Return those of these domains that are there."""
    found: list[RawDomain] = []
    for uuid in uuids:
        with skipping(libvirt.VIR_ERR_NO_DOMAIN):
            found.append(read_one(handle.lookupByUUIDString(uuid)))
    return tuple(found)


def read_named(handle: Handle, name: str, read: Callable[[Domain], T]) -> tuple[T, ...]:
    """Read what is there of a name, or else of a UUID; libvirt refuses to look for what can be neither."""
    with suppress(ValueError):  # so does Python, of what is no text
        for look_up in (handle.lookupByName, handle.lookupByUUIDString):
            with skipping(libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_INVALID_ARG):
                return (read(look_up(name)),)
    return ()


def read_one(domain: Domain) -> RawDomain:
    """Return one domain, with a call for each fact."""
    state = _STATES.get(domain.state()[0], DomainState.NO_STATE)
    persistent = bool(domain.isPersistent())
    return RawDomain(
        uuid=domain.UUIDString(),
        name=domain.name(),
        state=state,
        xml=domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE),
        live_xml=domain.XMLDesc(0) if state.active else "",
        persistent=persistent,
        autostart=bool(domain.autostart()) if persistent else False,
        managed_save=bool(domain.hasManagedSaveImage(0)) if persistent else False,
        snapshots=domain.snapshotNum(0),
    )


def read_live(domain: Domain) -> str:
    """Return the XML of a domain as it runs, or nothing."""
    xml = str(domain.XMLDesc(0))
    return xml if number_of(xml) else ""


def _marked(handle: Handle, flag: int) -> frozenset[str]:
    return frozenset(domain.UUIDString() for domain in handle.listAllDomains(flag))
