"""The guest agent of a real guest, through libvirt."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.contract.backends import eventually
from tests.guest.conftest import Booted
from tests.labfixture import InLab
from vmhost.drivers.libvirt import LibvirtHypervisor, connect
from vmhost.model.errors import DriverError
from vmhost.ports import DomainEvent

pytestmark = pytest.mark.guest

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
