"""``ports.Hook`` on a fake host, and what libvirt does with it there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lxml import etree

from vmhost.model.errors import DriverError, VmhostError
from vmhost.model.guard import guard_of
from vmhost.model.observed import ObservedHook
from vmhost.render import nft
from vmhost.render.parse.metadata import parse_metadata
from vmhost.testing import guests
from vmhost.testing.links import isolate, set_vlans
from vmhost.testing.packet import change, guards_of
from vmhost.testing.world import Domain, World

if TYPE_CHECKING:
    from vmhost.testing.machine import Machine


class FakeHook:
    """The hook of a fake host; its daemon calls it when it was there before the daemon started."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def state(self) -> ObservedHook:
        with self._machine.at_work() as world:
            return ObservedHook(world.hook, world.hook and world.hook_known, world.hook and world.hook_called)

    def install(self) -> None:
        with self._machine.at_work(changing=True) as world:
            world.hook = True

    def remove(self) -> None:
        with self._machine.at_work(changing=True) as world:
            world.hook = world.hook_known = world.hook_called = False

    def restart_daemon(self) -> None:
        with self._machine.at_work(changing=True) as world:
            world.hook_known, world.hook_called = world.hook, False
            for domain in world.domains.values():
                if domain.live_xml:
                    _call(world, domain)


def at_start(world: World, domain: Domain) -> None:
    """Let the hook act on a domain whose taps are there. :raises DriverError: it ends the start."""
    for nic in guests.facts_of(domain).nics:
        world.vlans.pop(nic.tap, None)
        world.isolated = [name for name in world.isolated if name != nic.tap]
    error = _call(world, domain)
    if error:
        text = f"Hook script execution failed: unexpected exit status 1: vmhost: {error}"
        raise DriverError(text, subject=domain.name)


def at_end(world: World, domain: Domain) -> None:
    """Let the hook act on a domain that has ended; its taps go with it."""
    taps = [nic.tap for nic in guests.facts_of(domain).nics]
    world.isolated = [name for name in world.isolated if name not in taps]
    if world.hook and world.hook_known and domain.live_xml and 'spoofing="' in domain.live_xml:
        change(world, lambda have: nft.unguard(taps, guards_of(have)))


def _call(world: World, domain: Domain) -> str:
    if not (world.hook and world.hook_known):
        return ""
    world.hook_called = True
    metadata = parse_metadata(etree.fromstring(domain.live_xml))
    taps = {nic.tap for nic in guests.facts_of(domain).nics}
    nics = [nic for nic in metadata.identity.nics if nic.tap in taps] if metadata else []
    try:
        if guarded := [guard for nic in nics if (guard := guard_of(nic))]:
            change(world, lambda _: nft.guard(guarded))
        for nic in nics:
            if nic.isolated:
                isolate(world, nic.tap, True)
            if nic.vlans is not None:
                set_vlans(world, nic.tap, nic.vlans)
    except (VmhostError, ValueError) as error:
        return str(error)
    return ""
