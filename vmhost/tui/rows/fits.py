"""Does it fit? What a wish means for the host's memory, while it is typed."""

from __future__ import annotations

from vmhost.model.observed import Observed
from vmhost.tui.rows.cells import Line, Tone, share, size


def fits(observed: Observed, memory: int | None, cpus: str, *, instead_of: str = "") -> Line:
    """Return a sentence about memory and vCPUs; ``instead_of`` names the guest that would be changed."""
    if memory is None:
        return Line("")
    host = observed.host
    others = sum(domain.facts.max_memory for domain in observed.domains if domain.active and domain.name != instead_of)
    together = others + memory
    text = (
        f"memory: {size(together)} of {size(host.memory)} promised to guests that run ({share(together, host.memory)})"
    )
    count = int(cpus) if cpus.isdecimal() and len(cpus) < 5 else 0
    if memory > host.memory:
        return Line(f"does not fit: {size(memory)} is more than this host has ({size(host.memory)})", Tone.BAD)
    if together > host.memory:
        return Line(f"{text}: more than there is; it may swap", Tone.WARN)
    if count > host.cpus:
        return Line(f"{text}; {count} vCPUs on {host.cpus} CPUs: they wait for each other", Tone.WARN)
    return Line(f"{text}: fits", Tone.GOOD)
