"""A guest as it should be against the guest as it is, field by field, on the fields that we own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from vmhost.model.guard import guard_of
from vmhost.model.identity import GuestIdentity, NicIdentity
from vmhost.model.observed import DiskFacts, NicFacts, Observed, ObservedDomain
from vmhost.model.plan import Change, Difference
from vmhost.model.spec import DiskSpec, GuestSpec, Site
from vmhost.model.tuning import Tuning
from vmhost.model.units import format_rate, format_size
from vmhost.plan.applied import read_spec
from vmhost.plan.disklimits import limit_differences
from vmhost.plan.guards import live_guards
from vmhost.plan.held import can_blow, can_plug, can_plug_memory, held_differences
from vmhost.plan.overlays import own_file
from vmhost.plan.storage import Pools, disk_volume, seed_volume
from vmhost.plan.vlans import live_ports
from vmhost.render.views import kib_a_second

FIRST_BOOT = "cloud_init"


@dataclass(frozen=True, slots=True)
class Delta:
    """One difference, with the change class of mending it."""

    field: str
    want: str
    have: str
    change: Change
    outside: bool

    def difference(self, guest: str) -> Difference:
        """Return it as the faces show it."""
        return Difference(guest, self.field, self.want, self.have, self.outside)


@dataclass(frozen=True, slots=True)
class Pair:
    """A guest's wish beside its reality. ``identity`` is who it is after the plan, ``tuning`` how it is to be held
    then; None: that is not looked at. ``overwrite``: what others did to its disks' files may be undone.
    """

    spec: GuestSpec
    identity: GuestIdentity
    domain: ObservedDomain
    site: Site
    observed: Observed
    pools: Pools
    tuning: Tuning | None = None
    overwrite: bool = False

    @property
    def applied(self) -> GuestSpec | None:
        """The spec that was applied last, or None when this vmhost cannot read it."""
        return read_spec(self.domain.metadata.spec) if self.domain.metadata else None


def first_file(pair: Pair, disk: DiskSpec) -> str:
    """Return the file that a disk is when it is made, and that overlays of snapshots lie on later."""
    return pair.pools.path(pair.pools.pool_of(disk), disk_volume(pair.identity.uuid, disk))


def wanted_file(pair: Pair, disk: DiskSpec, found: DiskFacts | None) -> str:
    """Return the file that a disk should be: the one that it is, if that is its own or an overlay over it, whoever made
    that; only what is to be overwritten leaves somebody else's.
    """
    first = first_file(pair, disk)
    own = own_file(found, first, pair.pools.backing) if found is not None else ""
    return first if found is None or not own else own if pair.overwrite else found.source


def compare(pair: Pair) -> list[Delta]:
    """Return every difference on owned fields, in a fixed order."""
    return [*_machine(pair), *_held(pair), *_disks(pair), *_seed(pair), *_nics(pair), *_settings(pair)]


def _delta(pair: Pair, field: str, want: object, have: object, change: Change, before: object) -> Iterator[Delta]:
    """Yield the difference, if there is one; it came from outside when the site still says what was last applied."""
    if want != have:
        yield Delta(field, str(want), str(have), change, pair.applied is not None and before == want)


def _machine(pair: Pair) -> Iterator[Delta]:
    spec, facts, old = pair.spec, pair.domain.facts, pair.applied
    boot = Change.NEXT_BOOT
    count, plugged = spec.cpus.count, Change.LIVE if can_plug(pair.domain, spec.cpus) else boot
    yield from _delta(pair, "cpus.count", count, facts.vcpus, plugged, old and old.cpus.count)
    most, old_most = _most_cpus(spec), old and _most_cpus(old)
    yield from _delta(pair, "cpus.max", most, facts.max_vcpus, boot, old_most)
    size, old_size = format_size(spec.memory.size), old and format_size(old.memory.size)
    blown = Change.LIVE if can_blow(pair.domain, spec.memory) or can_plug_memory(pair.domain, spec.memory) else boot
    yield from _delta(pair, "memory.size", size, format_size(facts.memory), blown, old_size)
    most_memory, old_memory = _most_memory(spec), old and _most_memory(old)
    yield from _delta(pair, "memory.max", most_memory, format_size(facts.max_memory), boot, old_memory)
    firmware = old and old.firmware
    yield from _delta(pair, "firmware", spec.firmware, facts.firmware, Change.REPLACE, firmware)
    if old:
        yield from _delta(pair, "image", spec.image, old.image, Change.REPLACE, None)


def _held(pair: Pair) -> Iterator[Delta]:
    if pair.tuning is not None:
        for field, want, have, live in held_differences(pair.tuning, pair.spec.cpus, pair.domain, pair.observed):
            yield Delta(field, want, have, Change.LIVE if live else Change.NEXT_BOOT, pair.applied == pair.spec)


def _most_cpus(spec: GuestSpec) -> int:
    return spec.cpus.max or spec.cpus.count


def _most_memory(spec: GuestSpec) -> str:
    return format_size(spec.memory.max or spec.memory.size)


def _disks(pair: Pair) -> Iterator[Delta]:
    present = {disk.alias: disk for disk in pair.domain.facts.disks if disk.alias.startswith("ua-disk-")}
    sizes = pair.pools.sizes
    before = {disk.id: disk for disk in pair.applied.disks} if pair.applied else {}
    if pair.applied and pair.applied.root.id != pair.spec.root.id:
        yield Delta("root disk", str(pair.spec.root.id), str(pair.applied.root.id), Change.REPLACE, False)
    for disk in pair.spec.disks:
        found: DiskFacts | None = present.pop(f"ua-disk-{disk.id}", None)
        path, name = wanted_file(pair, disk, found), f"disks.{disk.id}"
        if found is None:
            yield Delta(name, format_size(disk.size), "", Change.NEXT_BOOT, disk.id in before)
            continue
        was = before.get(disk.id)
        applied = path if was and was.pool == disk.pool else None
        yield from _delta(pair, f"{name}.source", path, found.source, Change.NEXT_BOOT, applied)
        have = sizes.get(path)
        if have is None and found.source == path == own_file(found, first_file(pair, disk), pair.pools.backing):
            yield Delta(f"{name}.volume", "there", "gone", Change.NEXT_BOOT, True)
        if have is not None and have != disk.size:
            outside = was is not None and was.size == disk.size
            yield Delta(f"{name}.size", format_size(disk.size), format_size(have), Change.LIVE, outside)
        if limits := limit_differences(disk, pair.domain):
            yield Delta(f"{name}.limits", *limits, Change.LIVE, was is not None and was.limits == disk.limits)
    for alias in present:
        disk_id = alias.removeprefix("ua-disk-")
        yield Delta(f"disks.{disk_id}", "", "attached", Change.NEXT_BOOT, disk_id not in before)


def _seed(pair: Pair) -> Iterator[Delta]:
    """A guest whose seed is gone runs on, but cannot start again."""
    path = pair.pools.path(pair.pools.pool_of(), seed_volume(pair.identity.uuid))
    attached = any(disk.source == path for disk in pair.domain.facts.disks)
    if attached and path not in pair.pools.sizes:
        yield Delta("seed", "there", "gone", Change.LIVE, True)


def _nics(pair: Pair) -> Iterator[Delta]:
    present = {nic.alias: nic for nic in pair.domain.facts.nics if nic.alias.startswith("ua-nic-")}
    old = pair.domain.metadata.identity.nics if pair.domain.metadata else ()
    before = {nic.id: nic for nic in old}
    for nic in pair.identity.nics:
        network = pair.site.networks[nic.network]
        found: NicFacts | None = present.pop(f"ua-nic-{nic.id}", None)
        was = before.get(nic.id)
        name = f"nics.{nic.id}"
        if found is None:
            yield Delta(name, nic.network, "", Change.NEXT_BOOT, was is not None)
            continue
        yield from _delta(pair, f"{name}.mac", nic.mac, found.mac, Change.NEXT_BOOT, was and was.mac)
        yield from _delta(pair, f"{name}.mtu", _mtu(network.mtu), _mtu(found.mtu), Change.NEXT_BOOT, None)
        if network.type == "user":
            forwarded, before_port = _forwarded(nic.ssh_port), was and _forwarded(was.ssh_port)
            have = found.source or _forwarded(0)
            yield from _delta(pair, f"{name}.forward", forwarded, have, Change.NEXT_BOOT, before_port)
            continue
        yield from _delta(pair, f"{name}.bridge", network.bridge, found.source, Change.NEXT_BOOT, None)
        yield from _delta(pair, f"{name}.tap", nic.tap, found.tap, Change.NEXT_BOOT, was and was.tap)
        if pair.domain.active and found.tap and not pair.domain.plugged(found.tap):
            yield Delta(f"{name}.plugged", "in", "out", Change.LIVE, True)
        yield from _vlans(pair, nic, was)
        yield from _guards(pair, nic, was)
        yield from _limits(pair, nic, was, found)
        if was:
            yield from _delta(pair, f"{name}.address", nic.address, was.address, Change.REPLACE, None)
    for alias in present:
        nic_id = alias.removeprefix("ua-nic-")
        yield Delta(f"nics.{nic_id}", "", "attached", Change.NEXT_BOOT, nic_id not in before)


def _mtu(size: int | None) -> str:
    return str(size) if size else "its network's"


def _forwarded(port: int) -> str:
    """Return where a NIC on a user network is reached, as its definition says it."""
    return f"127.0.0.1:{port}" if port else "none"


def _vlans(pair: Pair, nic: NicIdentity, was: NicIdentity | None) -> Iterator[Delta]:
    want, applied = str(nic.vlans or "none"), str((was.vlans if was else None) or "none")
    if was and want != applied:
        yield Delta(f"nics.{nic.id}.vlans", want, applied, Change.LIVE, False)
    for found, wanted, have in live_ports(pair.identity, pair.domain, pair.observed):
        if found.id == nic.id and wanted != have:
            yield Delta(f"nics.{nic.id}.port", str(wanted), str(have), Change.LIVE, want == applied)


def _guards(pair: Pair, nic: NicIdentity, was: NicIdentity | None) -> Iterator[Delta]:
    name, live = f"nics.{nic.id}", Change.LIVE
    if was and nic.isolated != was.isolated:
        yield Delta(f"{name}.isolated", _on(nic.isolated), _on(was.isolated), live, False)
    if was and nic.spoofing != was.spoofing:
        yield Delta(f"{name}.spoofing", nic.spoofing or "allowed", was.spoofing or "allowed", live, False)
    for port in live_guards(pair.identity, pair.domain, pair.observed):
        if port.nic.id != nic.id:
            continue
        if port.link.isolated != nic.isolated:
            outside = was is not None and was.isolated == nic.isolated
            yield Delta(f"{name}.port.isolated", _on(nic.isolated), _on(port.link.isolated), live, outside)
        if not port.guarded:
            outside = was is not None and guard_of(was) == guard_of(nic)
            have = "absent" if port.guard is None else "other rules" if nic.spoofing else "there"
            yield Delta(f"{name}.port.guard", "there" if nic.spoofing else "absent", have, live, outside)


def _limits(pair: Pair, nic: NicIdentity, was: NicIdentity | None, found: NicFacts) -> Iterator[Delta]:
    for way, want, have, old in (
        ("inbound", nic.inbound, found.inbound, was.inbound if was else None),
        ("outbound", nic.outbound, found.outbound, was.outbound if was else None),
    ):
        if kib_a_second(want) != have:
            shown = format_rate(old) if old is not None and kib_a_second(old) == have else f"{have} KiB/s"
            yield Delta(f"nics.{nic.id}.bandwidth.{way}", format_rate(want), shown, Change.LIVE, want == old)


def _on(value: bool) -> str:
    return "on" if value else "off"


def _settings(pair: Pair) -> Iterator[Delta]:
    spec, domain, old = pair.spec, pair.domain, pair.applied
    on = {True: "on", False: "off"}
    autostart = old and on[old.autostart]
    yield from _delta(pair, "autostart", on[spec.autostart], on[domain.raw.autostart], Change.LIVE, autostart)
    have = "running" if domain.active else "stopped"
    change = Change.LIVE if spec.state == "running" else Change.NEEDS_STOP
    yield from _delta(pair, "state", spec.state, have, change, old and old.state)
    if old:
        yield from _delta(pair, "protect", on[spec.protect], on[old.protect], Change.LIVE, None)
        yield from _delta(pair, "labels", _labels(spec), _labels(old), Change.LIVE, None)
        yield from _delta(pair, "backup", _kept(spec), _kept(old), Change.LIVE, None)
        yield from _delta(pair, "heartbeat", _beats(spec), _beats(old), Change.LIVE, None)
        yield from _parts(pair, "ready", spec.ready, old.ready)
        yield from _parts(pair, FIRST_BOOT, spec.cloud_init, old.cloud_init)


def _labels(spec: GuestSpec) -> str:
    return ", ".join(f"{key}={value}" for key, value in spec.labels.items())


def _kept(spec: GuestSpec) -> str:
    keep = spec.backup.keep.model_dump(exclude_defaults=True) if spec.backup else {}
    return ", ".join(f"{count} {rule}" for rule, count in keep.items())


def _beats(spec: GuestSpec) -> str:
    if spec.heartbeat is None:
        return ""
    given = spec.heartbeat.model_dump(exclude_defaults=True)
    return ", ".join(f"{key} {_told(value)}" for key, value in given.items()) or "as usual"


def _parts(pair: Pair, name: str, want: BaseModel, have: BaseModel) -> Iterator[Delta]:
    """Yield the differences of settings that are written down with the guest only, key by key."""
    for key in type(want).model_fields:
        new, old = getattr(want, key), getattr(have, key)
        if new != old:
            told = (_told(new), _told(old))
            shown = told if told[0] != told[1] else ("as the site says", "as applied")
            yield Delta(f"{name}.{key}", *shown, Change.LIVE, False)


def _told(value: object) -> str:
    """Return a setting in few words; of what is long, how much it is."""
    if isinstance(value, tuple) and all(isinstance(item, str) and item.isprintable() for item in value):
        text = ", ".join(value)
        return text if len(text) <= 60 else f"{len(value)} {'entry' if len(value) == 1 else 'entries'}"
    if isinstance(value, tuple):
        return f"{len(value)} {'entry' if len(value) == 1 else 'entries'}"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g} s"
    if isinstance(value, int):
        return str(value)
    return value if isinstance(value, str) else "" if value is None else "given"
