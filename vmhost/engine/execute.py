"""Every step's effect, in one ``match``."""

from __future__ import annotations

from contextlib import suppress
from typing import assert_never

from vmhost.engine.await_guest import await_guest
from vmhost.engine.context import Context
from vmhost.engine.power import shut_down
from vmhost.model.errors import Absent, AlreadyThere
from vmhost.model.steps import (
    AwaitGuest,
    CreateBridge,
    CreateSeed,
    CreateVolume,
    DefineDomain,
    DeleteBridge,
    DeletePool,
    DeleteVolume,
    DiscardManagedSave,
    EnsurePool,
    ForgetConsole,
    InstallHook,
    PowerOff,
    RemoveHook,
    ResizeDisk,
    ResizeVolume,
    RestartDaemon,
    ScrubSeed,
    SetAutostart,
    SetMetadata,
    SetPortVlans,
    ShutDown,
    StartDomain,
    Step,
    UndefineDomain,
)
from vmhost.model.vlans import PortVlans, parse_vids
from vmhost.plan.links import bridge_alias
from vmhost.render.parse.domain import parse_domain
from vmhost.render.seed import SeedDocuments, seed_files
from vmhost.render.storage import volume_xml


def execute(step: Step, context: Context) -> str:  # noqa: C901 - one match over the closed union of steps
    """Do one step and return what is worth telling about it, mostly nothing.

    :raises DriverError: the step failed; unless it says otherwise, nothing was changed.
    """
    ports = context.ports
    hypervisor = ports.hypervisor
    match step:
        case EnsurePool(name, path):
            hypervisor.create_pool(name, path)
        case DeletePool(name):
            hypervisor.delete_pool(name)
        case CreateBridge(name, site, mtu, address, vlan_aware):
            alias = bridge_alias(site)
            ports.links.create_bridge(name, alias=alias, mtu=mtu, address=address, vlan_aware=vlan_aware)
        case DeleteBridge(name, site):
            ports.links.delete_bridge(name, alias=bridge_alias(site))
        case SetPortVlans(port, pvid, untagged, tagged):
            ports.links.set_port_vlans(port, PortVlans(pvid, parse_vids(untagged), parse_vids(tagged)))
        case InstallHook():
            ports.hook.install()
        case RemoveHook():
            ports.hook.remove()
        case RestartDaemon():
            ports.hook.restart_daemon()
        case CreateVolume(pool, name, capacity, backing, backing_format):
            xml = volume_xml(name, capacity, format="qcow2", backing=backing, backing_format=backing_format)
            hypervisor.create_volume(pool, xml)
        case CreateSeed() | ScrubSeed():
            _write_seed(step, context)
        case ResizeVolume(pool, name, capacity):
            hypervisor.resize_volume(pool, name, capacity)
        case ResizeDisk(uuid, source, capacity):
            hypervisor.resize_disk(uuid, source, capacity)
        case DeleteVolume(pool, name):
            hypervisor.delete_volume(pool, name)
        case DefineDomain(_, _, xml):
            hypervisor.define(xml)
        case UndefineDomain(uuid, _):
            _undefine(uuid, context)
        case StartDomain(uuid, _):
            hypervisor.start(uuid)
        case ShutDown(uuid, name, timeout):
            shut_down(uuid, name, timeout, context)
        case PowerOff(uuid, _):
            hypervisor.power_off(uuid)
        case DiscardManagedSave(uuid, _):
            hypervisor.discard_managed_save(uuid)
        case SetAutostart(uuid, _, on):
            hypervisor.set_autostart(uuid, on)
        case SetMetadata(uuid, _, xml):
            hypervisor.set_metadata(uuid, xml)
        case ForgetConsole(path):
            ports.signals.forget_console(path)
        case AwaitGuest():
            return await_guest(step, context)
        case _:
            assert_never(step)
    return ""


def undo(step: Step, context: Context) -> None:
    """Do an undo step; what is already gone, or already back, is fine.

    :raises DriverError: the undo failed.
    """
    with suppress(Absent, AlreadyThere) if not isinstance(step, DeleteBridge | DeletePool) else suppress(Absent):
        if isinstance(step, UndefineDomain):
            _forget_console_of(step.uuid, context)
        execute(step, context)


def _forget_console_of(uuid: str, context: Context) -> None:
    """Delete the console log of a guest that is unmade; first, since its definition says where it is."""
    log = parse_domain(context.ports.hypervisor.domain(uuid).xml).serial_log
    if log:
        context.ports.signals.forget_console(log)


def _undefine(uuid: str, context: Context) -> None:
    """Undefine; a domain that turns out to run on without its definition (its start was under way) is powered off."""
    context.ports.hypervisor.undefine(uuid)
    with suppress(Absent):
        context.ports.hypervisor.power_off(uuid)


def _write_seed(step: CreateSeed | ScrubSeed, context: Context) -> None:
    """Make the seed's image and store it; a failure may leave its volume behind, which the step's undo deletes."""
    hypervisor = context.ports.hypervisor
    documents = SeedDocuments(step.meta_data, step.user_data, step.network_config, step.extra_user_data)
    image = context.ports.seeds.make(seed_files(documents, context.secrets))
    if isinstance(step, CreateSeed):
        hypervisor.create_volume(step.pool, volume_xml(step.name, len(image), format="raw"))
    hypervisor.upload_volume(step.pool, step.name, image)
