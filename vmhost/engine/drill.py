"""The effect of the steps of a drill."""

from __future__ import annotations

from contextlib import suppress
from typing import assert_never

from vmhost.engine.await_guest import await_guest, await_words
from vmhost.engine.context import Context
from vmhost.engine.services.drilled import await_services
from vmhost.model.drills import DrillStep, EndDrill, LayDrill, LiftDrill, SeeDrill
from vmhost.model.errors import Absent
from vmhost.model.points import NVRAM
from vmhost.render.seed import known_seed


def execute_drill(step: DrillStep, context: Context) -> str:
    """Do one step; nothing is to be told of it.

    :raises DriverError: it failed; :raises GuestError: the drilled guest is not there in time.
    """
    match step:
        case LayDrill():
            _lay(step, context)
        case LiftDrill():
            _lift(step, context)
        case SeeDrill(ready, says):
            deadline = context.ports.clock.monotonic() + ready.timeout
            if says:
                await_words(ready, says, context, deadline)
            await_guest(ready, context, deadline)
            await_services(step, context)
        case EndDrill(uuid, _, serial_log):
            with suppress(Absent):
                context.ports.hypervisor.power_off(uuid)
            with suppress(Absent):
                context.ports.hypervisor.undefine(uuid)
            context.ports.signals.forget_console(serial_log)
        case _:
            assert_never(step)
    return ""


def _lay(step: LayDrill, context: Context) -> None:
    """Make the files of a drill; a failure may leave some behind, which the step's undo takes away."""
    repositories, files = context.ports.repositories, step.files
    for disk in files.disks:
        repositories.expose(step.ref, disk.file, disk.socket)
        repositories.overlay(disk.overlay, disk.socket, disk.capacity)
    if files.nvram:
        repositories.bring(step.ref, NVRAM, files.nvram)
    if files.seed:
        seed = known_seed(step.instance_id, step.hostname)
        repositories.place(files.seed, context.ports.seeds.make(seed))


def _lift(step: LiftDrill, context: Context) -> None:
    repositories, files = context.ports.repositories, step.files
    for disk in files.disks:
        with suppress(Absent):
            repositories.conceal(disk.socket)
    for path in (*(disk.overlay for disk in files.disks), files.nvram, files.seed):
        if path:
            with suppress(Absent):
                repositories.remove(path)
