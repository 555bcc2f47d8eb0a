"""Guests that go: what is undone first, what is deleted for good after the commit point, what stays."""

from __future__ import annotations

from dataclasses import replace
from shlex import quote

from vmhost.model.identity import console_log, volume_name
from vmhost.model.observed import Observed, ObservedDomain, ObservedVolume
from vmhost.model.plan import Change, Note, Plan, Planned
from vmhost.model.snapshots import is_overlay_of
from vmhost.model.spec import HostSpec
from vmhost.model.steps import (
    DefineDomain,
    DeleteBridge,
    DeletePool,
    DeleteVolume,
    DiscardManagedSave,
    ForgetConsole,
    PowerOff,
    SetAutostart,
    StartDomain,
    UndefineDomain,
)
from vmhost.plan.addresses import give_up_addresses
from vmhost.plan.found import UNPROTECT, find, foreign
from vmhost.plan.holders import holders, owns
from vmhost.plan.links import bridge_alias, idle_bridges
from vmhost.plan.network import forget
from vmhost.plan.overlays import backing_of, chain_of, live_disks
from vmhost.plan.reach import unused_access
from vmhost.plan.request import NotFound, Parts, Permit, Protected, Refusal, Refused, raise_all
from vmhost.plan.reserve import held_for_site, release
from vmhost.plan.tuning import make_room_again
from vmhost.plan.vlans import unused_hook
from vmhost.render.parse.domain import DISK_ALIAS
from vmhost.render.parse.snapshots import parse_snapshots


def plan_delete(
    names: tuple[str, ...],
    observed: Observed,
    permit: Permit,
    *,
    disks_directory: str,
    logs: str,
    now: str,
    host: HostSpec | None = None,
) -> Plan:
    """Return the plan that removes guests by name or UUID. ``now`` is ISO 8601 in UTC.

    Their disks stay unless ``permit.disks``, and what others have stays in any case; a running guest needs
    ``permit.power_off``. With the last guest of a site its bridges and VLAN ids go, with the last volume our pool;
    addresses and ids rest for a while.

    :raises NotFound: no such guest; :raises Protected: ``protect: true``; :raises Refused: foreign, running, newer
        metadata.
    """
    refusals: list[Refusal] = []
    going: list[ObservedDomain] = []
    for name in names:
        domain = find(name, observed)
        reasons = against(name, domain, permit)
        refusals += reasons
        if domain and not reasons:
            going.append(domain)
    raise_all(refusals)
    leaving = frozenset(domain.uuid for domain in going)
    parts = [delete_parts(domain, observed, permit, leaving, logs) for domain in going]
    sites = dict.fromkeys(domain.metadata.site for domain in going if domain.metadata)
    last = unused_access(observed, leaving)
    last += [step for site in sites for step in _of_site(site, observed, leaving, now)]
    last += unused_hook(observed, leaving)
    if permit.disks:
        last += _pool(observed, parts, disks_directory)
    return Plan(
        " ".join(sites),
        (
            *(step for part in parts for step in part.steps),
            *(step for domain in going for step in give_up_addresses(domain, now)),
            *make_room_again(going, observed, host),
        ),
        (*(step for part in parts for step in part.after), *last),
        tuple(note for part in parts for note in part.notes),
    )


def against(name: str, domain: ObservedDomain | None, permit: Permit) -> list[Refusal]:
    """Return every reason against deleting a guest."""
    if domain is None:
        return [Refusal(name, "there is no such guest", "vmhost guest list", NotFound)]
    if domain.metadata is None:
        text = f"this guest is {foreign(domain)}: vmhost did not make it and does not delete it"
        return [Refusal(name, text, f"virsh undefine {quote(domain.name)}", Refused)]
    if not domain.metadata.readable:
        return [
            Refusal(
                name,
                f"its metadata is of version {domain.metadata.version}, newer than this vmhost",
                "vmhost --version",
                Refused,
            )
        ]
    reasons = []
    if domain.metadata.protect:
        reasons.append(Refusal(name, "it is protected", UNPROTECT, Protected))
    if domain.active and not permit.power_off:
        hint = f"vmhost guest stop {domain.name}, or add --power-off"
        reasons.append(Refusal(name, "it is running", hint, Refused))
    if domain.raw.managed_save and not permit.power_off:
        reasons.append(Refusal(name, "its memory is saved and would be lost", "add --power-off", Refused))
    kept = len(parse_snapshots(domain.raw.xml).items)
    if kept and not permit.disks:
        text = f"it has {kept} snapshot{'s' * (kept != 1)}, whose records go with it while its disks stay"
        reasons.append(Refusal(name, text, f"vmhost snapshot list {domain.name}, or add --disks", Refused))
    if domain.raw.snapshots and not permit.disks:
        text = f"it has {domain.raw.snapshots} snapshots, whose records go with it while its disks stay"
        reasons.append(Refusal(name, text, f"virsh snapshot-list {domain.name}, or add --disks", Refused))
    return reasons


def delete_parts(
    domain: ObservedDomain, observed: Observed, permit: Permit, leaving: frozenset[str], logs: str
) -> Parts:
    """Return the steps that remove one guest; ``leaving`` are all guests that go (UUIDs)."""
    uuid, name = domain.uuid, domain.name
    steps = []
    if domain.raw.autostart:
        steps.append(
            _live(
                SetAutostart(uuid, name, False), SetAutostart(uuid, name, True), name, "no longer starts with the host"
            )
        )
    if domain.active:
        why = f"{name}: power off"
        steps.append(Planned(PowerOff(uuid, name), StartDomain(uuid, name), Change.NEEDS_STOP, name, why))
    elif domain.raw.managed_save:
        why = f"{name}: discard its saved memory"
        steps.append(Planned(DiscardManagedSave(uuid, name), None, Change.NEEDS_STOP, name, why))
    steps.append(
        Planned(
            UndefineDomain(uuid, name),
            DefineDomain(uuid, name, domain.raw.xml),
            Change.REMOVE,
            name,
            f"{name}: undefine",
        )
    )
    goes, notes = _volumes_that_go(domain, observed, permit, leaving)
    after = [_delete_volume(name, volume) for volume in goes]
    log = domain.facts.serial_log
    if log == console_log(logs, uuid):
        after.append(_live(ForgetConsole(log), None, name, "delete its console log"))
    elif log:
        notes.append(Note(name, f"its console log stays: {log} is not where vmhost keeps it"))
    return Parts(tuple(steps), tuple(after), tuple(notes))


def _volumes_that_go(
    domain: ObservedDomain, observed: Observed, permit: Permit, leaving: frozenset[str]
) -> tuple[list[ObservedVolume], list[Note]]:
    """Return the volumes that go with a guest, and why others stay: those that carry its UUID and nobody else has."""
    others, name = holders(observed.domains, observed.pools, leaving), domain.name
    kept_for = _below_others(domain, observed)
    named = frozenset(domain.metadata.volumes) if domain.metadata else frozenset[str]()
    goes, kept, notes = list[ObservedVolume](), list[str](), list[Note]()
    for volume in (volume for pool in observed.pools for volume in pool.volumes):
        where = f"{volume.pool}/{volume.name}"
        if not owns(domain.uuid, volume.name):
            if where in named:
                notes.append(Note(name, f"{where} stays: its metadata name it, and its name is none that vmhost gives"))
        elif not permit.disks and not volume.name.endswith("-seed.iso"):
            kept.append(where)
        elif volume.path in kept_for:
            notes.append(Note(name, f"{where} stays: {kept_for[volume.path]}"))
        elif volume.path in others:
            notes.append(Note(name, f"{where} stays: {' and '.join(others[volume.path])} has it, too"))
        else:
            goes.append(volume)
    if kept:
        notes.insert(0, Note(name, f"disks stay: {', '.join(kept)}; --disks deletes them"))
    return goes, notes


def _below_others(domain: ObservedDomain, observed: Observed) -> dict[str, str]:
    """Return files of a guest that stay below a disk that others made elsewhere, with why: without them that would be
    worth nothing. Of one that lies in no pool nobody knows what it lies on.
    """
    volumes = {volume.path: volume.name for pool in observed.pools for volume in pool.volumes}
    backing, found = backing_of(observed.pools), dict[str, str]()
    for disk in (*domain.facts.disks, *live_disks(domain).values()):
        disk_id = disk.alias.removeprefix(DISK_ALIAS)
        if disk_id == disk.alias or owns(domain.uuid, volumes.get(disk.source, "")):
            continue
        first = volume_name(domain.uuid, disk_id)
        its = [path for path, name in volumes.items() if name == first or is_overlay_of(name, first)]
        text = f"disk {disk_id} is {disk.source}, which vmhost did not make and does not delete, and which"
        found |= dict.fromkeys(() if disk.source in volumes else its, f"{text} may lie on it")
        found |= dict.fromkeys(chain_of(disk, backing)[1:], f"{text} lies on it")
    return found


def _live(do: SetAutostart | ForgetConsole, undo: SetAutostart | None, name: str, text: str) -> Planned:
    return Planned(do, undo, Change.LIVE, name, f"{name}: {text}")


def _delete_volume(guest: str, volume: ObservedVolume) -> Planned:
    do, text = DeleteVolume(volume.pool, volume.name), f"{guest}: delete {volume.pool}/{volume.name} for good"
    return Planned(do, None, Change.REMOVE, guest, text)


def _of_site(site: str, observed: Observed, leaving: frozenset[str], now: str) -> list[Planned]:
    """Return the steps that take away what a site has on the host, when its last guest goes."""
    remaining = [d for d in observed.domains if d.metadata and d.metadata.site == site and d.uuid not in leaving]
    if remaining:
        return []
    items = held_for_site(site, observed.reservations)
    why = f"{site}: give up VLAN {', '.join(item.value for item in items)}, nobody uses it"
    vlans = [replace(release(items, now, why), undo=None)] if items else []
    idle = idle_bridges(site, observed, leaving)
    ours = [link.name for link in observed.links if link.kind == "bridge" and link.alias == bridge_alias(site)]
    forgotten = forget(site, observed) if set(ours) == set(idle) else []
    return (
        vlans
        + [
            Planned(
                DeleteBridge(name, site),
                None,
                Change.LIVE,
                name,
                f"{name}: delete this bridge of site {site}, nobody uses it",
            )
            for name in idle
        ]
        + forgotten
    )


def _pool(observed: Observed, parts: list[Parts], directory: str) -> list[Planned]:
    gone = {(item.do.pool, item.do.name) for part in parts for item in part.after if isinstance(item.do, DeleteVolume)}
    pool = next((pool for pool in observed.pools if pool.name == "vmhost" and pool.path == directory), None)
    if pool is None or any((pool.name, volume.name) not in gone for volume in pool.volumes):
        return []
    return [
        Planned(DeletePool(pool.name), None, Change.LIVE, pool.name, f"{pool.name}: delete this empty storage pool")
    ]
