"""Other vCPUs and memory for one guest, past its site file, which is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from vmhost.model.observed import Observed, ObservedDomain
from vmhost.model.permit import Permit
from vmhost.model.plan import Change, Note, Plan, Planned
from vmhost.model.spec import CpuSpec, GuestSpec, HostSpec, MemorySpec
from vmhost.model.steps import DefineDomain, SetMetadata, ShutDown, StartDomain
from vmhost.model.tuning import Tuning
from vmhost.model.units import format_size
from vmhost.plan.change import STOP_TIMEOUT
from vmhost.plan.held import held_differences, live_steps, waits_for_boot
from vmhost.plan.outside import applied_spec
from vmhost.plan.overhead import overhead_refusals
from vmhost.plan.overlays import backing_of, out_of_sight
from vmhost.plan.request import NoCapacity, NotFound, Refusal, Refused, raise_all
from vmhost.plan.shape import mirrors
from vmhost.plan.tuning import aside, check_start, defined, loose_notes, place_guests
from vmhost.render import amend
from vmhost.render.metadata import metadata_xml
from vmhost.render.shape import flat
from vmhost.render.tuning import with_tuning

COMMAND = "guest resize"
PIN = "guest pin"


@dataclass(frozen=True, slots=True)
class Resize:
    """What one guest should have otherwise: the fields of ``cpus`` and ``memory`` that are set; None: as it is.

    ``applied`` is the time (ISO 8601, UTC) that its metadata will carry, ``user`` the person, ``command`` what was
    typed.
    """

    name: str
    cpus: CpuSpec | None
    memory: MemorySpec | None
    applied: str
    user: str
    command: str = COMMAND


def plan_resize(wish: Resize, observed: Observed, permit: Permit, host: HostSpec | None = None) -> Plan:
    """Return the plan that gives a guest other vCPUs, another place or other memory: at once as far as that goes while
    it runs, at its next boot or, if it may be restarted, after a restart otherwise.

    :param host: the reserve and the ratios of the host.
    :raises NotFound: no such guest; :raises Refused: it is foreign, the host is too small for it, or no place is left.
    """
    domain = observed.domain(wish.name)
    if domain is None:
        raise NotFound("there is no such guest", subject=wish.name, hint="vmhost guest list")
    old = applied_spec(domain)
    if old is None or domain.metadata is None:
        text = "this guest is foreign, or a newer vmhost made it: vmhost does not change it"
        raise Refused(text, subject=wish.name, hint=f"virsh edit {domain.uuid}")
    new = _changed(old, wish)
    ends = permit.stop and waits_for_boot(domain, new.cpus, new.memory)
    placing = place_guests([new], observed, host, restarted=frozenset({new.name} if ends else ()))
    against = _against(new, domain, observed, permit)
    if ends:
        against += out_of_sight(domain, backing_of(observed.pools))
    raise_all(against or [*placing.refusals.values(), *overhead_refusals(new, observed)])
    tuning = placing.tuning(new.name)
    why = _difference(new, domain, tuning, observed)
    site = domain.metadata.site
    if not why:
        note = Note(wish.name, f"it has {_cpus(domain.facts.vcpus)} and {format_size(domain.facts.memory)} already")
        return Plan(site, notes=(note,))
    boot = domain.active and not _live(new, domain, tuning, observed)
    restart = boot and permit.stop
    steps = (
        *aside(placing, observed, but=frozenset({new.name})),
        _redefine(new, domain, why, tuning, boot=boot, restart=restart),
        *(
            live_steps(domain, new.cpus, new.memory, tuning, "the same at once", observed)
            if _now(domain, restart)
            else ()
        ),
        _noted(new, domain, wish),
        *(_restart(domain, defined(tuning, new.cpus), observed) if restart else ()),
    )
    return Plan(site, steps, notes=(*_notes(domain, boot=boot, restart=restart), *loose_notes([new], placing)))


def _changed(old: GuestSpec, wish: Resize) -> GuestSpec:
    """Return the spec with what is set in the wish. :raises Refused: it makes no guest."""
    cpus, memory = old.cpus.model_dump(exclude_none=True), old.memory.model_dump(exclude_none=True)
    if wish.cpus is not None:
        given = wish.cpus.model_dump(exclude_unset=True)
        cpus = changed_cpus(old.cpus, given)
        room = 0 if cpus.get("topology") else cpus.get("max") or 0
        cpus["max"] = given.get("max") or max(room, cpus["count"])
    if wish.memory is not None:
        given = wish.memory.model_dump(exclude_unset=True)
        memory = {**memory, **given}
        room = 0 if mirrors(old) else memory.get("max") or 0
        memory["max"] = given.get("max") or max(room, memory["size"])
    try:
        # as a whole, since what its cpus and memory may be depends on each other
        return GuestSpec.model_validate({**old.model_dump(exclude_none=True), "cpus": cpus, "memory": memory})
    except ValidationError as error:
        faults = ((".".join(map(str, fault["loc"])), str(fault["msg"])) for fault in error.errors())
        text = "; ".join(f"{place}: {said}" if place else said.removeprefix("Value error, ") for place, said in faults)
        raise Refused(text, subject=wish.name, hint=f"vmhost {wish.command} --help") from error


def changed_cpus(old: CpuSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a spec with others given, without what belongs to a former policy and to vCPUs that are no
    more; nothing that is given is left out.
    """
    kept = old.model_dump(exclude_none=True)
    if given.get("policy") == "shared":
        kept = _without(kept, "threads", "pins", "emulator", "dedicated", "topology")
    elif given.get("policy") not in (None, "mixed"):
        kept = _without(kept, "dedicated", "request")
    if "pins" in kept:
        kept["pins"] = {vcpu: cpu for vcpu, cpu in kept["pins"].items() if vcpu < given.get("count", old.count)}
    return {key: value for key, value in {**kept, **given}.items() if value is not None}


def _without(fields: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key not in keys}


def _against(new: GuestSpec, domain: ObservedDomain, observed: Observed, permit: Permit) -> list[Refusal]:
    host, found = observed.host, []
    if new.memory.size > host.memory:
        text = f"{format_size(new.memory.size)} of memory are more than the host's {format_size(host.memory)}"
        found.append(Refusal(new.name, text, "vmhost host show", NoCapacity))
    if domain.raw.managed_save and not permit.discard_saved:
        text = "its memory is saved: the next start would run the old definition"
        found.append(Refusal(new.name, text, f"vmhost guest start {new.name}", Refused))
    return found


def _difference(new: GuestSpec, domain: ObservedDomain, tuning: Tuning, observed: Observed) -> str:
    facts = domain.facts
    pairs = (
        ("vCPUs", facts.vcpus, new.cpus.count),
        ("vCPUs at most", facts.max_vcpus, new.cpus.max or new.cpus.count),
        ("memory", format_size(facts.memory), format_size(new.memory.size)),
        ("memory at most", format_size(facts.max_memory), format_size(new.memory.max or new.memory.size)),
    )
    told = [f"{what} {have} -> {want}" for what, have, want in pairs if have != want]
    held = held_differences(tuning, new.cpus, domain, observed)
    return ", ".join([*told, *(f"{field} {have or 'none'} -> {want or 'none'}" for field, want, have, _ in held)])


def _live(new: GuestSpec, domain: ObservedDomain, tuning: Tuning, observed: Observed) -> bool:
    """Whether all of it changes while the guest runs."""
    held = all(live for _, _, _, live in held_differences(tuning, new.cpus, domain, observed))
    return held and not waits_for_boot(domain, new.cpus, new.memory)


def _now(domain: ObservedDomain, restart: bool) -> bool:
    return domain.active and not restart


def _redefine(
    new: GuestSpec, domain: ObservedDomain, why: str, tuning: Tuning, *, boot: bool, restart: bool
) -> Planned:
    old = flat(domain.raw.xml) if mirrors(new) or mirrors(applied_spec(domain)) else domain.raw.xml
    xml = amend.with_vcpus(old, new.cpus.count, new.cpus.max or new.cpus.count)
    xml = amend.with_memory(xml, new.memory.size, new.memory.max or new.memory.size)
    xml = with_tuning(xml, defined(tuning, new.cpus))
    change = Change.NEEDS_STOP if restart else Change.NEXT_BOOT if boot else Change.LIVE
    uuid, name = domain.uuid, domain.name
    undo = DefineDomain(uuid, name, domain.raw.xml)
    return Planned(DefineDomain(uuid, name, xml), undo, change, name, f"{name}: {why}")


def _noted(new: GuestSpec, domain: ObservedDomain, wish: Resize) -> Planned:
    old = domain.metadata
    assert old is not None
    spec = new.model_dump_json(exclude_none=True)
    noted = replace(old, spec=spec, applied=wish.applied, user=wish.user, command=wish.command)
    uuid, name = domain.uuid, domain.name
    do, undo = SetMetadata(uuid, name, metadata_xml(noted)), SetMetadata(uuid, name, metadata_xml(old))
    return Planned(do, undo, Change.LIVE, name, f"{name}: note that a command changed it past its site file")


def _restart(domain: ObservedDomain, tuning: Tuning, observed: Observed) -> tuple[Planned, ...]:
    uuid, name = domain.uuid, domain.name
    start, stop = StartDomain(uuid, name), ShutDown(uuid, name, STOP_TIMEOUT)
    return (
        Planned(stop, start, Change.NEEDS_STOP, name, f"{name}: shut down"),
        Planned(start, stop, Change.NEEDS_STOP, name, f"{name}: start with the new definition"),
        *check_start(uuid, name, tuning, observed),
    )


def _notes(domain: ObservedDomain, *, boot: bool, restart: bool) -> tuple[Note, ...]:
    site = domain.metadata.site if domain.metadata else ""
    told = Note(domain.name, f"write the same into the file of site {site}, or its next apply will refuse this guest")
    if boot and not restart:
        return Note(domain.name, "it runs on as it is until its next boot; --allow-stop restarts it now"), told
    return (told,)


def _cpus(count: int) -> str:
    return f"{count} vCPU{'' if count == 1 else 's'}"
