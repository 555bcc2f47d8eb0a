"""The host: what it has, what was promised of it, what is used, its pools and its doctor's findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vmhost.model.capacity import Capacity, Taken
from vmhost.model.outcome import Finding
from vmhost.ops.watch import Picture
from vmhost.tui.rows.cells import Line, Signs, Tone, share, size, weight

_BAR = 24
_LABEL = 14


def host_lines(picture: Picture, capacity: Capacity | None, signs: Signs) -> list[Line]:
    """Return what the host is and has, what is used of it, and, once it is counted, what is promised.

    Bars are coloured by the host's own thresholds.
    """
    facts, pools = _facts(picture), _pools(picture, capacity, signs)
    return [*facts, Line(""), *_memory(picture, capacity, signs), Line(""), *pools]


def _facts(picture: Picture) -> Iterator[Line]:
    host = picture.observed.host
    accelerated = "KVM" if host.kvm else "none: guests are emulated"
    yield _fact("host", f"{host.hostname}  {host.uri}")
    yield _fact("libvirt", f"{_version(host.libvirt_version)}, {host.driver} {_version(host.hypervisor_version)}")
    yield _fact("acceleration", accelerated, Tone.PLAIN if host.kvm else Tone.WARN)
    where = "" if host.local else "  (another machine: read-only from here)"
    yield _fact("machine", f"{host.architecture}, {host.cpus} CPUs, {size(host.memory)} of memory{where}")


def _memory(picture: Picture, capacity: Capacity | None, signs: Signs) -> Iterator[Line]:
    host = picture.observed.host
    resident = picture.resident()
    memory, cpu = _taken(capacity, "memory"), _taken(capacity, "cpu")
    yield Line("MEMORY AND CPUS", Tone.LIVELY)
    if resident is None:
        yield _fact("used", "not known: QEMU has not said it yet of every guest", Tone.DIM)
    else:
        yield _bar("used", resident, host.memory, signs, "what QEMU holds", memory)
    if capacity is not None and memory is not None and cpu is not None:
        yield _bar("promised", memory.part, memory.whole, signs, f"of the {size(memory.whole)} for guests", memory)
        yield _bar("if all run", capacity.all_run, memory.whole, signs, "to all guests", memory)
        yield _fact("still fits", size(capacity.free))
        yield _bar("CPUs promised", cpu.part, cpu.whole, signs, f"of the {cpu.whole:g} for guests", cpu)
    else:
        yield _fact("promised", "counting", Tone.DIM)
    yield _bar("CPUs busy", min(picture.busy, host.cpus), host.cpus, signs, f"of {host.cpus}", cpu)
    vcpus = sum(domain.facts.vcpus for domain in picture.observed.domains if domain.active)
    ratio = f"{vcpus / host.cpus:.1f} for each CPU" if host.cpus else ""
    yield _fact("vCPUs", f"{vcpus} of guests that run, {ratio}")


def _pools(picture: Picture, capacity: Capacity | None, signs: Signs) -> Iterator[Line]:
    yield Line("STORAGE POOLS", Tone.LIVELY)
    for pool in picture.observed.pools:
        if not pool.active:
            yield _fact(pool.name, f"not active  {pool.path}", Tone.WARN)
            continue
        promised = sum(volume.capacity for volume in pool.volumes)
        text = f"{size(pool.available)} free of {size(pool.capacity)}; volumes may grow to {size(promised)}"
        storage = _taken(capacity, f"storage {pool.name}")
        yield _bar(pool.name, pool.capacity - pool.available, pool.capacity, signs, text, storage)
        yield Line(f"{'':{_LABEL}}{pool.path}, {len(pool.volumes)} volumes", Tone.DIM)
    if not picture.observed.pools:
        yield Line("there are none", Tone.DIM)


def _taken(capacity: Capacity | None, what: str) -> Taken | None:
    return next((one for one in capacity.taken if one.what == what), None) if capacity else None


def finding_lines(findings: Sequence[Finding], signs: Signs) -> list[Line]:
    """Return the doctor's findings, the worst first."""
    order = ("error", "warning", "info", "ok")
    lines: list[Line] = []
    for item in sorted(findings, key=lambda finding: order.index(finding.severity)):
        lines.append(Line(f"{_SIGN[item.severity]:<8}{item.area:<10}{item.title}", _TONE[item.severity]))
        if item.severity != "ok":
            lines.append(Line(f"{'':18}{item.why}", Tone.DIM))
            lines += [Line(f"{'':18}try: {item.mend}", Tone.LIVELY)] if item.mend else []
    return lines or [Line("nothing was found", Tone.DIM)]


_SIGN = {"ok": "ok", "info": "info", "warning": "WARNING", "error": "ERROR"}
_TONE = {"ok": Tone.GOOD, "info": Tone.PLAIN, "warning": Tone.WARN, "error": Tone.BAD}


def _bar(name: str, part: float, whole: float, signs: Signs, words: str, judged: Taken | None) -> Line:
    """Return a bar; from the threshold it is ``judged`` by on it warns, from half-way to the whole on it is bad."""
    filled = min(_BAR, round(_BAR * part / whole)) if whole else 0
    drawn = signs.ramp[-1] * filled + signs.ramp[0] * (_BAR - filled)
    number = size(part) if whole > 4096 else f"{part:.1f}"
    tone = Tone.PLAIN
    if judged is not None:
        tone = weight(part, whole, warn=judged.threshold / 100, bad=(100 + judged.threshold) / 200)
    sign = f" {signs.warning}" if tone is not Tone.PLAIN else ""
    return Line(f"{name[: _LABEL - 1]:<{_LABEL}}{drawn} {number:>6} {share(part, whole):>5}{sign}  {words}", tone)


def _fact(name: str, text: str, tone: Tone = Tone.PLAIN) -> Line:
    return Line(f"{name[: _LABEL - 1]:<{_LABEL}}{text}", tone)


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
