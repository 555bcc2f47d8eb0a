"""A point as a guest of its own: planned as any new guest is, with the disks of the point in place of empty ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from vmhost.model.backupsteps import RestoreDisk
from vmhost.model.errors import Conflict, DamagedData, UsageError
from vmhost.model.permit import Permit
from vmhost.model.spec import GuestSpec, Site
from vmhost.model.spec.cloudinit import CloudInitSpec
from vmhost.model.spec.guest import NO_ADDRESS, DiskSpec, NicSpec
from vmhost.model.spec.network import NetworkSpec
from vmhost.model.steps import CreateVolume, DefineDomain
from vmhost.model.units import check_name
from vmhost.ops.proposals import Proposal, propose_site
from vmhost.ops.room import refuse_too_large
from vmhost.render.parse.domain import DISK_ALIAS, parse_domain

if TYPE_CHECKING:
    from vmhost.model.observed import Observed
    from vmhost.model.plan import Plan, Planned
    from vmhost.model.points import Point
    from vmhost.ports import Ports

NEW_MACHINE: Final = (
    "sh",
    "-c",
    (
        "rm -f /etc/machine-id /var/lib/dbus/machine-id; "
        "if command -v systemd-machine-id-setup >/dev/null; then systemd-machine-id-setup; fi"
    ),
)
"""What a copy does at its first boot beside what cloud-init does for every new instance: host keys, name, addresses."""


def propose_as(ports: Ports, point: Point, name: str, site: Site | None) -> Proposal:
    """Plan a new guest from a point: other UUID, MACs, addresses, instance-id, host key, machine-id and name.

    It is a site of its own, and nothing of its seed comes from the point: what cloud-init once installed and wrote is
    on the disks.

    :param site: whose networks its NICs are on; None: it may have NICs on QEMU's user network only.
    :raises UsageError: the name is none, or networks are missing; :raises Conflict: it is taken; :raises DamagedData:
        the point does not hold what the guest was.
    """
    try:
        check_name(name)
    except ValueError as error:
        raise UsageError(str(error), subject="--as", hint=f"--as {point.name}-copy") from error
    spec = _spec(point, ports.repositories.read(point.ref, "spec.json"), name)
    proposal = propose_site(ports, Site(name=name, networks=_networks(spec, site), guests=(spec,)), Permit())

    def again(fresh: Observed) -> Plan:
        _refuse_taken(name, fresh)
        return _with_disks(proposal.again(fresh), point)

    if proposal.seen is not None:
        _refuse_taken(name, proposal.seen)
    plan = _with_disks(proposal.plan, point)
    refuse_too_large(ports, plan)
    return replace(proposal, operation=f"restore {point.name} as {name}", plan=plan, again=again)


def _refuse_taken(name: str, observed: Observed) -> None:
    if observed.domain(name) is not None:
        raise Conflict("there is a guest of that name", subject=name, hint=f"vmhost guest show {name}")


def _spec(point: Point, text: str, name: str) -> GuestSpec:
    """Return what the new guest should be. :raises DamagedData: the point says nothing that can be used."""
    try:
        old = GuestSpec.model_validate_json(text)
    except ValidationError as error:
        text = f"does not say what the guest was: {error.errors()[0]['msg']}"
        raise DamagedData(text, subject=point.id, hint=f"vmhost backup verify {point.name}") from error
    sizes = {disk.id: disk.capacity for disk in point.disks}
    if {disk.id or "root" for disk in old.disks} != sizes.keys():
        text = f"holds disks {', '.join(sorted(sizes))}, and the guest was said to have others"
        raise DamagedData(text, subject=point.id, hint=f"vmhost backup list {point.name}")
    mind = old.cloud_init
    return old.model_copy(
        update={
            "name": name,
            "protect": False,
            "autostart": False,
            "disks": tuple(DiskSpec(id=d.id, size=sizes[d.id or "root"], pool=d.pool) for d in old.disks),
            "nics": tuple(_nic(nic) for nic in old.nics),
            "cloud_init": CloudInitSpec(
                user=mind.user, ssh_keys=mind.ssh_keys, timezone=mind.timezone, commands=(NEW_MACHINE,)
            ),
        }
    )


def _nic(nic: NicSpec) -> NicSpec:
    """Return a NIC without what is another guest's: its MAC and its address."""
    address = nic.address if nic.address in NO_ADDRESS else "auto"
    return nic.model_copy(update={"mac": None, "address": address})


def _networks(spec: GuestSpec, site: Site | None) -> Mapping[str, NetworkSpec]:
    wanted = {nic.network for nic in spec.nics}
    if site is not None:
        if missing := wanted - site.networks.keys():
            text = f"the site has no network {min(missing)}, which the guest was on"
            raise UsageError(text, subject=spec.name, hint="add --site FILE")
        return {name: site.networks[name] for name in sorted(wanted)}
    if wanted:
        text = f"it was on {', '.join(sorted(wanted))}: a site file has to say what these are now"
        raise UsageError(text, subject=spec.name, hint="add --site FILE")
    return {}


def _with_disks(plan: Plan, point: Point) -> Plan:
    """Let the disks of a new guest come from a point."""
    paths = {
        disk.source.rpartition("/")[2]: (disk.source, disk.alias.removeprefix(DISK_ALIAS))
        for item in plan.steps
        if isinstance(item.do, DefineDomain)
        for disk in parse_domain(item.do.xml).disks
        if disk.alias.startswith(DISK_ALIAS)
    }
    return replace(plan, steps=tuple(_from_point(item, paths, point) for item in plan.steps))


def _from_point(item: Planned, paths: Mapping[str, tuple[str, str]], point: Point) -> Planned:
    if not isinstance(item.do, CreateVolume) or item.do.name not in paths:
        return item
    path, disk_id = paths[item.do.name]
    disk = next(disk for disk in point.disks if disk.id == disk_id)
    text = f"{item.subject}: verify disk {disk.id} of {point.id} and write it into pool {item.do.pool}"
    return replace(item, do=RestoreDisk(point.ref, disk.file, path, ""), why=text)
