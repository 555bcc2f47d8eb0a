"""Other vCPUs and memory for one guest, past its site file, which is told of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vmhost.model.observed import Observed, ObservedDomain
from vmhost.model.permit import Permit
from vmhost.model.plan import Change, Note, Plan, Planned
from vmhost.model.spec import CpuSpec, GuestSpec, MemorySpec
from vmhost.model.steps import DefineDomain, SetMetadata, ShutDown, StartDomain
from vmhost.model.units import format_size
from vmhost.plan.change import STOP_TIMEOUT
from vmhost.plan.outside import applied_spec
from vmhost.plan.request import NoCapacity, NotFound, Refusal, Refused, raise_all
from vmhost.render import amend
from vmhost.render.metadata import metadata_xml

COMMAND = "guest resize"


@dataclass(frozen=True, slots=True)
class Resize:
    """What one guest should have: ``cpus`` vCPUs and ``memory`` bytes; None: as many as it has.

    ``applied`` is the time (ISO 8601, UTC) that its metadata will carry, ``user`` the person.
    """

    name: str
    cpus: CpuSpec | None
    memory: MemorySpec | None
    applied: str
    user: str


def plan_resize(wish: Resize, observed: Observed, permit: Permit) -> Plan:
    """Return the plan that gives a guest other vCPUs and memory; a running one has them at its next boot, or at once
    if it may be restarted.

    :raises NotFound: no such guest; :raises Refused: it is foreign or the host is too small for it.
    """
    domain = observed.domain(wish.name)
    if domain is None:
        raise NotFound("there is no such guest", subject=wish.name, hint="vmhost guest list")
    old = applied_spec(domain)
    if old is None or domain.metadata is None:
        text = "this guest is foreign, or a newer vmhost made it: vmhost does not change it"
        raise Refused(text, subject=wish.name, hint=f"virsh edit {domain.uuid}")
    new = old.model_copy(update={"cpus": wish.cpus or old.cpus, "memory": wish.memory or old.memory})
    raise_all(_against(new, domain, observed, permit))
    why = _difference(new, domain)
    if not why:
        note = Note(wish.name, f"it has {_cpus(domain.facts.vcpus)} and {format_size(domain.facts.memory)} already")
        return Plan(domain.metadata.site, notes=(note,))
    restart = domain.active and permit.stop
    steps = (
        _redefine(new, domain, why, restart=restart),
        _noted(new, domain, wish),
        *(_restart(domain) if restart else ()),
    )
    return Plan(domain.metadata.site, steps, notes=_notes(domain, restart=restart))


def _against(new: GuestSpec, domain: ObservedDomain, observed: Observed, permit: Permit) -> list[Refusal]:
    host, found = observed.host, []
    if new.memory.size > host.memory:
        text = f"{format_size(new.memory.size)} of memory are more than the host's {format_size(host.memory)}"
        found.append(Refusal(new.name, text, "vmhost host show", NoCapacity))
    if domain.raw.managed_save and not permit.discard_saved:
        text = "its memory is saved: the next start would run the old definition"
        found.append(Refusal(new.name, text, f"vmhost guest start {new.name}", Refused))
    return found


def _difference(new: GuestSpec, domain: ObservedDomain) -> str:
    facts = domain.facts
    pairs = (
        ("vCPUs", facts.vcpus, new.cpus.count),
        ("vCPUs at most", facts.max_vcpus, new.cpus.max or new.cpus.count),
        ("memory", format_size(facts.memory), format_size(new.memory.size)),
        ("memory at most", format_size(facts.max_memory), format_size(new.memory.max or new.memory.size)),
    )
    return ", ".join(f"{what} {have} -> {want}" for what, have, want in pairs if have != want)


def _redefine(new: GuestSpec, domain: ObservedDomain, why: str, *, restart: bool) -> Planned:
    xml = amend.with_vcpus(domain.raw.xml, new.cpus.count, new.cpus.max or new.cpus.count)
    xml = amend.with_memory(xml, new.memory.size, new.memory.max or new.memory.size)
    change = Change.NEEDS_STOP if restart else Change.NEXT_BOOT if domain.active else Change.LIVE
    uuid, name = domain.uuid, domain.name
    undo = DefineDomain(uuid, name, domain.raw.xml)
    return Planned(DefineDomain(uuid, name, xml), undo, change, name, f"{name}: {why}")


def _noted(new: GuestSpec, domain: ObservedDomain, wish: Resize) -> Planned:
    old = domain.metadata
    assert old is not None
    spec = new.model_dump_json(exclude_none=True)
    noted = replace(old, spec=spec, applied=wish.applied, user=wish.user, command=COMMAND)
    uuid, name = domain.uuid, domain.name
    do, undo = SetMetadata(uuid, name, metadata_xml(noted)), SetMetadata(uuid, name, metadata_xml(old))
    return Planned(do, undo, Change.LIVE, name, f"{name}: note that a command changed it past its site file")


def _restart(domain: ObservedDomain) -> tuple[Planned, ...]:
    uuid, name = domain.uuid, domain.name
    start, stop = StartDomain(uuid, name), ShutDown(uuid, name, STOP_TIMEOUT)
    return (
        Planned(stop, start, Change.NEEDS_STOP, name, f"{name}: shut down"),
        Planned(start, stop, Change.NEEDS_STOP, name, f"{name}: start with the new definition"),
    )


def _notes(domain: ObservedDomain, *, restart: bool) -> tuple[Note, ...]:
    site = domain.metadata.site if domain.metadata else ""
    told = Note(domain.name, f"write the same into the file of site {site}, or its next apply will refuse this guest")
    if domain.active and not restart:
        return Note(domain.name, "it runs on as it is until its next boot; --allow-stop restarts it now"), told
    return (told,)


def _cpus(count: int) -> str:
    return f"{count} vCPU{'' if count == 1 else 's'}"
