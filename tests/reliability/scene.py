"""What the tests of this folder share: small sites, the command line, a hook into a running apply, a look at a host."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmhost.drivers.command import Child, Completed, run, spawn
from vmhost.engine.observe import observe
from vmhost.model.permit import Permit
from vmhost.ops.host import Host
from vmhost.ops.sites import load_site
from vmhost.testing.faults import FaultPlan, FaultyPorts

VMHOST = str(Path(sys.executable).with_name("vmhost"))
ALL = Permit(power_off=True, disks=True)


def site_file(directory: Path, name: str, *guests: str, **extra: Any) -> Path:
    """Write a site of tiny guests and return its file.

    :param extra: ``nics``, ``networks``, ``bridges``, ``host``, ``ready``, ``memory``, ``cloud_init``, ``state``: as
        YAML in flow style.
    """
    lines = ["apiVersion: vmhost/v1", f"name: {name}"]
    lines += [f"{key}: {extra[key]}" for key in ("host", "bridges", "networks") if key in extra]
    lines += ["guests:"]
    for guest in guests:
        lines += [
            f"  {guest}:",
            "    image: tiny",
            f"    memory: {extra.get('memory', '64M')}",
            "    disks: [{size: 8M}]",
            f"    ready: {extra.get('ready', '{by: none}')}",
        ]
        lines += [f"    {key}: {extra[key]}" for key in ("nics", "cloud_init", "state") if key in extra]
    path = directory / f"{name}.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def vmhost(*words: str, env: dict[str, str] | None = None, timeout: float = 90) -> Completed:
    """Run the command line to its end, whatever that is."""
    return run((VMHOST, *words), env=env, timeout=timeout, check=False)


def told(done: Completed) -> str:
    """Return what a command said on stderr."""
    return done.stderr.decode()


@dataclass(frozen=True)
class Look:
    """A host as others see it. ``held`` are locks that somebody holds."""

    domains: tuple[tuple[str, ...], ...]
    volumes: tuple[str, ...]
    pools: tuple[str, ...]
    links: tuple[str, ...]
    journals: tuple[str, ...]
    consoles: tuple[str, ...]
    held: tuple[str, ...]


def look(host: Host) -> Look:
    """Return the host as it is now."""
    observed = observe(host.ports)
    layout = host.ports.layout
    return Look(
        tuple((d.uuid, d.name, str(d.raw.state), str(d.raw.autostart), d.raw.xml) for d in observed.domains),
        tuple(sorted(volume.path for pool in observed.pools for volume in pool.volumes)),
        tuple(sorted(pool.name for pool in observed.pools)),
        tuple(sorted(f"{link.name} {link.alias}" for link in observed.links)),
        _names(layout.state / "journal", "*.jsonl"),
        _names(layout.logs, "*.console.log*"),
        held_locks(host),
    )


def held_locks(host: Host) -> tuple[str, ...]:
    """Return the locks that somebody holds."""
    locks = sorted((host.ports.layout.runtime / "locks").glob("*.lock"))
    return tuple(path.name for path in locks if _is_held(path))


def _names(directory: Path, pattern: str) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in directory.glob(pattern)))


def _is_held(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def just_before(host: Host, port: str, method: str, act: Callable[[], object]) -> Host:
    """Return the host with something that happens right before its first call of that method."""
    happened = threading.Event()

    def watch(name: str, called: str) -> bool:
        if (name, called) == (port, method) and not happened.is_set():
            happened.set()
            act()
        return False

    return Host(ports=FaultyPorts(host.ports, FaultPlan(only=watch)).ports)


def dying(site: Path, call: str) -> Child:
    """Start to apply a site in a process that is killed right after its first call of that ``port.method``."""
    return spawn((sys.executable, "-P", "-m", "tests.reliability.victim", "create", str(site), call, "kill-after"))


def killed(site: Path, call: str) -> None:
    """Apply a site in a process that is killed right after its first call of that ``port.method``."""
    with dying(site, call) as process:
        assert process.wait(90) == -signal.SIGKILL


def apply(host: Host, site: Path) -> None:
    """Plan and apply a site."""
    host.apply(host.plan(load_site(site)))


def remove(host: Host, *names: str) -> None:
    """Delete guests of ours, whatever they do, with all that is theirs."""
    there = {row.name for row in host.guests()}
    if going := [name for name in names if name in there]:
        host.apply(host.plan_delete(going, ALL))


@dataclass
class Command:
    """The command line at work; ``lines`` is what it has told so far."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def until(self, text: str) -> None:
        """Read what it tells up to the line that contains ``text``."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            if text in line:
                return
        raise AssertionError(f"it never said {text!r}:\n{self.talk}")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self) -> int:
        """Read the rest and return its exit code."""
        assert self.process.stderr is not None
        self.lines += [line.rstrip() for line in self.process.stderr]
        return self.process.wait(60)

    @property
    def talk(self) -> str:
        """All that it told."""
        return "\n".join(self.lines)


@contextmanager
def started(*words: str, env: dict[str, str] | None = None) -> Iterator[Command]:
    """Start the command line; it does not outlive the block."""
    process = subprocess.Popen(
        [VMHOST, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    try:
        yield Command(process)
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
