"""What forms need besides: pCPUs as a person writes them, site files, and whether a wish can be met here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vmhost.model.errors import VmhostError
from vmhost.ops.forms import bytes_of
from vmhost.ops.preferences import KEYS_FILE

if TYPE_CHECKING:
    from vmhost.model.capacity import Fit
    from vmhost.model.domains import ObservedDomain
    from vmhost.model.plan import Plan
    from vmhost.model.serviceplan import ServicePlan
    from vmhost.model.spec import CpuSpec
    from vmhost.ops.host import Host

POLICIES: Final = ("shared", "dedicated", "isolated", "mixed")
THREADS: Final = ("prefer", "isolate", "require")
_LIMIT: Final = 1 << 20
_DEEPEST: Final = 8


@dataclass(frozen=True, slots=True)
class PinWish:
    """Other pCPUs for a guest as a person writes them; an empty text leaves that as it is.

    ``pins`` is ``0=4 1=6`` (vCPU=pCPU), ``dedicated`` the vCPUs of a mixed guest that have pCPUs of their own, ``0-1``.
    """

    policy: str = ""
    pins: str = ""
    dedicated: str = ""
    threads: str = ""
    limit: str = ""


@dataclass(frozen=True, slots=True)
class PinRead:
    """A wish read: fields of ``cpus`` as in a site file, the same as flags, and what is wrong, by field."""

    cpus: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    faults: Mapping[str, str] = field(default_factory=dict)


def read_pins(wish: PinWish, domain: ObservedDomain) -> PinRead:
    """Return a wish for a guest, read, and judged by the model of site files with all that it leaves as it is."""
    cpus: dict[str, Any] = {}
    flags: list[str] = []
    faults: dict[str, str] = {}
    for name in ("policy", "dedicated", "threads"):
        text = getattr(wish, name).strip()
        if text:
            cpus[name] = text
            flags += [f"--{name}", text]
    for word in wish.pins.replace(",", " ").split():
        vcpu, sign, pcpu = word.partition("=")
        if not (sign and _is_number(vcpu) and _is_number(pcpu)):
            faults["pins"] = f"{word[:20]!r} is no vCPU and pCPU: write 0=4 1=6"
            break
        cpus.setdefault("pins", {})[int(vcpu)] = int(pcpu)
        flags += ["--vcpu", word]
    if wish.limit.strip():
        try:
            cpus["limit"] = float(wish.limit)
            flags += ["--limit", wish.limit.strip()]
        except ValueError:
            faults["limit"] = "a number of pCPUs is expected, as 1.5"
    return PinRead(cpus, tuple(flags), faults or _judged(cpus, domain))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 6


def _judged(cpus: Mapping[str, Any], domain: ObservedDomain) -> dict[str, str]:
    from pydantic import ValidationError

    from vmhost.model.spec import CpuSpec
    from vmhost.plan.resize import changed_cpus

    if not cpus:
        return {"policy": "nothing is to be changed yet"}
    try:
        CpuSpec.model_validate(changed_cpus(_cpus_of(domain) or CpuSpec(count=domain.facts.vcpus), cpus))
    except ValidationError as error:
        found: dict[str, str] = {}
        for item in error.errors():
            said = str(item["msg"]).removeprefix("Value error, ")
            place = str(item["loc"][0]) if item["loc"] else said.partition(":")[0].split()[0]
            found.setdefault(place if place in ("pins", "dedicated", "threads", "limit") else "policy", said)
        return found
    return {}


def site_files(config: Path) -> tuple[str, ...]:
    """Return site files that a person may mean: here, and in the directory of sites of the host's configuration."""
    places = (Path(), config / "sites", config)
    found: list[str] = []
    for place in places:
        try:
            found += [str(path) for path in sorted(place.glob("*.yaml"))[:50]]
        except OSError:
            continue
    # A name that nobody can print is no name to suggest: it would be drawn as it is.
    return tuple(path for path in dict.fromkeys(found) if Path(path).name != KEYS_FILE and path.isprintable())


def try_site(host: Host, file: str, *, network: bool) -> Plan:
    """Plan a site file, only to know whether it can be done; its secrets are not read."""
    from vmhost.model.permit import Permit
    from vmhost.ops.proposals import propose_site
    from vmhost.ops.sites import load_site

    site = load_site(file)
    proposal = host.plan_network(site) if network else propose_site(host.ports, site, Permit(), secrets=False)
    return proposal.plan


def room_for(host: Host, cpus: str, memory: str) -> Fit:
    """Return for how many guests of that size, written without faults, the ledger has room, and what is in the way."""
    (found,) = host.capacity(fits=(f"{int(cpus)}x{(bytes_of(memory) or 0) >> 10}K",)).fits
    return found


def outcome_of(plan: Callable[[], Plan | ServicePlan]) -> tuple[bool, str]:
    """Return whether a wish can be met here, and in a sentence how, or, a line for each reason, why not."""
    try:
        found = plan()
    except VmhostError as error:
        return False, str(error)
    if found.empty:
        return True, "there is nothing to do"
    count = len((*found.steps, *getattr(found, "after", ())))
    return True, f"it can be done: {count} step{'' if count == 1 else 's'}"


def policy_of(domain: ObservedDomain) -> tuple[str, str]:
    """Return a guest's policy as it was applied last, and which vCPUs of a mixed one have pCPUs of their own."""
    cpus = _cpus_of(domain)
    return ((cpus.policy or "shared"), cpus.dedicated or "") if cpus else ("shared", "")


def _cpus_of(domain: ObservedDomain) -> CpuSpec | None:
    from vmhost.plan.applied import applied_spec

    spec = applied_spec(domain)
    return spec.cpus if spec else None
