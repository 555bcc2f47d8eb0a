"""A guest that exists and should differ: which steps mend it, and what they mean while it runs."""

from __future__ import annotations

from dataclasses import replace

from vmhost.model.domains import DiskFacts
from vmhost.model.identity import GuestIdentity, GuestMetadata
from vmhost.model.plan import Change, Note, Planned
from vmhost.model.spec import DiskSpec, GuestSpec
from vmhost.model.steps import (
    DefineDomain,
    DiscardManagedSave,
    ResizeDisk,
    ResizeVolume,
    SetAutostart,
    SetMetadata,
    ShutDown,
    StartDomain,
)
from vmhost.model.units import format_size
from vmhost.plan.addresses import give_up_addresses
from vmhost.plan.compare import FIRST_BOOT, Delta, Pair, compare, first_file, wanted_file
from vmhost.plan.create import build_metadata, first_boot, fits, seed_step, volume_step, wait_step
from vmhost.plan.disklimits import set_disk_limits
from vmhost.plan.guards import set_guards, set_limits
from vmhost.plan.held import is_live, live_steps
from vmhost.plan.keptdisks import kept_disks
from vmhost.plan.overlays import live_disks, out_of_sight, overlay_notes, own_file
from vmhost.plan.plug import Plugging, plan_plugging
from vmhost.plan.redefine import amended
from vmhost.plan.request import Parts, Protected, Refusal, Refused, Request
from vmhost.plan.storage import disk_volume
from vmhost.plan.tuning import check_start, defined, live_tuning
from vmhost.plan.vlans import set_ports
from vmhost.render.document import same
from vmhost.render.metadata import metadata_xml
from vmhost.render.parse.domain import DISK_ALIAS
from vmhost.render.seed import SeedDocuments, render_seed, scrubbed

STOP_TIMEOUT = 180.0
NOTED = frozenset({"protect", "labels", "backup", "heartbeat", "ready", FIRST_BOOT})


def plan_change(pair: Pair, request: Request) -> Parts | list[Refusal]:
    """Return the steps that bring an existing guest to its spec, or every reason against it; replacing is another's
    work.
    """
    deltas = compare(pair)
    refusals = [*_against(pair, deltas, request), *_shrinks(pair, deltas), *_astray(pair)]
    refusals += kept_disks(pair, deltas)
    refusals += fits(pair.spec, request)
    if refusals:
        return refusals
    boot = [delta for delta in deltas if delta.change is Change.NEXT_BOOT]
    both = [*boot, *(delta for delta in deltas if is_live(delta.field) and delta not in boot)]
    definition = amended(pair, both, request.domain_templates) if boot else pair.domain.raw.xml
    plugging = plan_plugging(pair, deltas, definition)
    waits = [delta for delta in boot if delta.field not in plugging.fields]
    restart = bool(waits) and pair.domain.active and request.permit.stop and pair.spec.state == "running"
    stops = (restart or pair.spec.state == "stopped") and not pair.overwrite
    if stops and (lost := list(out_of_sight(pair.domain, pair.pools.backing))):
        return lost
    if restart:
        plugging = Plugging()
    steps = [
        *_discard(pair, boot),
        *_new_disks(pair, boot),
        *_seed_again(pair, deltas, request),
        *_redefine(pair, boot, definition, waits=bool(waits), restart=restart),
        *_at_once(pair, deltas, boot, request, restart=restart),
        *_autostart(pair, deltas),
        *_metadata(pair, deltas, request),
        *give_up_addresses(pair.domain, request.applied, pair.identity.nics),
        *set_disk_limits(pair.spec, pair.domain),
        *set_limits(pair.spec.name, pair.identity, pair.domain),
        *([] if restart else set_guards(pair.spec.name, pair.identity, pair.domain, pair.observed)),
        *plugging.before,
        *([] if restart else set_ports(pair.spec.name, pair.identity, pair.domain, pair.observed)),
        *_power(pair, restart=restart, discarded=bool(boot)),
    ]
    steps += _checked(pair, steps)
    started = any(isinstance(item.do, StartDomain) for item in steps)
    after = [*plugging.after, *_grow(pair, deltas), *_ready(pair, request, started=started)]
    return Parts(tuple(steps), tuple(after), tuple(_notes(pair, deltas, waits, restart=restart)))


def _against(pair: Pair, deltas: list[Delta], request: Request) -> list[Refusal]:
    name = pair.spec.name
    metadata = pair.domain.metadata
    refusals = []
    for delta in deltas:
        if delta.change is Change.REPLACE:
            text = f"{delta.field} is {delta.have}, should be {delta.want}: that needs the guest to be replaced"
            refusals.append(Refusal(name, text, f"add --allow-replace {name} (its disks are deleted)", Refused))
    if any(delta.change is Change.NEEDS_STOP for delta in deltas) and not request.permit.stop:
        refusals.append(Refusal(name, "it runs and should be stopped", "add --allow-stop", Refused))
    moved = bool(deltas) or pair.applied != pair.spec
    if metadata and metadata.command and moved and name not in request.permit.overwrite:
        cause = f"changed by command '{metadata.command}' on {metadata.applied} by {metadata.user}"
        text = f"{cause}; the site file says otherwise"
        refusals.append(Refusal(name, text, f"add --overwrite {name}, or change the site file"))
    boot = any(delta.change is Change.NEXT_BOOT for delta in deltas)
    if boot and pair.domain.raw.managed_save and not request.permit.discard_saved:
        text = "its memory is saved: the next start would run the old definition"
        refusals.append(Refusal(name, text, f"vmhost guest start {name}, or add --discard-saved", Refused))
    elif boot and pair.domain.raw.managed_save and metadata and metadata.protect:
        text = "it is protected, and its memory is saved: the new definition needs that memory to be discarded"
        refusals.append(Refusal(name, text, f"vmhost guest start {name}", Protected))
    return refusals


def _shrinks(pair: Pair, deltas: list[Delta]) -> list[Refusal]:
    refusals = []
    for disk in pair.spec.disks:
        for delta in deltas:
            if delta.field == f"disks.{disk.id}.size" and disk.size < _capacity(pair, disk):
                text = f"disk {disk.id} is {delta.have}, should be {delta.want}: disks only grow"
                refusals.append(Refusal(pair.spec.name, text, f"write size: {delta.have} in the site", Refused))
    return refusals


def _astray(pair: Pair) -> list[Refusal]:
    """Return why disks that the guest has cannot be had as they are written: another pool, or no volume any more."""
    name = pair.spec.name
    refusals = []
    for disk in pair.spec.disks:
        found = _found(pair, disk)
        if found is None:
            continue
        pool, first, have = pair.pools.pool_of(disk), first_file(pair, disk), found.source
        own = own_file(found, first, pair.pools.backing)
        if (own or first) in pair.pools.sizes:
            if not own and _carried_off(pair, disk, first):
                text = f"disk {disk.id} is {have}, should be {first}; what it holds now would be left behind"
                refusals.append(Refusal(name, text, f"add --overwrite {name}"))
            continue
        if own:
            text, hint = f"the volume of disk {disk.id} is gone: {own}", f"virsh vol-list {pool}"
        else:
            lies = next(
                (volume.pool for one in pair.observed.pools for volume in one.volumes if volume.path == have), ""
            )
            text = f"disk {disk.id} is {have}, not in pool {pool}; vmhost does not move disks"
            hint = f"write pool: {lies} in the site" if lies else f"virsh domblklist {name}"
        refusals.append(Refusal(name, text, hint))
    return refusals


def _found(pair: Pair, disk: DiskSpec) -> DiskFacts | None:
    return next((one for one in pair.domain.facts.disks if one.alias == f"{DISK_ALIAS}{disk.id}"), None)


def _carried_off(pair: Pair, disk: DiskSpec, first: str) -> bool:
    """Whether somebody else gave a disk another file: neither the site did, nor does the guest still run in its own."""
    was = next((one for one in pair.applied.disks if one.id == disk.id), None) if pair.applied else None
    live = live_disks(pair.domain).get(f"{DISK_ALIAS}{disk.id}")
    return not (pair.overwrite or (was and was.pool != disk.pool) or (live and live.source == first))


def _capacity(pair: Pair, disk: DiskSpec) -> int:
    return pair.pools.sizes.get(wanted_file(pair, disk, _found(pair, disk)), 0)


def _discard(pair: Pair, boot: list[Delta]) -> list[Planned]:
    if not (boot and pair.domain.raw.managed_save):
        return []
    uuid, name = pair.identity.uuid, pair.spec.name
    why = f"{name}: discard its saved memory, as a power cut would"
    return [Planned(DiscardManagedSave(uuid, name), None, Change.NEEDS_STOP, name, why)]


def _new_disks(pair: Pair, boot: list[Delta]) -> list[Planned]:
    """Return the steps that make the volumes of new disks; one that is still there from before is attached again."""
    fields = {delta.field for delta in boot if not delta.have}
    if not fields:
        return []
    there = {(pool.name, volume.name) for pool in pair.observed.pools for volume in pool.volumes}
    return [
        volume_step(pair.spec.name, pair.identity.uuid, number, pair.spec, None, pair.pools)
        for number, disk in enumerate(pair.spec.disks)
        if f"disks.{disk.id}" in fields
        and (pair.pools.pool_of(disk), disk_volume(pair.identity.uuid, disk)) not in there
    ]


def _seed_again(pair: Pair, deltas: list[Delta], request: Request) -> list[Planned]:
    """Return the step that makes a lost seed anew: without secrets, once the guest's first boot has read them."""
    if not any(delta.field == "seed" for delta in deltas):
        return []
    seed = _seed(pair.spec, pair, request)
    metadata = pair.domain.metadata
    pending = metadata is not None and metadata.pending
    return [seed_step(pair.spec.name, pair.identity, seed if pending else scrubbed(seed), pair.pools)]


def _redefine(pair: Pair, boot: list[Delta], definition: str, *, waits: bool, restart: bool) -> list[Planned]:
    if not boot:
        return []
    uuid, name, old = pair.identity.uuid, pair.spec.name, pair.domain.raw.xml
    change = Change.NEEDS_STOP if restart else Change.NEXT_BOOT if waits and pair.domain.active else Change.LIVE
    text = ", ".join(_sentence(delta) for delta in boot)
    do, undo = DefineDomain(uuid, name, definition), DefineDomain(uuid, name, old)
    return [Planned(do, undo, change, name, f"{name}: {text}")]


def _at_once(pair: Pair, deltas: list[Delta], boot: list[Delta], request: Request, *, restart: bool) -> list[Planned]:
    """Return the steps for what changes while it runs: in its definition, unless that changes anyway, and now."""
    live = [delta for delta in deltas if is_live(delta.field) and delta.change is Change.LIVE]
    if not live:
        return []
    uuid, name, old = pair.identity.uuid, pair.spec.name, pair.domain.raw.xml
    why = ", ".join(f"{delta.field} {delta.have or 'none'} -> {delta.want or 'none'}" for delta in live)
    steps = []
    xml = amended(pair, live, request.domain_templates)
    if not boot and not same(xml, old):
        do, undo = DefineDomain(uuid, name, xml), DefineDomain(uuid, name, old)
        steps.append(Planned(do, undo, Change.LIVE, name, f"{name}: {why}"))
    if pair.domain.active and not restart and pair.spec.state == "running":
        text = "the same at once" if steps else f"{why}, at once"
        tuning = pair.tuning if pair.tuning is not None else live_tuning(pair.domain)
        steps += live_steps(pair.domain, pair.spec.cpus, pair.spec.memory, tuning, text, pair.observed)
    return steps


def _checked(pair: Pair, steps: list[Planned]) -> list[Planned]:
    """Return the step that looks whether the guest is held as it should, if it is started."""
    if pair.tuning is None or not any(isinstance(item.do, StartDomain) for item in steps):
        return []
    return list(check_start(pair.identity.uuid, pair.spec.name, defined(pair.tuning, pair.spec.cpus), pair.observed))


def _sentence(delta: Delta) -> str:
    kind, _, device = delta.field.partition(".")
    what = {"disks": "disk", "nics": "NIC"}.get(kind)
    if what and not delta.have:
        return f"attach {what} {device} ({delta.want})"
    if what and not delta.want:
        return f"detach {what} {device}"
    return f"{delta.field} {delta.have or 'none'} -> {delta.want or 'none'}"


def _autostart(pair: Pair, deltas: list[Delta]) -> list[Planned]:
    if not any(delta.field == "autostart" for delta in deltas):
        return []
    uuid, name, on = pair.identity.uuid, pair.spec.name, pair.spec.autostart
    why = f"{name}: {'starts' if on else 'no longer starts'} with the host"
    return [Planned(SetAutostart(uuid, name, on), SetAutostart(uuid, name, not on), Change.LIVE, name, why)]


def _metadata(pair: Pair, deltas: list[Delta], request: Request) -> list[Planned]:
    old = pair.domain.metadata
    if old is None:
        return []
    new = build_metadata(pair.spec, pair.identity, request, pair.pools, pending=old.pending)
    volumes = tuple(dict.fromkeys((*new.volumes, *old.volumes)))
    new = replace(new, volumes=volumes, owner=old.owner, services=old.services)
    if _same(pair, new, old):
        return []
    noted = [delta for delta in deltas if delta.field.partition(".")[0] in NOTED]
    changed = ", ".join(f"{item.field} {item.have or 'nothing'} -> {item.want or 'nothing'}" for item in noted)
    text = f"note {changed}" if changed else "note what was applied"
    uuid, name = pair.identity.uuid, pair.spec.name
    do, undo = SetMetadata(uuid, name, metadata_xml(new)), SetMetadata(uuid, name, metadata_xml(old))
    return [Planned(do, undo, Change.LIVE, name, f"{name}: {text}")]


def _same(pair: Pair, new: GuestMetadata, old: GuestMetadata) -> bool:
    """Whether nothing but the time of the last apply and its user would change."""
    if pair.applied != pair.spec:
        return False
    return (
        replace(new, applied=old.applied, user=old.user, spec=old.spec, command=old.command) == old and not old.command
    )


def _power(pair: Pair, *, restart: bool, discarded: bool) -> list[Planned]:
    uuid, name, spec = pair.identity.uuid, pair.spec.name, pair.spec
    start, stop = StartDomain(uuid, name), ShutDown(uuid, name, STOP_TIMEOUT)
    if restart:
        return [
            Planned(stop, start, Change.NEEDS_STOP, name, f"{name}: shut down"),
            Planned(start, stop, Change.NEEDS_STOP, name, f"{name}: start with the new definition"),
        ]
    if spec.state == "running" and not pair.domain.active:
        saved = pair.domain.raw.managed_save and not discarded
        text = "start from its saved memory" if saved else "start"
        return [Planned(start, stop, Change.LIVE, name, f"{name}: {text}")]
    if spec.state == "stopped" and pair.domain.active:
        return [Planned(stop, start, Change.NEEDS_STOP, name, f"{name}: shut down")]
    return []


def _grow(pair: Pair, deltas: list[Delta]) -> list[Planned]:
    """Return the steps that grow disks: after the commit point, since a disk that grew cannot be made smaller again.

    By then the guest is in the state that the spec wishes.
    """
    fields = {delta.field: delta for delta in deltas if delta.field.startswith("disks.")}
    uuid, name = pair.identity.uuid, pair.spec.name
    places = {one.path: (one.pool, one.name) for pool in pair.observed.pools for one in pool.volumes} if fields else {}
    steps = []
    for disk in pair.spec.disks:
        delta = fields.get(f"disks.{disk.id}.size")
        if delta is None:
            continue
        why = f"{name}: grow disk {disk.id} from {delta.have} to {format_size(disk.size)}"
        path = wanted_file(pair, disk, _found(pair, disk))
        do = (
            ResizeDisk(uuid, path, disk.size)
            if pair.spec.state == "running"
            else ResizeVolume(*places[path], disk.size)
        )
        steps.append(Planned(do, None, Change.LIVE, name, why))
    return steps


def _ready(pair: Pair, request: Request, *, started: bool) -> list[Planned]:
    """Return what follows a start; a guest whose first boot was never seen to end well is awaited again."""
    spec, metadata = pair.spec, pair.domain.metadata
    if spec.state != "running":
        return []
    known = _known(pair)
    if spec.ready.by == "ssh" and not any(nic.address or nic.ssh_port for nic in known.nics):
        spec = spec.model_copy(update={"ready": spec.ready.model_copy(update={"by": "agent"})})
    if metadata and metadata.pending:
        pending = _pending(pair, request)
        return first_boot(spec, pending, _seed(pair.spec, pair, request), request, pair.pools, known=known)
    if not started or spec.ready.by == "none":
        return []
    return [wait_step(spec, known, request)]


def _known(pair: Pair) -> GuestIdentity:
    """Return the guest with those NICs only that its system knows: cloud-init sets them up at the first boot."""
    old = {nic.id for nic in pair.domain.metadata.identity.nics} if pair.domain.metadata else set()
    return replace(pair.identity, nics=tuple(nic for nic in pair.identity.nics if nic.id in old))


def _pending(pair: Pair, request: Request) -> GuestMetadata:
    old = pair.domain.metadata
    made = build_metadata(pair.spec, pair.identity, request, pair.pools, pending=True)
    return replace(made, services=old.services if old else ())


def _seed(spec: GuestSpec, pair: Pair, request: Request) -> SeedDocuments:
    return render_seed(
        spec, pair.identity, pair.site.networks, login_key=request.login_key, templates=request.seed_templates
    )


def _notes(pair: Pair, deltas: list[Delta], waits: list[Delta], *, restart: bool) -> list[Note]:
    name = pair.spec.name
    notes = []
    if any(delta.field.startswith(FIRST_BOOT) for delta in deltas):
        text = f"cloud-init acts at the first boot only; --allow-replace {name} makes the guest anew"
        notes.append(Note(name, text))
    if waits and pair.domain.active and pair.spec.state == "running" and not restart:
        notes.append(Note(name, "it runs on with the old definition until its next boot; --allow-stop restarts it now"))
    moved = {delta.field for delta in deltas}
    stay = {str(disk.id): first_file(pair, disk) for disk in pair.spec.disks if f"disks.{disk.id}.source" not in moved}
    notes += overlay_notes(pair.domain, stay, pair.pools.backing)
    for delta in deltas:
        kind, _, device = delta.field.partition(".")
        if delta.change is not Change.NEXT_BOOT:
            continue
        if pair.overwrite and kind == "disks" and device.endswith(".source"):
            notes.append(Note(name, f"{delta.have} stays, and what was written to it since is not in {delta.want}"))
        if kind == "nics" and not delta.have and not delta.outside:
            text = "cloud-init set up its network at the first boot only"
            notes.append(Note(name, f"{text}: set up NIC {device} inside the guest"))
        if kind == "disks" and not delta.want:
            notes.append(Note(name, f"the volume of disk {device} stays with the guest"))
    return notes
