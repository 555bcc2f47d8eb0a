"""A guest that the host does not reach by the network: commands go through its agent, the rest is the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.services.shop import NGINX, Shop
from vmhost.engine.services.agentsession import AgentSession
from vmhost.model.errors import DriverError, GuestError, Refused
from vmhost.model.services import Health
from vmhost.render.metadata import metadata_xml
from vmhost.render.parse.metadata import parse_metadata

ONE = NGINX.replace("[web-01, web-02]", "[web-01]")


@pytest.fixture
def shop() -> Shop:
    made = Shop()
    raw = made.fake.domain("web-01")
    metadata = parse_metadata(raw.xml)
    assert metadata is not None
    nics = tuple(replace(nic, reach="agent") for nic in metadata.identity.nics)
    hidden = replace(metadata, identity=replace(metadata.identity, nics=nics))
    made.fake.hypervisor.set_metadata(raw.uuid, metadata_xml(hidden))
    return made


def test_a_service_is_deployed_and_looked_at_through_the_agent(shop: Shop) -> None:
    shop.deploy(
        ONE.replace("ports: [80]", 'probes: {unit: {systemd: true}, it: {command: ["true"]}, a: {agent: true}}')
    )
    assert shop.picture("web-01")["packages"] == {"nginx": "1.22.1-9"}
    (row,) = shop.services.list()
    assert (row.health, row.drift, row.error) == (Health.UP, (), "")
    assert isinstance(shop.services.lines.session("web-01"), AgentSession)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "no json",
        "[" * 100_000,
        "[]",
        '{"return": 5}',
        '{"return": {}}',
        '{"return": {"pid": "one"}}',
        '{"return": {"pid": true}}',
        '{"return": {"pid": 1, "exited": true, "out-data": 5}}',
        '{"return": {"pid": 1, "exited": true, "out-data": "*"}}',
        '{"return": {"pid": 1, "exited": true, "err-data": "\u00e9"}}',
        '{"return": {"pid": 1, "exited": true, "exitcode": []}}',
        '{"return": {"pid": 1, "exited": true, "signal": "KILL"}}',
    ],
)
def test_whatever_the_agent_answers_is_an_error_of_ours(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    session = shop.services.lines.session("web-01")
    monkeypatch.setattr(shop.fake.hypervisor, "agent", lambda *_: answer)
    with pytest.raises(DriverError, match="the guest agent gave no sensible answer to "):
        session.run(("true",), timeout=5.0)


def test_probes_that_connect_say_that_the_agent_cannot(shop: Shop) -> None:
    with pytest.raises(GuestError, match=r"nobody knows its address|leads no connections"):
        shop.deploy(ONE)


def test_files_and_refusals(shop: Shop) -> None:
    session = shop.services.lines.session("web-01")
    with pytest.raises(Refused, match="probe this by a command"):
        session.dial(80, timeout=1.0)
    result = session.run(("cat",), input=b"\0\xff", timeout=5.0)
    assert (result.exit_code, result.stdout) == (0, b"\0\xff")
    assert session.run(("false",), timeout=5.0).exit_code == 1
    assert session.run(("echo", "x" * 100), timeout=5.0, cap=10).truncated
