"""``ports.Hook`` on a fake host, and what libvirt does with it there."""

from __future__ import annotations

from lxml import etree

from vmhost.model.errors import DriverError, VmhostError
from vmhost.model.observed import ObservedHook
from vmhost.render.parse.metadata import parse_metadata
from vmhost.testing import guests
from vmhost.testing.links import set_vlans
from vmhost.testing.machine import Machine
from vmhost.testing.world import Domain, World


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
    error = _call(world, domain)
    if error:
        text = f"Hook script execution failed: unexpected exit status 1: vmhost: {error}"
        raise DriverError(text, subject=domain.name)


def _call(world: World, domain: Domain) -> str:
    if not (world.hook and world.hook_known):
        return ""
    world.hook_called = True
    metadata = parse_metadata(etree.fromstring(domain.live_xml))
    taps = {nic.tap for nic in guests.facts_of(domain).nics}
    try:
        for nic in metadata.identity.nics if metadata else ():
            if nic.vlans is not None and nic.tap in taps:
                set_vlans(world, nic.tap, nic.vlans)
    except (VmhostError, ValueError) as error:
        return str(error)
    return ""
