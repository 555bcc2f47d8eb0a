"""Events of domains."""

from __future__ import annotations

import threading

import pytest

from tests.contract.backends import Backend, eventually
from vmhost.ports import DomainEvent


class Ear:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.events: list[DomainEvent] = []
        self.threads: set[int] = set()

    def __call__(self, event: DomainEvent) -> None:
        self.events.append(event)
        self.threads.add(threading.get_ident())

    def kinds(self, uuid: str) -> list[str]:
        return [event.kind for event in self.events if event.uuid == uuid]


def is_subsequence(wanted: list[str], found: list[str]) -> bool:
    rest = iter(found)
    return all(kind in rest for kind in wanted)


def test_a_life_is_told_in_order(backend: Backend) -> None:
    ear = Ear()
    hypervisor = backend.hypervisor
    hypervisor.subscribe(ear)
    domain = backend.defined()
    hypervisor.start(domain.uuid)
    hypervisor.power_off(domain.uuid)
    hypervisor.undefine(domain.uuid)
    wanted = ["defined", "started", "stopped", "undefined"]
    assert eventually(lambda: is_subsequence(wanted, ear.kinds(domain.uuid))), ear.events
    assert {event.name for event in ear.events if event.uuid == domain.uuid} == {domain.name}
    assert threading.get_ident() not in ear.threads


def test_only_from_subscribing_until_ending_it(backend: Backend) -> None:
    early, late = Ear(), Ear()
    hypervisor = backend.hypervisor
    end = hypervisor.subscribe(early)
    first = backend.defined()
    assert eventually(lambda: early.kinds(first.uuid))
    hypervisor.subscribe(late)
    end()
    end()
    second = backend.defined()
    assert eventually(lambda: late.kinds(second.uuid))
    assert late.kinds(first.uuid) == []
    assert early.kinds(second.uuid) == []


def test_a_listener_may_call_the_hypervisor(backend: Backend) -> None:
    found: list[str] = []
    backend.hypervisor.subscribe(lambda event: found.append(backend.hypervisor.domain(event.uuid).name))
    domain = backend.defined()
    assert eventually(lambda: domain.name in found)


def test_a_failing_listener_does_not_silence_the_others(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: DomainEvent) -> None:
        raise ZeroDivisionError(event.name)

    ear = Ear()
    backend.hypervisor.subscribe(fail)
    backend.hypervisor.subscribe(ear)
    first, second = backend.defined(), backend.defined()
    assert eventually(lambda: ear.kinds(first.uuid) and ear.kinds(second.uuid))
    assert "ZeroDivisionError" in caplog.text
