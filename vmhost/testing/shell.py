"""``ports.GuestShell`` on a fake host: answers where a guest is up, with the host key of its seed."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from vmhost.model.drills import SITE
from vmhost.model.errors import Absent, DriverError, HostKeyMismatch, PermissionDenied, Silent, Unreachable, UsageError
from vmhost.model.netsteps import alias_of
from vmhost.model.reach import AccessPort, Via
from vmhost.model.shell import CommandResult, SshTarget
from vmhost.render.parse.cloudinit import VERDICT_ARGV
from vmhost.testing import commands, guests
from vmhost.testing.commands import Inside, Program
from vmhost.testing.machine import Machine
from vmhost.testing.world import Domain, System, Vlans, World

SLICE: Final = 1.0
"""Seconds between two looks whether somebody wants to end."""


class FakeShell:
    """Opens sessions to guests of a fake host.

    :param programs: what guests can run, by name; shared, so that a test may add to it at any time.
    :param key_file: tells where a site's private key lies; what lies there opens the doors that its seed gave it.
    """

    def __init__(self, machine: Machine, programs: dict[str, Program], key_file: Callable[[str], Path]) -> None:
        self._machine = machine
        self._programs = programs
        self._key_file = key_file

    def connect(self, target: SshTarget, *, deadline: float, check: Callable[[], None] = lambda: None) -> FakeSession:
        """Connect as soon as the guest answers. :raises Unreachable: it does not, until the time is up."""
        if not target.host_keys:
            raise UsageError("no host key is pinned", subject=target.guest)
        check()
        with self._machine.at_work(changing=True) as world:
            patience = min(target.connect_timeout, deadline - self._machine.monotonic())
            domain = self._await(world, target, world.now + patience)
            system = guests.system_of(world, domain)
            assert system is not None
            _check_host_key(target, world.behaviour(domain.name).host_key or system.host_key)
            self._log_in(world, target, system)
            return FakeSession(self._machine, self._programs, target, domain.uuid, domain.number)

    @contextmanager
    def knock(self, target: SshTarget, notify: Callable[[str], None]) -> Iterator[None]:
        """Notify when the guest answers; that is looked at whenever somebody waits for its signs."""
        machine = self._machine

        def once() -> None:
            if once in machine.knocks and answering(machine.world, target):
                machine.knocks.remove(once)
                notify("ssh")

        machine.knocks.append(once)
        try:
            yield
        finally:
            if once in machine.knocks:
                machine.knocks.remove(once)

    def _await(self, world: World, target: SshTarget, until: float) -> Domain:
        while (found := answering(world, target)) is None:
            if world.now >= until:
                text = f"SSH at {target.host} port {target.port}: timed out"
                hint = f"vmhost guest console {target.guest}"
                raise Silent(text, subject=target.guest, hint=hint, retryable=True)
            moment = self._machine.next_moment()
            self._machine.advance_to(until if moment is None else min(moment, until))
        return found

    def _log_in(self, world: World, target: SshTarget, system: System) -> None:
        """Let in whoever has a key of the account. :raises PermissionDenied: none of the target's keys is."""
        offered = {key.public for site, key in world.keys.items() if self._key_file(site) in target.private_key_files}
        if not offered:
            text = f"there is no private key to log in with as {target.user}"
            raise PermissionDenied(text, subject=target.guest, hint="ssh-add -l")
        accepted = {_body(line) for line in system.accounts.get(target.user, ())}
        if not accepted & {_body(line) for line in offered}:
            text = f"the SSH server does not accept the key for {target.user}"
            raise PermissionDenied(text, subject=target.guest, hint=f"vmhost guest console {target.guest}")


class FakeSession:
    """A connection to a fake guest; lost when the guest goes down."""

    def __init__(
        self, machine: Machine, programs: Mapping[str, Program], target: SshTarget, uuid: str, number: int
    ) -> None:
        self._machine = machine
        self._programs = programs
        self._target = target
        self._uuid = uuid
        self._number = number
        self._closed = False

    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes = b"",  # noqa: A002 - the word of subprocess
        timeout: float,
        cap: int = 1 << 20,
        sudo: bool = False,
        until: bytes = b"",
        check: Callable[[], None] = lambda: None,
    ) -> CommandResult:
        """Run a program of the guest's table; the question for cloud-init's verdict waits for it.

        ``until`` changes nothing: a fake command has ended when its output is there. ``check`` is called once a second
        of the fake host's time.
        """
        if not argv:
            raise UsageError("there is no command", subject=self._target.guest)
        if tuple(argv) == VERDICT_ARGV:
            self._await_cloud_init(timeout, check)
        with self._inside(sudo=sudo) as inside:
            ran = commands.run(dict(self._programs), inside, argv, input)
        return CommandResult(
            argv=tuple(argv),
            exit_code=ran.exit_code,
            signal=None,
            stdout=ran.stdout[:cap],
            stderr=ran.stderr[:cap],
            truncated=len(ran.stdout) > cap or len(ran.stderr) > cap,
            seconds=0.0,
        )

    def write_file(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        with self._inside() as inside:
            inside.system.files[path] = data

    def read_file(self, path: str, *, cap: int = 1 << 20) -> bytes:
        with self._inside() as inside:
            data = inside.system.files.get(path)
        if data is None:
            raise Absent(f"{path}: No such file", subject=self._target.guest)
        if len(data) > cap:
            raise DriverError(f"{path} is larger than {cap} bytes", subject=self._target.guest)
        return data

    def dial(self, port: int, *, timeout: float) -> socket.socket:
        raise DriverError("a fake guest leads no connections", subject=self._target.guest)

    @property
    def alive(self) -> bool:
        with self._machine.at_work() as world:
            domain = world.domains.get(self._uuid)
            return domain is not None and domain.up and domain.number == self._number and not self._closed

    def close(self) -> None:
        self._closed = True

    @contextmanager
    def _inside(self, *, sudo: bool = False) -> Iterator[Inside]:
        """Give the guest's inside. :raises Unreachable: the connection was lost."""
        with self._machine.at_work(changing=True) as world:
            domain = world.domains.get(self._uuid)
            system = guests.system_of(world, domain) if domain and domain.up else None
            if domain is None or system is None or domain.number != self._number or self._closed:
                hint = f"vmhost guest console {self._target.guest}"
                raise Unreachable("the SSH connection was lost", subject=self._target.guest, hint=hint)
            user = "root" if sudo else self._target.user
            yield Inside(domain.name, system, user)

    def _await_cloud_init(self, timeout: float, check: Callable[[], None]) -> None:
        with self._machine.at_work() as world:
            until = world.now + timeout
        while not self._cloud_init_ended(until):
            check()

    def _cloud_init_ended(self, until: float) -> bool:
        """Let a second pass unless cloud-init ends before. :raises DriverError: the time is up."""
        with self._machine.at_work(changing=True) as world:
            domain = world.domains.get(self._uuid)
            if domain is None or not domain.done_at:
                return True
            if world.now >= until:
                raise DriverError("the command did not end in time", subject=self._target.guest, retryable=True)
            self._machine.advance_to(min(domain.done_at, until, world.now + SLICE))
            return not domain.done_at


def answering(world: World, target: SshTarget) -> Domain | None:
    """Return the domain whose guest answers at the target's address and port."""
    for domain in world.domains.values():
        behaviour = world.behaviour(domain.name)
        if not domain.up or not behaviour.ssh or behaviour.hangs:
            continue
        if target.port == 22 and any(
            address == target.host and _leads(world, target.via, domain, mac) for mac, address, _ in domain.reached
        ):
            return domain
        if any(
            nic.source == f"{target.host}:{target.port}" for nic in guests.facts_of(domain).nics if nic.type == "user"
        ):
            return domain
    return None


def _leads(world: World, via: Via | None, domain: Domain, mac: str) -> bool:
    """Whether a way leads to a NIC; a jump host, and the host's own routing, do wherever no drill is."""
    nic = next(nic for nic in guests.facts_of(domain).nics if nic.mac == mac)
    if not isinstance(via, AccessPort):
        return nic.source not in world.links or world.links[nic.source].alias != alias_of(SITE)
    port, there = (world.vlans.get(name, Vlans()) for name in (via.port, nic.tap))
    return via.namespace in world.namespaces and nic.source == via.bridge and port.pvid == there.pvid == via.vid


def _check_host_key(target: SshTarget, presented: str) -> None:
    if _body(presented) in {_body(line) for line in target.host_keys}:
        return
    raise HostKeyMismatch(
        f"another machine answers at {target.host} port {target.port}, or the guest has new host keys: "
        f"presented {presented or 'a key of its own'}",
        subject=target.guest,
        hint=f"vmhost guest console {target.guest}",
    )


def _body(line: str) -> tuple[str, ...]:
    """Return the kind and the key of an OpenSSH line, without its comment."""
    return tuple(line.split()[:2])
