"""Events of a real libvirtd: speed, restarts, and a process that ends in the midst of them."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.contract.backends import Backend, eventually, real_libvirt
from tests.contract.test_events import Ear
from tests.labfixture import InLab
from vmhost.drivers.command import run
from vmhost.drivers.libvirt.events import _differences
from vmhost.ports import DomainEvent

MISSED = "while libvirt was away"

ENDS_IN_THE_MIDST = """
import atexit, sys, threading

# Registered first, so called last: just before the interpreter goes.
atexit.register(lambda: print([t.name for t in threading.enumerate() if t.name == "libvirt-events"]))
from vmhost.drivers.libvirt import connect

hypervisor = connect(sys.argv[1])
heard = []
hypervisor.subscribe(heard.append)
uuid = sys.argv[2]
kind = "test" if sys.argv[1].startswith("test:") else "qemu"
hypervisor.define(f"<domain type='{kind}'><name>ends-{uuid[:8]}</name><uuid>{uuid}</uuid>"
                  "<memory unit='MiB'>32</memory><os><type>hvm</type></os></domain>")
hypervisor.undefine(uuid)
if sys.argv[3] == "close":
    hypervisor.close()
if sys.argv[3] == "raise":
    raise SystemExit(7)
"""


@pytest.mark.lab
def test_a_guest_that_ends_by_itself_is_told_at_once(real: Backend) -> None:
    ear = Ear()
    told: list[float] = []
    real.hypervisor.subscribe(ear)
    real.hypervisor.subscribe(lambda event: told.append(time.monotonic()) if event.kind == "stopped" else None)
    domain = real.defined()
    real.hypervisor.start(domain.uuid)
    os.kill(int(Path(f"/run/libvirt/qemu/{domain.name}.pid").read_text()), signal.SIGKILL)
    killed = time.monotonic()
    assert eventually(lambda: told)
    assert told[0] - killed < 2.0
    stopped = [event for event in ear.events if event.kind == "stopped"]
    assert [(event.uuid, event.detail) for event in stopped] == [(domain.uuid, "failed")]


@pytest.mark.lab
def test_events_go_on_after_restarts(real: Backend, lab: InLab) -> None:
    ear = Ear()
    end = real.hypervisor.subscribe(ear)
    for kill in (False, True):
        lab.restart_libvirtd(kill=kill)
        domain = real.defined()
        assert eventually(lambda uuid=domain.uuid: ear.kinds(uuid)), ear.events
        real.hypervisor.start(domain.uuid)
        assert eventually(lambda uuid=domain.uuid: "started" in ear.kinds(uuid)), ear.events
    end()
    unheard = real.defined().uuid
    assert not eventually(lambda: ear.kinds(unheard), seconds=0.5)


@pytest.mark.lab
def test_what_happened_while_libvirtd_was_away_is_told(real: Backend, lab: InLab) -> None:
    ear = Ear()
    real.hypervisor.subscribe(ear)
    domain, steady = real.defined(), real.defined()
    for one in (domain, steady):
        real.hypervisor.start(one.uuid)
    assert eventually(lambda: all("started" in ear.kinds(one.uuid) for one in (domain, steady)))
    pid = int(Path(f"/run/libvirt/qemu/{domain.name}.pid").read_text())
    lab.stop_libvirtd()
    ear.events.clear()
    os.kill(pid, signal.SIGKILL)
    lab.start_libvirtd()
    assert eventually(lambda: "stopped" in ear.kinds(domain.uuid)), ear.events
    assert [event for event in ear.events if event.uuid == steady.uuid] == []


@pytest.mark.lab
def test_two_hypervisors_in_one_process_have_events_of_their_own(real: Backend) -> None:
    first, second = Ear(), Ear()
    other = real_libvirt(real.directory).hypervisor
    real.hypervisor.subscribe(first)
    other.subscribe(second)
    domain = real.defined()
    assert eventually(lambda: first.kinds(domain.uuid) and second.kinds(domain.uuid))
    other.close()
    another = real.defined()
    assert eventually(lambda: first.kinds(another.uuid))
    assert second.kinds(another.uuid) == []


@pytest.mark.lab
def test_a_process_ends_cleanly_in_the_midst_of_events(real: Backend) -> None:
    _ends_cleanly("qemu:///system", rounds=12)


def test_a_process_ends_cleanly_with_the_loop_running(tmp_path: Path) -> None:
    node = tmp_path / "node.xml"
    node.write_text("<node><memory>8388608</memory></node>")
    _ends_cleanly(f"test://{node}", rounds=6)


def _ends_cleanly(uri: str, rounds: int) -> None:
    """Libvirt's loop in a thread crashes the interpreter at its end, once in a while, unless it is ended first."""
    from uuid import uuid4

    for number in range(rounds):
        how = ("leave", "close", "raise")[number % 3]
        words = [sys.executable, "-c", ENDS_IN_THE_MIDST, uri, str(uuid4()), how]
        done = run(words, timeout=20, check=False, cwd=Path(__file__).parents[2])
        assert (done.code, done.text, done.stderr) == (7 if how == "raise" else 0, "[]\n", b""), how


def test_what_was_missed_is_worked_out_from_before_and_after() -> None:
    before = {"a": ("one", True), "b": ("two", False), "c": ("three", True), "d": ("four", False)}
    after = {"a": ("one", False), "b": ("two", True), "d": ("four", False), "e": ("five", True)}
    assert _differences(before, after) == (
        DomainEvent("a", "one", "stopped", MISSED),
        DomainEvent("b", "two", "started", MISSED),
        DomainEvent("e", "five", "defined", MISSED),
        DomainEvent("e", "five", "started", MISSED),
        DomainEvent("c", "three", "stopped", MISSED),
        DomainEvent("c", "three", "undefined", MISSED),
    )
