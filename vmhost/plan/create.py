"""A new guest: its identity, its volumes, its seed, its domain, its first boot."""

from __future__ import annotations

from dataclasses import replace

from vmhost.model.identity import METADATA_VERSION, GuestIdentity, GuestMetadata, NicIdentity, console_log, tap_name
from vmhost.model.image import ImageRecord
from vmhost.model.observed import ObservedDomain
from vmhost.model.plan import Change, Planned
from vmhost.model.spec import GuestSpec
from vmhost.model.steps import (
    AwaitGuest,
    CreateSeed,
    CreateVolume,
    DefineDomain,
    DeleteVolume,
    PowerOff,
    ScrubSeed,
    SetAutostart,
    SetMetadata,
    StartDomain,
    UndefineDomain,
)
from vmhost.model.tuning import FREE, Tuning
from vmhost.model.units import format_size
from vmhost.plan.addresses import AddressBook, give_up_addresses
from vmhost.plan.disklimits import limits_of
from vmhost.plan.guards import guarded
from vmhost.plan.reach import with_reach
from vmhost.plan.request import NoCapacity, Parts, Refusal, Request
from vmhost.plan.storage import Pools, check_image, disk_volume, seed_volume
from vmhost.plan.tuning import check_start
from vmhost.plan.vlans import in_vlans
from vmhost.render.domain import DiskPath, DomainContext, render_domain
from vmhost.render.metadata import metadata_xml
from vmhost.render.seed import SeedDocuments, render_seed, scrubbed


def plan_create(
    spec: GuestSpec,
    request: Request,
    book: AddressBook,
    pools: Pools,
    *,
    tuning: Tuning = FREE,
    old: ObservedDomain | None = None,
) -> Parts | list[Refusal]:
    """Return the steps that make a guest, before and after the commit point, or every reason against it.

    ``old`` is the guest that it takes the place of: it keeps its addresses, and lets those rest that it does not keep.
    """
    held = old.metadata.identity if old and old.metadata else None
    identity = settle_identity(spec, request, book, None, held=held)
    image, refusals = check_image(spec, request.observed)
    refusals += [item for item in (pools.check(spec.name, pools.pool_of(disk)) for disk in (*spec.disks, None)) if item]
    refusals += fits(spec, request)
    if isinstance(identity, list) or image is None or refusals:
        return refusals + (identity if isinstance(identity, list) else [])
    parts = _parts(spec, identity, image, request, pools, tuning)
    given_up = give_up_addresses(old, request.applied, identity.nics) if old else ()
    return replace(parts, steps=(*parts.steps, *given_up))


def settle_identity(
    spec: GuestSpec,
    request: Request,
    book: AddressBook,
    old: GuestIdentity | None,
    *,
    held: GuestIdentity | None = None,
) -> GuestIdentity | list[Refusal]:
    """Return who the guest is: what it was, where it was; what chance has drawn, where it is new.

    NICs that it has already come first: its own system knows them since its first boot, so it is reached there.
    """
    drawn = request.drawn.get(spec.name)
    kept = {nic.id: nic for nic in old.nics} if old else {}
    uuid = old.uuid if old else drawn.uuid if drawn else ""
    taps = {int(nic.tap.rpartition("-")[2]) for nic in kept.values() if nic.tap}
    nics: list[NicIdentity] = []
    refusals: list[Refusal] = []
    for index, nic in enumerate(spec.nics):
        nic_id = nic.id or nic.network
        before = kept.get(nic_id)
        mac = nic.mac or (before.mac if before else drawn.macs[index] if drawn else "")
        holder = book.mac_holder(mac, spec.name)
        if holder:
            refusals.append(Refusal(spec.name, f"MAC {mac} is taken by {holder}", "vmhost guest list -o json"))
        address = book.settle(spec.name, nic, old or held)
        if isinstance(address, Refusal):
            refusals.append(address)
            continue
        network = request.site.networks[nic.network]
        if network.type == "user":
            port = before.ssh_port if before else drawn.ssh_ports[index] if drawn else 0
            if taker := book.port_holder(port, spec.name):
                text = f"port {port} of the host was taken meanwhile by {taker}"
                refusals.append(Refusal(spec.name, text, "vmhost plan SITE"))
            nics.append(NicIdentity(nic_id, nic.network, mac, "", "", port))
        else:
            tap = before.tap if before else tap_name(uuid, _take_index(index, taps))
            made = NicIdentity(nic_id, nic.network, mac, tap, address)
            nics.append(guarded(with_reach(in_vlans(made, nic, network), network), nic, network))
    if refusals:
        return refusals
    if old:
        order = list(kept)
        nics.sort(key=lambda nic: order.index(nic.id) if nic.id in kept else len(order))
        return replace(old, name=spec.name, nics=tuple(nics))
    if drawn is None:
        return [Refusal(spec.name, "it is gone since the plan was shown; nothing was done", "vmhost plan SITE")]
    return GuestIdentity(drawn.uuid, spec.name, drawn.uuid, drawn.host_key, tuple(nics))


def _take_index(index: int, taken: set[int]) -> int:
    """Return a tap index that no NIC of the guest has or had, so that a new NIC never inherits a tap, and take it."""
    found = index if index not in taken else max(taken) + 1
    taken.add(found)
    return found


def fits(spec: GuestSpec, request: Request) -> list[Refusal]:
    """Return why the host has not enough memory for a guest, if so."""
    host = request.observed.host
    reserve = request.site.host.reserve_memory or 0
    if spec.memory.size + reserve > host.memory:
        have = format_size(host.memory)
        kept = f" and {format_size(reserve)} in reserve" if reserve else ""
        text = f"{format_size(spec.memory.size)} of memory{kept} are more than the host's {have}"
        return [Refusal(spec.name, text, "vmhost host show", NoCapacity)]
    return []


def build_metadata(
    spec: GuestSpec, identity: GuestIdentity, request: Request, pools: Pools, *, pending: bool
) -> GuestMetadata:
    """Return our metadata element for a guest as it will be after this plan."""
    volumes = tuple(f"{pools.pool_of(disk)}/{disk_volume(identity.uuid, disk)}" for disk in spec.disks)
    return GuestMetadata(
        version=METADATA_VERSION,
        site=request.site.name,
        owner=request.user,
        applied=request.applied,
        identity=identity,
        spec=spec.model_dump_json(exclude_none=True),
        volumes=(*volumes, f"{pools.pool_of()}/{seed_volume(identity.uuid)}"),
        user=request.user,
        protect=spec.protect,
        pending=pending,
        command=request.command,
    )


def _parts(
    spec: GuestSpec, identity: GuestIdentity, image: ImageRecord, request: Request, pools: Pools, tuning: Tuning
) -> Parts:
    metadata = build_metadata(spec, identity, request, pools, pending=awaits_verdict(spec))
    seed = render_seed(
        spec, identity, request.site.networks, login_key=request.login_key, templates=request.seed_templates
    )
    steps = _volumes(spec, identity, image, pools)
    steps.append(seed_step(spec.name, identity, seed, pools))
    context = DomainContext(
        host=request.observed.host,
        networks=request.site.networks,
        disks=tuple(
            DiskPath(
                disk.id or "root",
                pools.path(pools.pool_of(disk), disk_volume(identity.uuid, disk)),
                direct=pools.direct(pools.pool_of(disk)),
                limits=limits_of(disk),
            )
            for disk in spec.disks
        ),
        seed=pools.path(pools.pool_of(), seed_volume(identity.uuid)),
        serial_log=serial_log(request, identity.uuid),
        metadata=metadata,
        tuning=tuning,
    )
    xml = render_domain(spec, identity, context, request.domain_templates)
    steps.append(_define(spec, identity, xml))
    steps += start_steps(spec, identity)
    if spec.state == "running":
        steps += check_start(identity.uuid, spec.name, tuning, request.observed)
    return Parts(tuple(steps), tuple(first_boot(spec, metadata, seed, request, pools)))


def _volumes(spec: GuestSpec, identity: GuestIdentity, image: ImageRecord, pools: Pools) -> list[Planned]:
    return [volume_step(spec.name, identity.uuid, number, spec, image, pools) for number in range(len(spec.disks))]


def volume_step(
    guest: str, uuid: str, number: int, spec: GuestSpec, image: ImageRecord | None, pools: Pools
) -> Planned:
    """Return the step that makes disk ``number``; with an image it lies on it."""
    disk = spec.disks[number]
    pool, name = pools.pool_of(disk), disk_volume(uuid, disk)
    base = image if number == 0 else None
    on = f" on image {base.name}" if base else ""
    return Planned(
        CreateVolume(pool, name, disk.size, str(base.path) if base else "", base.format if base else ""),
        DeleteVolume(pool, name),
        Change.LIVE,
        guest,
        f"{guest}: disk {disk.id} of {format_size(disk.size)}{on} in pool {pool}",
    )


def seed_step(guest: str, identity: GuestIdentity, seed: SeedDocuments, pools: Pools) -> Planned:
    """Return the step that makes a guest's seed."""
    pool, name = pools.pool_of(), seed_volume(identity.uuid)
    return Planned(
        CreateSeed(pool, name, seed.meta_data, seed.user_data, seed.network_config, seed.extra_user_data),
        DeleteVolume(pool, name),
        Change.LIVE,
        guest,
        f"{guest}: cloud-init seed in pool {pool}",
    )


def _define(spec: GuestSpec, identity: GuestIdentity, xml: str) -> Planned:
    cpus, memory = spec.cpus.count, format_size(spec.memory.size)
    nics = ", ".join(f"{nic.network} {nic.address}".strip() for nic in identity.nics) or "no network"
    return Planned(
        DefineDomain(identity.uuid, spec.name, xml),
        UndefineDomain(identity.uuid, spec.name),
        Change.LIVE,
        spec.name,
        f"{spec.name}: new guest with {cpus} vCPU{'' if cpus == 1 else 's'}, {memory}, {nics}",
    )


def start_steps(spec: GuestSpec, identity: GuestIdentity) -> list[Planned]:
    """Return the steps that set autostart and start the guest, as the spec wishes."""
    uuid, name = identity.uuid, spec.name
    steps = []
    if spec.autostart:
        steps.append(
            Planned(
                SetAutostart(uuid, name, True),
                SetAutostart(uuid, name, False),
                Change.LIVE,
                name,
                f"{name}: starts with the host",
            )
        )
    if spec.state == "running":
        steps.append(Planned(StartDomain(uuid, name), PowerOff(uuid, name), Change.LIVE, name, f"{name}: start"))
    return steps


def first_boot(
    spec: GuestSpec,
    metadata: GuestMetadata,
    seed: SeedDocuments,
    request: Request,
    pools: Pools,
    *,
    known: GuestIdentity | None = None,
) -> list[Planned]:
    """Return what follows the first start: wait, take the secrets out of the seed, mark the guest as ready.

    ``known`` is the guest with those NICs only that its seed sets up; all of them, if it is None.

    The seed is left alone where cloud-init's verdict is not awaited: it may not have been read yet.
    """
    if spec.state != "running" or spec.ready.by == "none":
        return []
    identity, name = metadata.identity, spec.name
    wait = wait_step(spec, known or identity, request)
    if not spec.ready.cloud_init:
        return [wait]
    clean = scrubbed(seed)
    ready = replace(metadata, pending=False)
    return [
        wait,
        Planned(
            ScrubSeed(
                pools.pool_of(),
                seed_volume(identity.uuid),
                clean.meta_data,
                clean.user_data,
                clean.network_config,
                clean.extra_user_data,
            ),
            None,
            Change.LIVE,
            name,
            f"{name}: take the secrets out of its seed",
        ),
        Planned(
            SetMetadata(identity.uuid, name, metadata_xml(ready)),
            None,
            Change.LIVE,
            name,
            f"{name}: note that it is ready",
        ),
    ]


def wait_step(spec: GuestSpec, identity: GuestIdentity, request: Request) -> Planned:
    """Return the step that waits for a guest after a start."""
    who = "SSH" if spec.ready.by == "ssh" else "its agent"
    why = f"{spec.name}: wait for {who}{' and cloud-init' if spec.ready.cloud_init else ''}"
    return Planned(await_step(spec, identity, request), None, Change.LIVE, spec.name, why)


def awaits_verdict(spec: GuestSpec) -> bool:
    """Whether the guest's first boot is watched to its end, so that its seed can be emptied afterwards."""
    return spec.ready.by != "none" and spec.ready.cloud_init


def await_step(spec: GuestSpec, identity: GuestIdentity, request: Request) -> AwaitGuest:
    """Return the step that waits for a guest."""
    return AwaitGuest(
        identity=identity,
        by=spec.ready.by,
        cloud_init=spec.ready.cloud_init,
        timeout=spec.ready.timeout,
        user=spec.cloud_init.user,
        site=request.site.name,
        serial_log=serial_log(request, identity.uuid),
    )


def serial_log(request: Request, uuid: str) -> str:
    """Return where the guest's serial console is logged."""
    return console_log(request.logs, uuid)
