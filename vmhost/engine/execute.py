"""Every step's effect, in one ``match``."""

from __future__ import annotations

from contextlib import suppress
from shlex import quote
from typing import Final, assert_never

from vmhost.engine.await_guest import await_guest
from vmhost.engine.backup import execute_backup
from vmhost.engine.context import Context
from vmhost.engine.drill import execute_drill
from vmhost.engine.hold import hold
from vmhost.engine.network import change_network
from vmhost.engine.nightsteps import execute_for_night
from vmhost.engine.portsteps import execute_on_port
from vmhost.engine.power import shut_down
from vmhost.engine.quiesce import forget_freeze, is_marked, quiesce
from vmhost.engine.snapsteps import execute_on_disks
from vmhost.model.backupsteps import BackupStep
from vmhost.model.drills import DrillStep
from vmhost.model.errors import Absent, AlreadyThere, Conflict, InUse
from vmhost.model.netsteps import (
    AwaitConfirmation,
    DeleteBridge,
    DeleteVlanLink,
    DismissGuard,
    GuardNetwork,
    InstallNetworkUnit,
    KeeperStep,
    KeepNetwork,
    RemoveNetworkUnit,
    SetPortVlans,
)
from vmhost.model.nightsteps import DropTimerFile, NightStep, PutTimerFile
from vmhost.model.snapsteps import DiskStep, QuiesceStep
from vmhost.model.steps import (
    AwaitGuest,
    CheckTuning,
    CloseAccess,
    CreateSeed,
    CreateVolume,
    DefineDomain,
    DeletePool,
    DeleteVolume,
    DiscardManagedSave,
    EnsurePool,
    ForgetConsole,
    GuardPort,
    InstallHook,
    IsolatePort,
    OpenAccess,
    PlainStep,
    PlugMemory,
    PlugNic,
    PowerOff,
    Release,
    RemoveHook,
    Reserve,
    ResizeDisk,
    ResizeVolume,
    RestartDaemon,
    ScrubSeed,
    SetAutostart,
    SetBandwidth,
    SetDiskLimits,
    SetMemory,
    SetMetadata,
    SetNicLink,
    SetTuning,
    SetVcpus,
    ShutDown,
    StartDomain,
    Step,
    UndefineDomain,
    UnguardPort,
    UnplugMemory,
    UnplugNic,
    Unreserve,
)
from vmhost.netports import Hook, Keeper
from vmhost.ports import Hypervisor
from vmhost.render.parse.domain import parse_domain
from vmhost.render.seed import SeedDocuments, seed_files
from vmhost.render.storage import volume_xml

FOREIGN_STAYS: Final = (DeleteBridge, DeleteVlanLink, DeletePool, PutTimerFile, DropTimerFile)
"""Steps whose thing may turn out to be another's: then it was not undone."""


def execute(step: Step, context: Context) -> str:
    """Do one step and return what is worth telling about it, mostly nothing.

    :raises DriverError: the step failed; unless it says otherwise, nothing was changed.
    """
    if isinstance(step, BackupStep):
        return execute_backup(step, context)
    if isinstance(step, DrillStep):
        return execute_drill(step, context)
    if isinstance(step, AwaitGuest):
        return await_guest(step, context)
    if isinstance(step, QuiesceStep):
        return quiesce(step, context)
    if isinstance(step, DiskStep):
        execute_on_disks(step, context.ports)
    elif isinstance(step, NightStep):
        execute_for_night(step, context.ports.timers)
    elif isinstance(step, KeeperStep):
        _keep(step, context.ports.keeper)
    else:
        _execute(step, context)
    return ""


def _execute(step: PlainStep, context: Context) -> None:  # noqa: C901 - one match over a closed union
    ports, hypervisor = context.ports, context.ports.hypervisor
    match step:
        case EnsurePool(name, path):
            hypervisor.create_pool(name, path)
        case DeletePool(name):
            hypervisor.delete_pool(name)
        case InstallHook() | RemoveHook() | RestartDaemon():
            _hook(step, ports.hook)
        case CreateVolume():
            _create_volume(step, context)
        case CreateSeed() | ScrubSeed():
            _write_seed(step, context)
        case ResizeVolume(pool, name, capacity):
            hypervisor.resize_volume(pool, name, capacity)
        case ResizeDisk(uuid, source, capacity):
            hypervisor.resize_disk(uuid, source, capacity)
        case DeleteVolume(pool, name):
            _delete_volume(pool, name, hypervisor)
        case DefineDomain(_, _, xml):
            hypervisor.define(xml)
        case UndefineDomain(uuid, _):
            _undefine(uuid, context)
        case StartDomain(uuid, _):
            was_frozen = is_marked(uuid, context)
            hypervisor.start(uuid)
            if was_frozen:
                forget_freeze(uuid, context)
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
        case SetTuning() | SetVcpus() | SetMemory() | CheckTuning() | SetDiskLimits() | PlugMemory() | UnplugMemory():
            hold(step, context)
        case ForgetConsole(path):
            ports.signals.forget_console(path)
        case GuardPort() | UnguardPort() | IsolatePort() | SetBandwidth() | Reserve() | Release() | Unreserve():
            execute_on_port(step, ports)
        case PlugNic() | UnplugNic() | SetNicLink() | OpenAccess() | CloseAccess():
            change_network(step, context)
        case _:
            ports.links.carry_out(step)


def _hook(step: InstallHook | RemoveHook | RestartDaemon, hook: Hook) -> None:
    match step:
        case InstallHook():
            hook.install()
        case RemoveHook():
            hook.remove()
        case RestartDaemon():
            hook.restart_daemon()
        case _:
            assert_never(step)


def _keep(step: KeeperStep, keeper: Keeper) -> None:
    match step:
        case KeepNetwork():
            keeper.keep(step)
        case GuardNetwork():
            keeper.guard(step)
        case AwaitConfirmation():
            keeper.await_confirmation()
        case DismissGuard(_, confirmed):
            keeper.dismiss(confirmed=confirmed)
        case InstallNetworkUnit():
            keeper.install_unit()
        case RemoveNetworkUnit():
            keeper.remove_unit()
        case _:
            assert_never(step)


def undo(step: Step, context: Context) -> None:
    """Do an undo step; what is already gone, or already back, is fine.

    :raises DriverError: the undo failed.
    """
    with _undone_already(step):
        if isinstance(step, UndefineDomain):
            _forget_console_of(step.uuid, context)
        execute(step, context)


def _undone_already(step: Step) -> suppress:
    """Return what passes over the errors that say: there is nothing to undo any more."""
    if isinstance(step, FOREIGN_STAYS):
        return suppress(Absent)
    if isinstance(step, SetPortVlans) and not (step.pvid or step.untagged or step.tagged):
        return suppress(Absent, Conflict)  # what is no port any more carries nothing
    return suppress(Absent, AlreadyThere)


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


def _create_volume(step: CreateVolume, context: Context) -> None:
    xml = volume_xml(step.name, step.capacity, format="qcow2", backing=step.backing, backing_format=step.backing_format)
    context.ports.hypervisor.create_volume(step.pool, xml)


def _delete_volume(pool: str, name: str, hypervisor: Hypervisor) -> None:
    """Delete a volume, unless it has become a guest's since that was planned, perhaps days ago.

    :raises InUse: it has, and stays.
    """
    if users := hypervisor.users(pool, name):
        text = f"it stays: {' and '.join(users)} has it by {'its' if len(users) == 1 else 'their'} definition"
        raise InUse(text, subject=f"{pool}/{name}", hint=f"virsh domblklist --inactive {quote(users[0])}")
    hypervisor.delete_volume(pool, name)


def _write_seed(step: CreateSeed | ScrubSeed, context: Context) -> None:
    """Make the seed's image and store it; a failure may leave its volume behind, which the step's undo deletes."""
    hypervisor = context.ports.hypervisor
    documents = SeedDocuments(step.meta_data, step.user_data, step.network_config, step.extra_user_data)
    image = context.ports.seeds.make(seed_files(documents, context.secrets))
    if isinstance(step, CreateSeed):
        hypervisor.create_volume(step.pool, volume_xml(step.name, len(image), format="raw"))
    hypervisor.upload_volume(step.pool, step.name, image)
