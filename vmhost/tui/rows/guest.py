"""One guest: the lines of its tabs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from vmhost.model.domains import ObservedDomain
from vmhost.ops.watch import Picture
from vmhost.tui.rows.cells import Line, Signs, Tone, rate, share, size, spark
from vmhost.tui.rows.filters import labels_of
from vmhost.tui.rows.guests import address_of, disk_rate, flags_of, net_rate, state_cell, state_of

if TYPE_CHECKING:
    from vmhost.model.observed import Observed
    from vmhost.ops.guestview import Definition

TABS: Final = (
    ("overview", "Overview"),
    ("cpu", "CPU & memory"),
    ("disks", "Disks"),
    ("network", "Network"),
    ("services", "Services"),
    ("kept", "Protection"),
    ("events", "Events"),
    ("xml", "XML"),
    ("console", "Console"),
    ("cloud-init", "Cloud-init"),
)
_LABEL: Final = 14
_WIDE: Final = 30


def find(picture: Picture, uuid: str) -> ObservedDomain | None:
    """Return the guest of that UUID, or None when it is gone."""
    return next((domain for domain in picture.observed.domains if domain.uuid == uuid), None)


def tab_lines(tab: str, picture: Picture, domain: ObservedDomain, signs: Signs) -> list[Line]:
    """Return the lines of a tab; the console's come from elsewhere."""
    match tab:
        case "overview":
            return list(_overview(picture, domain, signs))
        case "cpu":
            return list(_cpu_and_memory(picture, domain, signs))
        case "disks":
            return list(_disks(picture, domain, signs))
        case "network":
            return list(_network(picture, domain, signs))
        case "events":
            return list(_events(picture, domain))
        case _:
            return list(_xml(domain))


def _overview(picture: Picture, domain: ObservedDomain, signs: Signs) -> Iterator[Line]:
    metadata, facts = domain.metadata, domain.facts
    state = state_cell(state_of(picture, domain), signs)
    yield _fact("state", state.text, state.tone)
    yield _fact("address", address_of(domain) or "-")
    yield _fact("vCPUs", f"{facts.vcpus} of at most {facts.max_vcpus}")
    yield _fact("memory", f"{size(facts.memory)} of at most {size(facts.max_memory)}")
    yield _fact("autostart", "with the host" if domain.raw.autostart else "no")
    yield _fact("firmware", facts.firmware)
    yield _fact("flags", ", ".join(flags_of(picture, domain)) or "-")
    yield _fact("labels", ", ".join(f"{key}={value}" for key, value in labels_of(domain).items()) or "-")
    yield _fact("uuid", domain.uuid)
    if metadata is None:
        what = "a drill of a backup, which goes by itself" if domain.drill else "foreign, so vmhost shows it only"
        yield _fact("site", f"none: it is {what}", Tone.DIM)
        return
    yield _fact("site", metadata.site)
    by = f" by command '{metadata.command}'" if metadata.command else ""
    yield _fact("applied", f"{metadata.applied} by {metadata.user}{by}")
    yield _fact("host key", metadata.identity.host_key)
    for difference in picture.edited.get(domain.uuid, ()):
        yield Line(f"{signs.warning} drift: {difference}", Tone.WARN)


def _cpu_and_memory(picture: Picture, domain: ObservedDomain, signs: Signs) -> Iterator[Line]:
    facts, stats, load = domain.facts, picture.stats(domain.uuid), picture.load(domain.uuid)
    loads = picture.loads(domain.uuid)
    bars = spark([item.cpu for item in loads], _WIDE, signs, top=float(facts.vcpus))
    yield _fact("vCPUs", f"{facts.vcpus} of at most {facts.max_vcpus}")
    yield _fact("busy", f"{share(min(load.cpu, facts.vcpus), facts.vcpus):>6}  {bars}")
    yield _fact("of the host", f"{share(load.cpu, picture.observed.host.cpus):>6}")
    yield Line("")
    yield _fact("memory", f"{size(facts.memory)} of at most {size(facts.max_memory)}")
    if stats is None or not stats.state.active:
        yield _fact("now", "it does not run", Tone.DIM)
        return
    if not stats.whole:
        yield _fact("now", "not known: QEMU has not said it yet", Tone.DIM)
        return
    yield _fact("balloon", f"{size(stats.memory):>6}  what it has now")
    used = f"{size(stats.used):>6}  {share(stats.used, stats.memory)}, as its own system says"
    yield _fact("used", used if stats.used else "     ?  its system says nothing (no balloon driver)")
    yield _fact("resident", f"{size(stats.resident):>6}  of the host's memory")


def _disks(picture: Picture, domain: ObservedDomain, signs: Signs) -> Iterator[Line]:
    load, loads = picture.load(domain.uuid), picture.loads(domain.uuid)
    yield _fact("read", f"{rate(load.read):>8}  {spark([item.read for item in loads], _WIDE, signs)}")
    yield _fact("written", f"{rate(load.written):>8}  {spark([item.written for item in loads], _WIDE, signs)}")
    yield _fact("together", f"{rate(disk_rate(load)):>8}")
    yield Line("")
    volumes = _volumes(picture.observed)
    for disk in domain.facts.disks:
        capacity, allocation, pool = volumes.get(disk.source, (0, 0, "no pool"))
        how = f"{size(capacity):>6}, {size(allocation)} written" if capacity else "     ?"
        what = ", ".join(filter(None, (disk.alias.removeprefix("ua-disk-"), disk.format, disk.bus, pool)))
        yield _fact(disk.target, f"{how:<24} {what}{', read-only' if disk.readonly else ''}")
        yield Line(f"{'':{_LABEL}}{disk.source}", Tone.DIM)


def _volumes(observed: Observed) -> dict[str, tuple[int, int, str]]:
    return {
        volume.path: (volume.capacity, volume.allocation, pool.name)
        for pool in observed.pools
        for volume in pool.volumes
    }


def _network(picture: Picture, domain: ObservedDomain, signs: Signs) -> Iterator[Line]:
    load, loads = picture.load(domain.uuid), picture.loads(domain.uuid)
    yield _fact("received", f"{rate(load.received):>8}  {spark([item.received for item in loads], _WIDE, signs)}")
    yield _fact("sent", f"{rate(load.sent):>8}  {spark([item.sent for item in loads], _WIDE, signs)}")
    yield _fact("together", f"{rate(net_rate(load)):>8}")
    yield Line("")
    identity = {nic.mac: nic for nic in domain.metadata.identity.nics} if domain.metadata else {}
    seen = {entry.mac: entry.address for entry in picture.observed.neighbours}
    for nic in domain.facts.nics:
        ours = identity.get(nic.mac)
        address = ours.address if ours and ours.address else seen.get(nic.mac, "no known address")
        if ours and ours.ssh_port:
            address = f"ssh on 127.0.0.1:{ours.ssh_port}"
        yield _fact(nic.tap or nic.type, f"{nic.mac}  {address}")
        yield Line(f"{'':{_LABEL}}{nic.type} {nic.source}, {nic.model}", Tone.DIM)
    if not domain.facts.nics:
        yield Line("it has no network", Tone.DIM)


def _events(picture: Picture, domain: ObservedDomain) -> Iterator[Line]:
    mine = [item for item in picture.happenings if item.uuid == domain.uuid]
    for item in reversed(mine):
        moment = datetime.fromtimestamp(item.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        yield Line(f"{moment}  {item.kind}{f' ({item.detail})' if item.detail else ''}")
    if not mine:
        yield Line("nothing happened to it since this screen was opened", Tone.DIM)


def definition_lines(definition: Definition, domain: ObservedDomain) -> list[Line]:
    """Return where a guest's definition is not what was applied to it; nothing when it is."""
    from vmhost.tui.rows.difference import xml_difference

    if definition.wanted is None:
        return [Line(f"not compared: {definition.why}", Tone.DIM), Line("")]
    metadata = domain.metadata
    applied = f"on {metadata.applied} by {metadata.user}" if metadata else ""
    if definition.wanted == definition.now:
        return [Line(f"as it was applied {applied}", Tone.GOOD), Line("")]
    head = Line(f"DIFFERENT FROM WHAT WAS APPLIED {applied}: what an apply would make of it", Tone.WARN)
    return [head, *xml_difference(definition.now, definition.wanted), Line("")]


def _xml(domain: ObservedDomain) -> Iterator[Line]:
    text, which = domain.raw.xml, "as it boots next"
    if domain.raw.live_xml:
        text, which = domain.raw.live_xml, "as it runs"
    yield Line(f"<!-- {which} -->", Tone.DIM)
    yield from (Line(line) for line in text.splitlines())


def _fact(name: str, text: str, tone: Tone = Tone.PLAIN) -> Line:
    return Line(f"{name:<{_LABEL}}{text}", tone)
