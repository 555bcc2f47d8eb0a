"""A guest looked at closely: which pCPUs it is held to, its definition against what was applied, cloud-init's log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmhost.model.errors import GuestError, NotFound, VmhostError
from vmhost.model.text import sanitize

if TYPE_CHECKING:
    from vmhost.model.domains import ObservedDomain
    from vmhost.model.observed import Observed
    from vmhost.ops.host import Host
    from vmhost.ports import Ports

CLOUD_INIT_LOG: Final = "/var/log/cloud-init-output.log"
_LINES: Final = 500
_PATIENCE: Final = 30.0


@dataclass(frozen=True, slots=True)
class Pins:
    """Where a guest may run: of each vCPU that is pinned its pCPUs, and those of the rest of QEMU, as ``0-3,8``."""

    vcpus: tuple[tuple[int, str], ...]
    emulator: str


@dataclass(frozen=True, slots=True)
class Definition:
    """A guest's definition as it boots next, beside the one that its last applied spec wants.

    ``wanted`` is None where there is nothing to hold it against; ``why`` says why.
    """

    now: str
    wanted: str | None
    why: str = ""


def pins_of(domain: ObservedDomain) -> Pins:
    """Return where a guest is held: as it runs, or, if it does not, as it would. :raises DamagedData: broken XML."""
    from vmhost.render.parse.tuning import parse_tuning

    tuning = parse_tuning(domain.raw.live_xml or domain.raw.xml)
    return Pins(tuning.pins, tuning.emulator)


def definition_of(host: Host, uuid: str) -> Definition:
    """Return a guest's definition beside the one that would mend what somebody changed past vmhost.

    :raises NotFound: there is no such guest.
    """
    observed = host.observe()
    domain = next((item for item in observed.domains if item.uuid == uuid), None)
    if domain is None:
        raise NotFound("there is no such guest", subject=uuid, hint="vmhost guest list")
    now = domain.raw.xml
    if domain.metadata is None:
        why = (
            "it is a drill, which goes by itself"
            if domain.drill
            else "it is foreign: vmhost never applied anything to it"
        )
        return Definition(now, None, why)
    try:
        return Definition(now, _wanted(host.ports, domain, observed))
    except VmhostError as error:
        return Definition(now, None, str(error))


def _wanted(ports: Ports, domain: ObservedDomain, observed: Observed) -> str:
    from vmhost.model.errors import Refused
    from vmhost.model.spec import Site
    from vmhost.ops.hostfile import host_spec
    from vmhost.ops.templates import load_templates
    from vmhost.plan.compare import Pair, compare
    from vmhost.plan.outside import STATE, applied_spec, networks_of
    from vmhost.plan.redefine import amended
    from vmhost.plan.storage import Pools
    from vmhost.plan.tuning import place_guests

    spec, metadata = applied_spec(domain), domain.metadata
    if spec is None or metadata is None:
        raise Refused("this vmhost cannot read what was applied to it", hint="vmhost --version")
    site = Site(name=metadata.site, networks=networks_of(domain))
    placing = place_guests([spec], observed, host_spec(ports))
    tuning = None if spec.name in placing.refusals else placing.tuning(spec.name)
    pools = Pools(site, observed, str(ports.layout.disks))
    pair = Pair(spec, metadata.identity, domain, site, observed, pools, tuning)
    deltas = [delta for delta in compare(pair) if delta.outside and delta.field != STATE]
    if not deltas:
        return domain.raw.xml
    return amended(pair, deltas, load_templates("domain_templates", ports.layout.config))


def cloud_init_log(host: Host, name: str) -> tuple[str, ...]:
    """Return the last lines of what cloud-init did inside a guest, over SSH, safe for a terminal.

    :raises Refused: it is foreign; :raises Unreachable: it does not run, or does not answer; :raises GuestError: it
        has no such log.
    """
    argv = ("tail", "-n", str(_LINES), CLOUD_INIT_LOG)
    found = host.exec([name], argv, timeout=_PATIENCE, sudo=True)[name]
    if isinstance(found, VmhostError):
        raise found
    if found.exit_code != 0:
        said = found.stderr.decode("utf-8", "replace").strip()
        hint = f"vmhost guest exec {name} -- cloud-init status --long"
        raise GuestError(sanitize(said) or f"tail ended with {found.exit_code}", subject=name, hint=hint)
    return tuple(sanitize(line) for line in found.stdout.decode("utf-8", "replace").splitlines())
