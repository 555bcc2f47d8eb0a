"""The guest agent of a real guest, through libvirt."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

import vmhost as library
from tests.contract.backends import eventually
from tests.guest.conftest import DEMO, Booted, vmhost
from tests.labfixture import InLab
from vmhost.drivers.kernel import LinuxKernel
from vmhost.drivers.libvirt import LibvirtHypervisor, connect
from vmhost.model.errors import DriverError
from vmhost.ports import DomainEvent

pytestmark = [pytest.mark.guest, DEMO]

PING = '{"execute": "guest-ping"}'


@pytest.fixture
def hypervisor(booted: Booted) -> Iterator[LibvirtHypervisor]:
    del booted
    with connect() as opened:
        yield opened


@pytest.fixture
def uuid(hypervisor: LibvirtHypervisor) -> str:
    return next(raw.uuid for raw in hypervisor.domains() if raw.name == "web-01")


def test_it_answers(hypervisor: LibvirtHypervisor, uuid: str) -> None:
    assert json.loads(hypervisor.agent(uuid, PING, 10.0)) == {"return": {}}
    told = json.loads(hypervisor.agent(uuid, '{"execute": "guest-get-osinfo"}', 10.0))
    assert told["return"]["id"] == "debian"


def test_it_tells_the_time_that_was_stolen_from_it_and_the_host_how_long_it_waited(
    hypervisor: LibvirtHypervisor, uuid: str
) -> None:
    del hypervisor
    with library.connect() as host:
        told = host.guest("web-01").stolen
    words = vmhost("guest", "exec", "web-01", "--", "head", "-n1", "/proc/stat").text.split()[1:9]
    times = [int(word) for word in words]
    assert told is not None
    assert sum(times) > 0
    assert abs(told - times[7] / sum(times)) < 0.01, "an emulated guest is told of none"
    waits = LinuxKernel().held()[uuid].waits
    assert [vcpu for vcpu, ran, _ in waits if ran > 0] == [0]


@pytest.mark.parametrize("command", ['{"execute": "guest-no-such-command"}', "not JSON"])
def test_it_refuses_in_its_own_words(hypervisor: LibvirtHypervisor, uuid: str, command: str) -> None:
    with pytest.raises(DriverError) as caught:
        hypervisor.agent(uuid, command, 10.0)
    assert (caught.value.subject, caught.value.retryable, bool(caught.value.hint)) == ("web-01", False, True)
    assert json.loads(hypervisor.agent(uuid, PING, 10.0)) == {"return": {}}


def test_after_a_restart_of_libvirtd_it_is_told_as_connected(
    hypervisor: LibvirtHypervisor, uuid: str, lab: InLab
) -> None:
    events: list[DomainEvent] = []
    hypervisor.subscribe(events.append)
    lab.restart_libvirtd(kill=True)
    assert eventually(lambda: any((e.uuid, e.kind) == (uuid, "agent-connected") for e in events), seconds=30)
    assert json.loads(hypervisor.agent(uuid, PING, 10.0)) == {"return": {}}
