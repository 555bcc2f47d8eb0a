"""A proposal: a plan together with all that is needed to plan it again under the lock and to apply it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vmhost.drivers.directio import takes_direct
from vmhost.engine.observe import observe
from vmhost.model.errors import PermissionDenied, VmhostError
from vmhost.model.observed import Observed
from vmhost.model.permit import Permit
from vmhost.model.plan import Difference, Note, Plan
from vmhost.model.reservations import iso
from vmhost.model.spec import GuestSpec, Site
from vmhost.model.steps import CreateSeed
from vmhost.ops.build import user_name
from vmhost.ops.cloudinit import check_seeds
from vmhost.ops.definitions import check_definitions
from vmhost.ops.hostfile import host_spec, with_host
from vmhost.ops.permission import QEMU
from vmhost.ops.secrets import read_secrets
from vmhost.ops.templates import load_templates
from vmhost.plan.delete import plan_delete
from vmhost.plan.request import Drawn, Request
from vmhost.plan.site import drift, left_alone, plan_site
from vmhost.ports import KeyPair, Ports
from vmhost.render.seed import host_key_secret


@dataclass(frozen=True)
class Proposal:
    """What :meth:`vmhost.Host.plan` returns: print it, look at ``plan``, hand it to :meth:`vmhost.Host.apply`.

    ``again`` plans anew from a fresh observation with the same identities; ``secrets`` stays in this process;
    ``locks_host`` False: the plan touches single guests only, so that many such plans may run side by side; where it
    starts them, the host is locked while it is looked at. ``seen`` is the look that the plan was made from, which
    spares the next look what is as it was. ``share`` is how many bytes a second it copies, of the ``whole`` that
    everybody may copy together; 0: as many as it can. ``anew`` proposes again once that share is had, which may be
    hours later: that is what is done then. ``narrow`` stands for ``again``: it plans anew from a look of its own, at no
    more than the plan is made of.
    """

    operation: str
    plan: Plan
    again: Callable[[Observed], Plan] = field(repr=False)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    new_keys: Mapping[str, KeyPair] = field(default_factory=dict, repr=False)
    drift: Callable[[Observed], tuple[Difference, ...]] | None = field(default=None, repr=False)
    locks_host: bool = True
    seen: Observed | None = field(default=None, repr=False)
    share: int = 0
    whole: int = 0
    anew: Callable[[], Proposal] | None = field(default=None, repr=False)
    narrow: Callable[[], Plan] | None = field(default=None, repr=False)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return self.plan.empty

    def as_json(self) -> Any:
        """Return the plan as JSON values."""
        from vmhost.engine.record import plan_to_json

        return plan_to_json(self.plan)

    def __str__(self) -> str:
        return str(self.plan)


def propose_site(ports: Ports, site: Site, permit: Permit, *, secrets: bool = True, command: str = "") -> Proposal:
    """Observe the host and plan a site.

    :param secrets: False leaves the site's secrets unread; such a proposal is for looking only.
    :param command: what was typed, where that changes guests past the site's file.
    :raises Refused: it cannot be done here; :raises NotFound: an image, bridge or pool is missing.
    """
    site, observed = with_host(site, ports), observe(ports)
    request, keys, drawn_secrets = _request(ports, site, observed, permit)
    request = replace(request, command=command)
    with _half_made(ports):
        plan = plan_site(request)
    check_seeds(plan)
    plan = check_definitions(plan, observed.host)
    seeded = {item.subject for item in plan.steps if isinstance(item.do, CreateSeed)}
    found = {**drawn_secrets, **read_secrets(site, seeded)} if secrets else drawn_secrets
    return Proposal(
        operation=command or f"apply {site.name}",
        plan=plan,
        again=lambda fresh: plan_site(_seen(request, fresh)),
        secrets=found,
        new_keys=keys,
        drift=lambda fresh: drift(_seen(request, fresh)),
        seen=observed,
    )


@contextmanager
def _half_made(ports: Ports) -> Iterator[None]:
    """Say in a refusal how to settle what was interrupted: that may be what is in the way."""
    try:
        yield
    except VmhostError as error:
        with suppress(PermissionDenied):
            if ports.journals.any_open():
                error.hint = "vmhost recover"
        raise


def find_drift(ports: Ports, site: Site, on_note: Callable[[Note], None] | None = None) -> tuple[Difference, ...]:
    """Return where the host differs from the site, on the fields that vmhost owns.

    :param on_note: is told what is no difference, and yet to be known.
    """
    site, observed = with_host(site, ports), observe(ports)
    request, _, _ = _request(ports, site, observed, Permit())
    if on_note is not None:
        for note in left_alone(request):
            on_note(note)
    return drift(request)


def propose_delete(ports: Ports, names: Iterable[str], permit: Permit) -> Proposal:
    """Plan the removal of guests.

    :raises NotFound: no such guest; :raises Refused: foreign, protected or running without leave.
    """
    wanted = tuple(dict.fromkeys(names))
    layout, host, now = ports.layout, host_spec(ports), iso(ports.clock.now())
    places = {"disks_directory": str(layout.disks), "logs": str(layout.logs)}

    def again(fresh: Observed) -> Plan:
        return plan_delete(wanted, fresh, permit, **places, now=now, host=host)

    observed = observe(ports)
    return Proposal(f"delete {' '.join(wanted)}", again(observed), again, seen=observed)


def _request(
    ports: Ports, site: Site, observed: Observed, permit: Permit
) -> tuple[Request, dict[str, KeyPair], dict[str, str]]:
    drawn, secrets = _draw(ports, site, observed, permit)
    try:
        login = ports.keys.public(site.name)
    except PermissionDenied:
        login = None  # who may not read it may look only: a key that nobody will use stands in for it
    new = {} if login else {site.name: ports.entropy.keypair(f"vmhost:{site.name}")}
    request = Request(
        site=site,
        observed=observed,
        drawn=drawn,
        login_key=login or new[site.name].public,
        domain_templates=load_templates("domain_templates", ports.layout.config),
        seed_templates=load_templates("cloud-init", ports.layout.config),
        disks=str(ports.layout.disks),
        logs=str(ports.layout.logs),
        applied=iso(ports.clock.now()),
        user=user_name(),
        permit=permit,
        direct=_direct(ports, observed),
    )
    return request, new, secrets


def _direct(ports: Ports, observed: Observed) -> frozenset[str]:
    """Return the directories of disks, of pools that are and of the one that we make, where O_DIRECT works.

    QEMU opens a disk and the image below it alike, so none counts where the images' file system does not take it.
    """
    if observed.host.driver != QEMU or not observed.host.local or not takes_direct(ports.layout.images):
        return frozenset()
    places = {str(ports.layout.disks), *(pool.path for pool in observed.pools if pool.active and pool.path)}
    return frozenset(place for place in places if takes_direct(Path(place)))


def _seen(request: Request, observed: Observed) -> Request:
    return replace(request, observed=observed)


def _draw(ports: Ports, site: Site, observed: Observed, permit: Permit) -> tuple[dict[str, Drawn], dict[str, str]]:
    """Draw the identities of all guests that would be new; private halves are returned apart, as secrets."""
    drawn: dict[str, Drawn] = {}
    secrets: dict[str, str] = {}
    taken = {
        nic.ssh_port for domain in observed.domains if domain.metadata for nic in domain.metadata.identity.nics
    } | {0}
    for spec in site.guests:
        if spec.name not in permit.replace and not _lacks_nics(spec, observed):
            continue
        uuid = ports.entropy.uuid()
        pair = ports.entropy.keypair(spec.name)
        forwarded = _ports(ports, spec, site, taken)
        drawn[spec.name] = Drawn(uuid, pair.public, tuple(ports.entropy.mac() for _ in spec.nics), forwarded)
        secrets[host_key_secret(uuid)] = pair.private
    return drawn, secrets


def _lacks_nics(spec: GuestSpec, observed: Observed) -> bool:
    """Whether a guest is new, or gets NICs that it does not have yet, which need MACs and perhaps ports."""
    domain = observed.domain(spec.name)
    if domain is None:
        return True
    have = {nic.id for nic in domain.metadata.identity.nics} if domain.metadata else set()
    return any((nic.id or nic.network) not in have for nic in spec.nics)


def _ports(ports: Ports, spec: GuestSpec, site: Site, taken: set[int]) -> tuple[int, ...]:
    chosen = []
    for nic in spec.nics:
        if site.networks[nic.network].type != "user":
            chosen.append(0)
            continue
        port = ports.entropy.port(frozenset(taken))
        taken.add(port)
        chosen.append(port)
    return tuple(chosen)
