"""The host: what it has, what was promised of it, what is used, its pools and its doctor's findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vmhost.model.outcome import Finding
from vmhost.ops.watch import Picture
from vmhost.tui.rows.cells import Line, Signs, Tone, share, size, weight

_BAR = 24
_LABEL = 14


def host_lines(picture: Picture, signs: Signs) -> list[Line]:
    """Return what the host is and has."""
    return [*_facts(picture), Line(""), *_memory(picture, signs), Line(""), *_pools(picture, signs)]


def _facts(picture: Picture) -> Iterator[Line]:
    host = picture.observed.host
    accelerated = "KVM" if host.kvm else "none: guests are emulated"
    yield _fact("host", f"{host.hostname}  {host.uri}")
    yield _fact("libvirt", f"{_version(host.libvirt_version)}, {host.driver} {_version(host.hypervisor_version)}")
    yield _fact("acceleration", accelerated, Tone.PLAIN if host.kvm else Tone.WARN)
    where = "" if host.local else "  (another machine: read-only from here)"
    yield _fact("machine", f"{host.architecture}, {host.cpus} CPUs, {size(host.memory)} of memory{where}")


def _memory(picture: Picture, signs: Signs) -> Iterator[Line]:
    host, domains = picture.observed.host, picture.observed.domains
    running = sum(domain.facts.max_memory for domain in domains if domain.active)
    everything = sum(domain.facts.max_memory for domain in domains)
    resident = sum(stats.resident for stats in picture.samples[-1].stats.values()) if picture.samples else 0
    vcpus = sum(domain.facts.vcpus for domain in domains if domain.active)
    yield Line("MEMORY AND CPUS", Tone.LIVELY)
    yield _bar("used", resident, host.memory, signs, "what QEMU holds")
    yield _bar("promised", running, host.memory, signs, "to those that run")
    yield _bar("if all run", everything, host.memory, signs, "to all guests")
    yield _fact("still fits", size(max(0, host.memory - running)))
    yield _bar("CPUs busy", min(picture.busy, host.cpus), host.cpus, signs, f"of {host.cpus}")
    ratio = f"{vcpus / host.cpus:.1f} for each CPU" if host.cpus else ""
    yield _fact("vCPUs", f"{vcpus} of guests that run, {ratio}")


def _pools(picture: Picture, signs: Signs) -> Iterator[Line]:
    yield Line("STORAGE POOLS", Tone.LIVELY)
    for pool in picture.observed.pools:
        if not pool.active:
            yield _fact(pool.name, f"not active  {pool.path}", Tone.WARN)
            continue
        promised = sum(volume.capacity for volume in pool.volumes)
        text = f"{size(pool.available)} free of {size(pool.capacity)}; volumes may grow to {size(promised)}"
        yield _bar(pool.name, pool.capacity - pool.available, pool.capacity, signs, text)
        yield Line(f"{'':{_LABEL}}{pool.path}, {len(pool.volumes)} volumes", Tone.DIM)
    if not picture.observed.pools:
        yield Line("there are none", Tone.DIM)


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


def _bar(name: str, part: float, whole: float, signs: Signs, words: str) -> Line:
    filled = min(_BAR, round(_BAR * part / whole)) if whole else 0
    drawn = signs.ramp[-1] * filled + signs.ramp[0] * (_BAR - filled)
    number = size(part) if whole > 4096 else f"{part:.1f}"
    return Line(
        f"{name[: _LABEL - 1]:<{_LABEL}}{drawn} {number:>6} {share(part, whole):>5}  {words}",
        weight(part, whole, warn=0.8, bad=0.9),
    )


def _fact(name: str, text: str, tone: Tone = Tone.PLAIN) -> Line:
    return Line(f"{name[: _LABEL - 1]:<{_LABEL}}{text}", tone)


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
