"""A whole site against a whole host."""

from __future__ import annotations

from dataclasses import replace

from vmhost.model.observed import ObservedDomain
from vmhost.model.plan import Change, Difference, Note, Plan, Planned
from vmhost.model.spec import GuestSpec
from vmhost.model.steps import DefineDomain, SetAutostart, ShutDown, StartDomain, UndefineDomain
from vmhost.model.tuning import Tuning
from vmhost.plan.addresses import AddressBook, give_up_addresses
from vmhost.plan.change import STOP_TIMEOUT, plan_change
from vmhost.plan.compare import Pair, compare
from vmhost.plan.create import plan_create, settle_identity
from vmhost.plan.delete import against, delete_parts
from vmhost.plan.found import foreign
from vmhost.plan.held import waits_for_boot
from vmhost.plan.links import plan_bridges
from vmhost.plan.network import keep_steps, network_drift, still_open
from vmhost.plan.overhead import overhead_refusals
from vmhost.plan.overlays import overlay_notes
from vmhost.plan.reach import plan_access, unused_access, wanted_nics
from vmhost.plan.request import Conflict, NoCapacity, NotFound, Parts, Permit, Refusal, Refused, Request, raise_all
from vmhost.plan.reserve import Settled, settle_vlans, usage
from vmhost.plan.storage import Pools, disk_volume
from vmhost.plan.tuning import Placing, aside, in_order, loose_notes, place_guests
from vmhost.plan.vlans import plan_hook


def plan_site(request: Request) -> Plan:
    """Return the plan that brings the host to the site; an empty one when it already is there.

    :raises Refused: with every reason at once, when the wish cannot be met here; nothing is planned then.
    """
    settled = _settled(request)
    request = replace(request, site=settled.site)
    pools = Pools(request.site, request.observed, request.disks, request.direct)
    book = AddressBook(request.site, request.observed, request.applied)
    changes = plan_bridges(request.site, request.observed)
    bridges, refusals = [turn.planned for turn in changes.turns], [*still_open(request.observed), *changes.refusals]
    refusals += settled.refusals
    if changes.guarded:
        text = "a change of its uplink, or of what is reached through it, is made on its own: it may cut this host off"
        refusals.append(Refusal(bridges[0].subject, text, "vmhost net apply SITE; vmhost net confirm", Refused))
    elif bridges:
        bridges += keep_steps(request.site, request.observed)
    hook, against_hook = plan_hook(request.site, request.observed)
    refusals += against_hook
    placing = _placing(request)
    parts: list[Parts] = []
    for spec in in_order(request.site.guests, placing):
        result = _plan_guest(spec, request, book, pools, placing)
        if isinstance(result, Parts):
            parts.append(result)
        else:
            refusals += result
    pruned, unwanted = _prune(request)
    nics = wanted_nics(request.site)
    access, against_access = plan_access(request.site, nics, request.observed)
    raise_all([*refusals, *against_access, *unwanted, *_of_nobody(request)])
    parts += pruned
    return Plan(
        request.site.name,
        (
            *(*settled.steps, *bridges, *hook, *access, *pools.steps(), *_aside(request, placing)),
            *(step for part in parts for step in part.steps),
        ),
        (
            *(step for part in parts for step in part.after),
            *unused_access(request.observed, _planned_anew(request), nics),
        ),
        (
            *(note for part in parts for note in part.notes),
            *loose_notes(request.site.guests, placing),
            *_left(request),
        ),
    )


def _planned_anew(request: Request) -> frozenset[str]:
    """Return the domains (UUIDs) that the plan brings to the site, or removes."""
    names = {spec.name for spec in request.site.guests} | request.permit.prune
    return frozenset(d.uuid for d in request.observed.domains if d.name in names and _ours(d, request))


def drift(request: Request) -> tuple[Difference, ...]:
    """Return every difference between the site's guests and the host, on owned fields only."""
    settled = _settled(request)
    request = replace(request, site=settled.site)
    pools = Pools(request.site, request.observed, request.disks, request.direct)
    book = AddressBook(request.site, request.observed, request.applied)
    placing = _placing(replace(request, permit=Permit()))  # nothing is made anew or removed by looking
    found: list[Difference] = [*network_drift(request.site, request.observed)]
    found += [Difference(item.subject, "vlan", "possible here", item.text) for item in settled.refusals]
    for spec in request.site.guests:
        domain = request.observed.domain(spec.name)
        if domain is None or not _ours(domain, request):
            have = "absent" if domain is None else "another's"
            found.append(Difference(spec.name, "guest", "defined", have))
            continue
        pair = _pair(spec, domain, request, book, pools, placing)
        if isinstance(pair, Pair):
            found += [delta.difference(spec.name) for delta in compare(pair)]
        else:
            found += [Difference(spec.name, "wish", "possible here", refusal.text) for refusal in pair]
    return tuple(found)


def left_alone(request: Request) -> tuple[Note, ...]:
    """Return what is no drift of the site's guests and yet to be known: disks that others laid overlays over."""
    pools = Pools(request.site, request.observed, request.disks, request.direct)
    notes: list[Note] = []
    for spec in request.site.guests:
        domain = request.observed.domain(spec.name)
        if domain is not None and _ours(domain, request):
            volumes = {str(disk.id): (pools.pool_of(disk), disk_volume(domain.uuid, disk)) for disk in spec.disks}
            firsts = {disk: pools.path(*volume) for disk, volume in volumes.items()}
            notes += overlay_notes(domain, firsts, pools.backing)
    return tuple(notes)


def _settled(request: Request) -> Settled:
    observed = request.observed
    used = usage(observed.reservations, observed.domains, observed.links, request.applied)
    return settle_vlans(request.site, used, request.applied)


def _placing(request: Request) -> Placing:
    """Return where the site's guests lie; those whose names are not ours are refused elsewhere, and hold their own."""
    specs = [spec for spec in request.site.guests if not _taken(request.observed.domain(spec.name), request)]
    permit, observed = request.permit, request.observed
    restarted = frozenset(spec.name for spec in specs if permit.stop and _waits(spec, observed.domain(spec.name)))
    return place_guests(specs, observed, request.site.host, anew=permit.replace, restarted=restarted, gone=permit.prune)


def _waits(spec: GuestSpec, domain: ObservedDomain | None) -> bool:
    return domain is not None and spec.state == "running" and waits_for_boot(domain, spec.cpus, spec.memory)


def _taken(domain: ObservedDomain | None, request: Request) -> bool:
    return domain is not None and not _ours(domain, request)


def _aside(request: Request, placing: Placing) -> tuple[Planned, ...]:
    but = {spec.name for spec in request.site.guests} | request.permit.prune
    return tuple(aside(placing, request.observed, but=frozenset(but)))


def _plan_guest(
    spec: GuestSpec, request: Request, book: AddressBook, pools: Pools, placing: Placing
) -> Parts | list[Refusal]:
    domain = request.observed.domain(spec.name)
    refused = [placing.refusals[spec.name]] if spec.name in placing.refusals else []
    refused += overhead_refusals(spec, request.observed)
    if domain is None:
        created = plan_create(spec, request, book, pools, tuning=placing.tuning(spec.name))
        return _both(created, refused)
    refusals = _not_ours(spec, domain, request)
    if refusals:
        return refusals
    if spec.name in request.permit.replace:
        replaced = _plan_replace(spec, domain, request, book, pools, placing.tuning(spec.name))
        return _both(replaced, refused)
    pair = _pair(spec, domain, request, book, pools, placing)
    if isinstance(pair, list):
        return pair
    changed = plan_change(pair, request)
    return _both(changed, refused)


def _both(planned: Parts | list[Refusal], refused: list[Refusal]) -> Parts | list[Refusal]:
    """Return all reasons against a guest, or its steps; that it is too large for the host is told once."""
    if isinstance(planned, Parts):
        return refused or planned
    told = any(item.kind is NoCapacity for item in planned)
    return planned if told else [*planned, *refused]


def _pair(
    spec: GuestSpec, domain: ObservedDomain, request: Request, book: AddressBook, pools: Pools, placing: Placing
) -> Pair | list[Refusal]:
    old = domain.metadata.identity if domain.metadata else None
    missing = [item for item in (pools.check(spec.name, pools.pool_of(disk)) for disk in spec.disks) if item]
    identity = settle_identity(spec, request, book, old)
    if isinstance(identity, list):
        return [*missing, *identity]
    tuning = placing.tunings.get(spec.name)
    overwrite = spec.name in request.permit.overwrite
    return missing or Pair(spec, identity, domain, request.site, request.observed, pools, tuning, overwrite)


def _ours(domain: ObservedDomain, request: Request) -> bool:
    return domain.metadata is not None and domain.metadata.site == request.site.name


def _not_ours(spec: GuestSpec, domain: ObservedDomain, request: Request) -> list[Refusal]:
    metadata = domain.metadata
    if metadata is None:
        text = f"a guest of this name exists and is {foreign(domain)}: vmhost did not make it and does not change it"
        return [Refusal(spec.name, text, f"virsh dominfo {spec.name}")]
    if metadata.site != request.site.name:
        return [
            Refusal(
                spec.name, f"a guest of this name belongs to site {metadata.site}", f"vmhost guest show {spec.name}"
            )
        ]
    if not metadata.readable:
        return [
            Refusal(
                spec.name,
                f"its metadata is of version {metadata.version}, newer than this vmhost",
                "vmhost --version",
                Refused,
            )
        ]
    return []


def _plan_replace(
    spec: GuestSpec, domain: ObservedDomain, request: Request, book: AddressBook, pools: Pools, tuning: Tuning
) -> Parts | list[Refusal]:
    """Make the guest anew: the old one is stopped and undefined, its disks are deleted after the commit point."""
    refusals = against(spec.name, domain, Permit(power_off=True, disks=True))
    created = plan_create(spec, request, book, pools, tuning=tuning, old=domain)
    if refusals or not isinstance(created, Parts):
        return [*refusals, *(created if isinstance(created, list) else [])]
    leaving = frozenset((domain.uuid,))
    old = delete_parts(domain, request.observed, Permit(power_off=True, disks=True), leaving, request.logs)
    first, rest = _stop_first(domain, old.steps), created.steps
    before_define = [item for item in rest if not _from_define(item, rest)]
    return Parts(
        (*before_define, *first, *(item for item in rest if _from_define(item, rest))),
        (*old.after, *created.after),
        (*old.notes, *created.notes),
    )


def _stop_first(domain: ObservedDomain, steps: tuple[Planned, ...]) -> tuple[Planned, ...]:
    """Return the old guest's steps with an orderly shut-down in the place of the power-off."""
    uuid, name = domain.uuid, domain.name
    stop = Planned(
        ShutDown(uuid, name, STOP_TIMEOUT),
        StartDomain(uuid, name),
        Change.NEEDS_STOP,
        name,
        f"{name}: shut down the old guest",
    )
    autostart = tuple(item for item in steps if isinstance(item.do, SetAutostart))
    gone = next(item for item in steps if isinstance(item.do, UndefineDomain))
    undefine = replace(gone, change=Change.REPLACE, why=f"{name}: undefine the old guest")
    return (*autostart, *((stop,) if domain.active else ()), undefine)


def _from_define(item: Planned, steps: tuple[Planned, ...]) -> bool:
    position = next(number for number, step in enumerate(steps) if isinstance(step.do, DefineDomain))
    return steps.index(item) >= position


def _prune(request: Request) -> tuple[list[Parts], list[Refusal]]:
    wanted = {spec.name for spec in request.site.guests}
    permit = Permit(power_off=request.permit.power_off, disks=request.permit.disks)
    parts: list[Parts] = []
    refusals: list[Refusal] = []
    for name in sorted(request.permit.prune):
        domain = request.observed.domain(name)
        if name in wanted:
            refusals.append(
                Refusal(name, "it is in the site and cannot be pruned", f"take {name} out of the site file", Conflict)
            )
        elif domain is None or not _ours(domain, request):
            refusals.append(
                Refusal(name, f"site {request.site.name} has no such guest on this host", "vmhost guest list", NotFound)
            )
        elif reasons := against(name, domain, permit):
            refusals += reasons
        else:
            gone = delete_parts(domain, request.observed, permit, frozenset((domain.uuid,)), request.logs)
            parts.append(replace(gone, steps=(*gone.steps, *give_up_addresses(domain, request.applied))))
    return parts, refusals


def _of_nobody(request: Request) -> list[Refusal]:
    """Return what is against harm that is allowed to guests that the site does not have: a name was mistyped."""
    named = request.permit.replace | request.permit.overwrite
    text = f"site {request.site.name} has no such guest, so nothing can be allowed of it"
    unknown = named - {spec.name for spec in request.site.guests}
    return [Refusal(name, text, "vmhost guest list", NotFound) for name in sorted(unknown)]


def _left(request: Request) -> list[Note]:
    wanted = {spec.name for spec in request.site.guests} | request.permit.prune
    return [
        Note(domain.name, f"it is no longer in the site and stays as it is; --prune {domain.name} removes it")
        for domain in request.observed.domains
        if _ours(domain, request) and domain.name not in wanted
    ]
