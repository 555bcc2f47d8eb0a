"""The list of guests: which are shown, in what order, and the cells of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from vmhost.model.domains import DomainState, ObservedDomain
from vmhost.model.stats import Load
from vmhost.ops.watch import Picture
from vmhost.tui.rows.cells import Cell, Column, Signs, Tone, cell, lasting, rate, share, size, spark, weight
from vmhost.tui.rows.filters import passes, tests_of

if TYPE_CHECKING:
    from vmhost.ops.care import Care

COLUMNS: Final = (
    Column("name", "NAME", 14, grows=1, widest=40),
    Column("state", "STATE", 11, rank=1),
    Column("vcpus", "VCPU", 4, rank=4, right=True),
    Column("cpu", "CPU%", 5, rank=2, right=True),
    Column("cpu-spark", "CPU", 10, rank=12, grows=3, widest=31),
    Column("memory", "MEMORY", 11, rank=3, right=True),
    Column("memory-max", "MAX", 5, rank=13, right=True),
    Column("disk", "DISK", 7, rank=8, right=True),
    Column("disk-spark", "DISK", 8, rank=14, grows=4, widest=24),
    Column("net", "NET", 7, rank=9, right=True),
    Column("net-spark", "NET", 8, rank=15, grows=5, widest=24),
    Column("address", "ADDRESS", 15, rank=5),
    Column("vlan", "VLAN", 8, rank=10),
    Column("services", "SVC", 5, rank=7, right=True),
    Column("protection", "PROT", 5, rank=7, right=True),
    Column("site", "SITE", 8, rank=11),
    Column("flags", "FLAGS", 9, rank=6, grows=2, widest=20),
)
SORTS: Final = ("name", "state", "cpu", "memory", "disk", "net", "address", "vlan", "site")

CHANGING: Final = frozenset({"state", "cpu", "disk", "net"})
"""Columns that every picture may sort in another way."""

Caring = Callable[[ObservedDomain], "Care | None"]
"""What is known of a guest's services and points, None: nothing yet."""


def _nothing(_: ObservedDomain) -> Care | None:
    return None


_FLOOR: Final = float(1 << 20)
"""Bytes a second below which a rate does not fill its bar, so that a trickle does not look like a flood."""

_STATES: Final[Mapping[DomainState, tuple[str, str, Tone]]] = {
    DomainState.RUNNING: ("running", "running", Tone.GOOD),
    DomainState.BLOCKED: ("running", "idle", Tone.GOOD),
    DomainState.PAUSED: ("paused", "paused", Tone.WARN),
    DomainState.SHUTDOWN: ("closing", "closing", Tone.WARN),
    DomainState.SHUTOFF: ("off", "shut off", Tone.DIM),
    DomainState.CRASHED: ("crashed", "crashed", Tone.BAD),
    DomainState.SUSPENDED: ("paused", "suspended", Tone.WARN),
    DomainState.NO_STATE: ("off", "no state", Tone.DIM),
}


def state_of(picture: Picture, domain: ObservedDomain) -> DomainState:
    """Return a guest's state, the newest that is known."""
    stats = picture.stats(domain.uuid)
    return stats.state if stats else domain.raw.state


def state_cell(state: DomainState, signs: Signs) -> Cell:
    """Return a state as a sign and a word."""
    sign, word, tone = _STATES[state]
    return Cell(f"{getattr(signs, sign)} {word}", tone)


def address_of(domain: ObservedDomain) -> str:
    """Return the address that a guest is reached at, or empty."""
    for nic in domain.metadata.identity.nics if domain.metadata else ():
        if nic.address or nic.ssh_port:
            return nic.address.partition("/")[0] or f"127.0.0.1:{nic.ssh_port}"
    return ""


def vlans_of(domain: ObservedDomain) -> tuple[str, ...]:
    """Return the VLANs of a guest's ports, each once: ``300`` untagged, ``+400-499`` tagged."""
    found: list[str] = []
    for nic in domain.metadata.identity.nics if domain.metadata else ():
        found += [str(nic.pvid)] if nic.pvid else []
        found += [f"+{nic.tagged}"] if nic.tagged else []
    return tuple(dict.fromkeys(found))


def flags_of(picture: Picture, domain: ObservedDomain) -> tuple[str, ...]:
    """Return what is special about a guest, the most urgent first."""
    metadata = domain.metadata
    found = (
        ("drift", domain.uuid in picture.edited),
        ("pending", bool(metadata and metadata.pending)),
        ("saved", domain.raw.managed_save),
        ("foreign", domain.foreign),
        ("copy", bool(domain.copied)),
        ("drill", bool(domain.drill)),
        ("newer", bool(metadata and not metadata.readable)),
        ("protected", bool(metadata and metadata.protect)),
    )
    return tuple(word for word, holds in found if holds)


def ordered(picture: Picture, query: str, sort: str, *, reverse: bool = False) -> tuple[str, ...]:
    """Return the UUIDs of the guests that a filter lets through, sorted; equal ones by name."""
    tests = tests_of(query)
    domains: Sequence[ObservedDomain] = picture.observed.domains
    if tests:
        domains = [domain for domain in domains if passes(domain, tests)]
    if sort != "name":
        key = _KEYS[sort]
        domains = sorted(domains, key=lambda domain: key(picture, domain))
    uuids = tuple(domain.uuid for domain in domains)
    return uuids[::-1] if reverse else uuids


def guest_cells(
    picture: Picture, domain: ObservedDomain, columns: Sequence[Column], signs: Signs, care: Caring = _nothing
) -> tuple[Cell, ...]:
    """Return the cells of one guest, in the order of the columns; ``care`` is asked where a column shows of it."""
    look = _Look(picture, domain, signs, care)
    return tuple(_CELLS[column.id](look, column.width) for column in columns)


class _Look:
    """A guest on a picture, with what several of its cells need."""

    def __init__(self, picture: Picture, domain: ObservedDomain, signs: Signs, care: Caring) -> None:
        self.care = care
        self.picture = picture
        self.domain = domain
        self.signs = signs
        self.stats = picture.stats(domain.uuid)
        self.state = self.stats.state if self.stats else domain.raw.state

    @cached_property
    def load(self) -> Load:
        return self.picture.load(self.domain.uuid)

    @cached_property
    def loads(self) -> tuple[Load, ...]:
        return self.picture.loads(self.domain.uuid)


def summary(picture: Picture) -> str:
    """Return the host in one line."""
    host = picture.observed.host
    count = len(picture.observed.domains)
    return (
        f"{count} guest{'' if count == 1 else 's'}, {picture.running} running"
        f"   CPU {share(min(picture.busy, host.cpus), host.cpus)} of {host.cpus}"
        f"   memory {size(picture.held)} of {size(host.memory)}"
    )


def _name(look: _Look, _: int) -> Cell:
    return cell(look.domain.name)


def _state(look: _Look, _: int) -> Cell:
    return state_cell(look.state, look.signs)


def _vcpus(look: _Look, _: int) -> Cell:
    return Cell(str(look.domain.facts.vcpus))


def _cpu(look: _Look, _: int) -> Cell:
    if not look.state.active:
        return Cell("-", Tone.DIM)
    used, whole = look.load.cpu, look.domain.facts.vcpus
    return Cell(share(min(used, whole), whole), weight(used, whole))


def _cpu_spark(look: _Look, width: int) -> Cell:
    values = [load.cpu for load in look.loads[-width:]]
    return Cell(spark(values, width, look.signs, top=float(look.domain.facts.vcpus)), Tone.LIVELY)


def _memory(look: _Look, _: int) -> Cell:
    stats = look.stats
    if stats is None or not look.state.active:
        return Cell(size(look.domain.facts.memory), Tone.DIM)
    if not stats.whole:
        return Cell(f"?/{size(look.domain.facts.memory)}", Tone.DIM)
    used = stats.used or min(stats.resident, stats.memory)  # QEMU has some of its own besides
    return Cell(f"{size(used)}/{size(stats.memory)}", weight(used, stats.memory, warn=0.85, bad=0.95))


def _memory_max(look: _Look, _: int) -> Cell:
    return Cell(size(look.domain.facts.max_memory), Tone.DIM)


def _disk(look: _Look, _: int) -> Cell:
    return _rate(disk_rate(look.load))


def _net(look: _Look, _: int) -> Cell:
    return _rate(net_rate(look.load))


def _rate(count: float | None) -> Cell:
    text = rate(count)
    return Cell(text, Tone.DIM if text in ("-", "?") else Tone.PLAIN)


def _disk_spark(look: _Look, width: int) -> Cell:
    return _rate_spark([disk_rate(load) for load in look.loads[-width:]], width, look.signs)


def _net_spark(look: _Look, width: int) -> Cell:
    return _rate_spark([net_rate(load) for load in look.loads[-width:]], width, look.signs)


def _rate_spark(values: Sequence[float | None], width: int, signs: Signs) -> Cell:
    return Cell(spark(values, width, signs, top=max(_FLOOR, *(value or 0.0 for value in (0.0, *values)))), Tone.LIVELY)


def _address(look: _Look, _: int) -> Cell:
    return cell(address_of(look.domain) or "-")


def _vlan(look: _Look, _: int) -> Cell:
    return cell(" ".join(vlans_of(look.domain)) or "-")


def _services(look: _Look, _: int) -> Cell:
    """Return how many are healthy, of all; ``?``: nobody has looked at any of them lately."""
    there = [item.name for item in look.domain.metadata.services] if look.domain.metadata else []
    if not there:
        return Cell("-", Tone.DIM)
    care = look.care(look.domain)
    up, down = (care.up, care.down) if care else (frozenset[str](), frozenset[str]())
    good, bad = sum(name in up for name in there), sum(name in down for name in there)
    if not good and not bad:
        return Cell(f"?/{len(there)}", Tone.DIM)
    tone = Tone.BAD if bad else Tone.GOOD if good == len(there) else Tone.WARN
    return Cell(f"{good}/{len(there)}", tone)


def _protection(look: _Look, _: int) -> Cell:
    """Return how old the newest point is that was found whole."""
    if look.domain.metadata is None:
        return Cell("-", Tone.DIM)
    care = look.care(look.domain)
    if care is None or care.points < 0:
        return Cell("" if care is None else "?", Tone.WARN)
    if care.verified < 0:
        return Cell("never", Tone.WARN) if care.points else Cell("none", Tone.BAD)
    return Cell(lasting(care.verified), Tone.BAD if care.late else Tone.GOOD)


def _site(look: _Look, _: int) -> Cell:
    return cell(look.domain.metadata.site if look.domain.metadata else "-")


def _flags(look: _Look, _: int) -> Cell:
    flags = flags_of(look.picture, look.domain)
    if "drift" in flags:
        return Cell(f"{look.signs.warning} {' '.join(flags)}", Tone.WARN)
    return Cell(" ".join(flags), Tone.WARN if "pending" in flags else Tone.DIM)


def disk_rate(load: Load) -> float | None:
    """Return bytes a second from and to disks; None: it is not known."""
    return None if load.read is None or load.written is None else load.read + load.written


def net_rate(load: Load) -> float:
    """Return bytes a second from and to the network."""
    return load.received + load.sent


def _by_address(domain: ObservedDomain) -> tuple[int, ...]:
    parts = address_of(domain).partition(":")[0].split(".")
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else (999,)


_CELLS: Final[Mapping[str, Callable[[_Look, int], Cell]]] = {
    "name": _name,
    "state": _state,
    "vcpus": _vcpus,
    "cpu": _cpu,
    "cpu-spark": _cpu_spark,
    "memory": _memory,
    "memory-max": _memory_max,
    "disk": _disk,
    "disk-spark": _disk_spark,
    "net": _net,
    "net-spark": _net_spark,
    "address": _address,
    "vlan": _vlan,
    "services": _services,
    "protection": _protection,
    "site": _site,
    "flags": _flags,
}
_KEYS: Final[Mapping[str, Callable[[Picture, ObservedDomain], Any]]] = {
    "state": lambda picture, domain: (not state_of(picture, domain).active, state_of(picture, domain)),
    "cpu": lambda picture, domain: -picture.load(domain.uuid).cpu,
    "memory": lambda _, domain: -domain.facts.memory,
    "disk": lambda picture, domain: -(disk_rate(picture.load(domain.uuid)) or 0.0),
    "net": lambda picture, domain: -net_rate(picture.load(domain.uuid)),
    "address": lambda _, domain: _by_address(domain),
    "vlan": lambda _, domain: [(len(vlan), vlan) for vlan in vlans_of(domain)] or [(99, "")],
    "site": lambda _, domain: domain.metadata.site if domain.metadata else "~",
}
