"""How much is said to the kernel: many VLANs are one message, and what is as it should be is only looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.labfixture import InLab
from tests.network.wire import ip, site_file
from vmhost.drivers.netlink import Netlink
from vmhost.model.netsteps import AttachUplink, CreateBridge, DeleteBridge
from vmhost.model.vlans import port_vlans
from vmhost.ops.host import connect
from vmhost.ops.sites import load_site

pytestmark = pytest.mark.uml

GET = {"RTM_GETLINK", "RTM_GETADDR", "RTM_GETROUTE", "RTM_GETNEIGH", "RTM_GETVLAN"}
SITE = """
apiVersion: vmhost/v1
name: quiet
bridges: {br-quiet: {mode: vlan-aware, uplink: dum1}}
networks:
  one: {bridge: br-quiet, vlan: 100, address: 10.1.0.1/24}
  two: {bridge: br-quiet, vlan: 200, reach: agent}
"""


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The messages that go to the kernel, by type; a dump counts once however much it brings."""
    from pyroute2.netlink import nlsocket, rtnl

    heard: list[str] = []
    send = nlsocket.NetlinkRequest.send

    async def listen(request: Any) -> Any:
        heard.append(str(rtnl.RTM_VALUES[request.msg["header"]["type"]]))
        return await send(request)

    monkeypatch.setattr(nlsocket.NetlinkRequest, "send", listen)
    return heard


@pytest.fixture
def dummies(lab: InLab) -> Iterator[None]:
    for name in ("dum1", "dum2"):
        ip("link", "add", name, "type", "dummy")
    yield
    for name in ("br-quiet.100", "br-quiet", "dum1", "dum2"):
        ip("link", "delete", name, check=False)


def test_all_vlans_of_a_port_are_one_message(dummies: None, said: list[str]) -> None:
    links = Netlink()
    links.carry_out(CreateBridge("br-quiet", "quiet", 1500, "", True))
    links.carry_out(AttachUplink("dum2", "br-quiet"))
    said.clear()
    links.set_port_vlans("dum2", port_vlans(1, range(2, 4094)))
    assert [name for name in said if name not in GET] == ["RTM_SETLINK"]
    (port,) = [link for link in links.links() if link.name == "dum2"]
    assert port.vlans == port_vlans(1, range(2, 4094))
    ip("link", "set", "dum2", "nomaster")
    links.carry_out(DeleteBridge("br-quiet", "quiet"))


def test_what_is_as_it_should_be_is_only_looked_at(dummies: None, said: list[str], tmp_path: Path) -> None:
    site = load_site(site_file(tmp_path, SITE))
    with connect() as host:
        host.apply(host.plan_network(site, confirm=600))
        host.apply(host.plan_confirmation())
        said.clear()
        again = host.plan_network(site)
        assert again.empty
        host.apply(again)
        assert set(said) <= GET, "something was written"
        looked = Counter(said)
        # Each table once: links, their VLANs, addresses, neighbours, and the routes of both families.
        assert looked == {"RTM_GETLINK": 2, "RTM_GETADDR": 1, "RTM_GETNEIGH": 1, "RTM_GETROUTE": looked["RTM_GETROUTE"]}
        assert looked["RTM_GETROUTE"] <= 2
        empty = load_site(site_file(tmp_path, "apiVersion: vmhost/v1\nname: quiet\n"))
        host.apply(host.plan_network(empty, prune=["br-quiet"]))
        host.apply(host.plan_confirmation())
