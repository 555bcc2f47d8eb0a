"""The plan of a host's network: what it does, what it refuses, and that it puts back what it changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vmhost.model.errors import Conflict, NotFound, Refused, UsageError, VmhostError
from vmhost.model.netsteps import HostRoute, step_from_json, step_to_json
from vmhost.model.network import LinkManager
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site
from vmhost.plan.hostlinks import vlan_link_name
from vmhost.testing import FakeHost
from vmhost.testing.world import Link

HEAD = "apiVersion: vmhost/v1\nname: shop\n"
UPLINKED = f"""{HEAD}
bridges:
  br0: {{mode: vlan-aware, uplink: eno1, native: 10}}
networks:
  mgmt:
    bridge: br0
    vlan: 10
    address: 192.0.2.5/24
    routes: [{{to: default, via: 192.0.2.1}}]
  prod: {{bridge: br0, vlan: 100, reach: agent}}
  lab: {{bridge: br0, vlan: 200, address: 10.2.0.1/24}}
"""
DEFAULT = HostRoute("0.0.0.0/0", "192.0.2.1", "eno1", "", 0, 3, 0)


@pytest.fixture
def fake() -> FakeHost:
    """A host with a network card that has its address and default route, another card, and foreign links."""
    fake = FakeHost()
    fake.add_link(Link("eno1", kind="", mac="52:54:00:00:00:01", addresses=["192.0.2.5/24"]))
    fake.add_link(Link("eno2", kind="", mac="52:54:00:00:00:02"))
    fake.add_link(Link("docker0", addresses=["172.17.0.1/16"]))
    fake.world.routes.append(DEFAULT)
    return fake


def _host(fake: FakeHost) -> Host:
    return Host(ports=fake.ports)


def _apply(fake: FakeHost, text: str, *, prune: tuple[str, ...] = (), confirm: bool = True) -> None:
    host = _host(fake)
    host.apply(host.plan_network(parse_site(text), prune=prune))
    change = host.network_change()
    if confirm and change is not None and change.open:
        host.apply(host.plan_confirmation())


def _against(fake: FakeHost, text: str) -> VmhostError:
    with pytest.raises(VmhostError) as caught:
        _host(fake).plan_network(parse_site(text))
    assert caught.value.hint
    return caught.value


def test_the_plan_reads_as_agreed(fake: FakeHost) -> None:
    assert str(_host(fake).plan_network(parse_site(UPLINKED))).splitlines() == [
        "  1 live        network: back to what it is now, unless this is confirmed within 60 s",
        "  2 live        eno1: no route to default",
        "  3 live        eno1: no address 192.0.2.5/24",
        "  4 live        br0: new bridge that keeps VLANs apart",
        "  5 live        br0: uplink eno1",
        "  6 live        br0: uplink eno1: PVID 10, tagged 100,200",
        "  7 live        br0: the host itself in VLAN 10,200",
        "  8 live        br0.10: new VLAN link with 192.0.2.5/24",
        "  9 live        br0.200: new VLAN link with 10.2.0.1/24",
        " 10 live        br0.10: route to default by 192.0.2.1",
        " 11 live        network: wait 60 s for vmhost net confirm",
    ]


def test_a_confirmed_network_stays_and_leaves_nothing_to_do(fake: FakeHost) -> None:
    _apply(fake, UPLINKED)
    host, site = _host(fake), parse_site(UPLINKED)
    assert host.plan_network(site).empty
    assert host.drift(site) == ()
    assert fake.world.links["eno1"].addresses == []
    assert fake.world.routes == [HostRoute("0.0.0.0/0", "192.0.2.1", "br0.10")]
    fake.advance(10_000)
    assert host.plan_network(site).empty
    assert fake.world.links["docker0"].addresses == ["172.17.0.1/16"]


def test_a_change_that_nobody_confirms_is_taken_back(fake: FakeHost) -> None:
    before = fake.state()
    _apply(fake, UPLINKED, confirm=False)
    host = _host(fake)
    with pytest.raises(Refused, match="waits for its confirmation"):
        host.plan_network(parse_site(UPLINKED))
    with pytest.raises(Refused, match="waits for its confirmation"):
        host.plan(parse_site(HEAD))
    fake.advance(61)
    assert fake.state() == before
    with pytest.raises(Refused, match="too late"):
        host.plan_confirmation()
    _apply(fake, UPLINKED)


def test_there_is_nothing_to_confirm(fake: FakeHost) -> None:
    with pytest.raises(NotFound, match="no network change waits"):
        _host(fake).plan_confirmation()


@pytest.mark.parametrize("seconds", [0, 4, 3601])
def test_a_time_that_nobody_can_confirm_in_is_refused(fake: FakeHost, seconds: int) -> None:
    with pytest.raises(UsageError):
        _host(fake).plan_network(parse_site(UPLINKED), confirm=seconds)


def test_the_apply_of_a_whole_site_leaves_uplinks_alone(fake: FakeHost) -> None:
    with pytest.raises(Refused) as caught:
        _host(fake).plan(parse_site(UPLINKED))
    assert "vmhost net apply" in caught.value.hint
    _apply(fake, UPLINKED)
    assert _host(fake).plan(parse_site(UPLINKED)).empty


def test_what_a_network_needed_goes_with_it(fake: FakeHost) -> None:
    _apply(fake, UPLINKED)
    less = "".join(line for line in UPLINKED.splitlines(keepends=True) if not line.startswith(("  prod", "  lab")))
    host = _host(fake)
    fields = {(item.guest, item.field): item.outside for item in host.drift(parse_site(less))}
    assert fields == {("br0", "uplink.vlans"): False, ("br0", "vlans"): False, ("br0.200", "address"): False}
    _apply(fake, less)
    assert "br0.200" not in fake.world.links
    assert (fake.world.vlans["eno1"].pvid, fake.world.vlans["eno1"].tagged) == (10, "")
    assert fake.world.vlans["br0"].tagged == "10"


def test_what_somebody_else_changed_is_told_from_what_the_site_changed(fake: FakeHost) -> None:
    _apply(fake, UPLINKED)
    fake.world.vlans["eno1"].tagged = "100"
    fake.world.links["br0"].mtu = 1400
    (mtu, vlans) = _host(fake).drift(parse_site(UPLINKED))
    assert (mtu.field, mtu.want, mtu.have) == ("mtu", "1500", "1400")
    assert (vlans.field, vlans.outside) == ("uplink.vlans", True)
    _apply(fake, UPLINKED)
    assert _host(fake).drift(parse_site(UPLINKED)) == ()


def test_an_uplink_is_exchanged_and_taken_away(fake: FakeHost) -> None:
    plain = f"{HEAD}bridges: {{br0: {{uplink: UPLINK}}}}\n"
    _apply(fake, plain.replace("UPLINK", "eno2"))
    assert fake.world.links["eno2"].master == "br0"
    fake.add_link(Link("eno3", kind="", mac="52:54:00:00:00:03", up=False))
    _apply(fake, plain.replace("UPLINK", "eno3"))
    assert (fake.world.links["eno2"].master, fake.world.links["eno3"].master) == ("", "br0")
    _apply(fake, plain.replace("{uplink: UPLINK}", "{}"))
    assert fake.world.links["eno3"].master == ""
    assert _host(fake).plan_network(parse_site(plain.replace("{uplink: UPLINK}", "{}"))).empty


def test_a_port_that_somebody_else_added_stays(fake: FakeHost) -> None:
    plain = f"{HEAD}bridges: {{br0: {{}}}}\n"
    _apply(fake, plain)
    fake.world.links["eno2"].master = "br0"
    assert _host(fake).plan_network(parse_site(plain)).empty
    (bridge,) = [row for row in _host(fake).network() if row.name == "br0"]
    assert [(port.name, port.role) for port in bridge.ports] == [("eno2", "foreign")]


def test_a_bridge_that_left_the_site_is_pruned_by_name_only(fake: FakeHost) -> None:
    before = fake.state()["links"]
    elsewhere = UPLINKED.replace("192.0.2.5/24", "192.0.3.5/24").replace("eno1", "eno2")
    _apply(fake, elsewhere.replace("    routes: [{to: default, via: 192.0.2.1}]\n", ""))
    plan = _host(fake).plan_network(parse_site(HEAD)).plan
    assert [note.subject for note in plan.notes] == ["br0"]
    assert "DeleteBridge" not in str(plan.steps)
    _apply(fake, HEAD, prune=("br0",))
    assert fake.state()["links"] == before
    assert fake.world.kept == {}
    with pytest.raises(NotFound, match="no such bridge"):
        _host(fake).plan_network(parse_site(HEAD), prune=["br0"])


def test_where_systemd_is_the_network_is_made_anew_at_boot(fake: FakeHost) -> None:
    fake.world.systemd = True
    plain = f"{HEAD}bridges: {{br0: {{}}}}\n"
    why = [item.why for item in _host(fake).plan_network(parse_site(plain)).plan.steps]
    assert why == [
        "br0: new bridge",
        "network: keep it for the next boot",
        "network: a unit that makes it anew at every boot, before libvirt",
    ]
    _apply(fake, plain)
    assert fake.world.unit
    assert _host(fake).plan_network(parse_site(plain)).empty
    _apply(fake, HEAD, prune=("br0",))
    assert (fake.world.unit, fake.world.kept) == (False, {})


def test_an_unknown_uplink_is_refused(fake: FakeHost) -> None:
    error = _against(fake, UPLINKED.replace("eno1", "eno9"))
    assert "there is no link eno9" in str(error)
    assert isinstance(error, NotFound)


def test_an_uplink_in_another_bridge_is_refused(fake: FakeHost) -> None:
    fake.world.links["eno2"].master = "docker0"
    error = _against(fake, f"{HEAD}bridges: {{br0: {{uplink: eno2}}}}\n")
    assert "eno2 is a port of docker0" in str(error)
    assert isinstance(error, Conflict)


def test_a_member_of_a_bond_is_refused(fake: FakeHost) -> None:
    fake.add_link(Link("bond0", kind="bond", mac="52:54:00:00:00:04"))
    fake.world.links["eno2"].master = "bond0"
    assert "name bond0 instead" in str(_against(fake, f"{HEAD}bridges: {{br0: {{uplink: eno2}}}}\n"))


def test_an_mtu_beyond_the_uplinks_is_refused(fake: FakeHost) -> None:
    error = _against(fake, f"{HEAD}bridges: {{br0: {{uplink: eno2, mtu: 9000}}}}\n")
    assert "mtu 9000 is more than the 1500 of its uplink eno2" in str(error)


@pytest.mark.parametrize(("name", "what"), [("lo", "the loopback"), ("docker0", "a bridge"), ("tap9", "a guest")])
def test_what_is_no_way_to_the_wire_is_refused(fake: FakeHost, name: str, what: str) -> None:
    fake.add_link(Link("tap9", kind="tun", mac="52:54:00:00:00:09"))
    assert what in str(_against(fake, f"{HEAD}bridges: {{br0: {{uplink: {name}}}}}\n"))


def test_an_address_or_route_that_would_be_lost_is_refused(fake: FakeHost) -> None:
    text = str(_against(fake, f"{HEAD}bridges: {{br0: {{uplink: eno1}}}}\n"))
    assert "eno1 has 192.0.2.5/24, which nobody would reach any more" in text
    assert "the host's route to default by eno1 would be lost" in text


def test_the_address_of_an_uplink_may_go_to_a_plain_bridge(fake: FakeHost) -> None:
    text = f"{HEAD}bridges: {{br0: {{uplink: eno1, address: 192.0.2.5/24}}}}\nnetworks:\n"
    text += "  lan: {bridge: br0, subnet: 192.0.2.0/24, routes: [{to: default, via: 192.0.2.1}]}\n"
    _apply(fake, text)
    assert fake.world.links["br0"].addresses == ["192.0.2.5/24"]
    assert fake.world.routes == [HostRoute("0.0.0.0/0", "192.0.2.1", "br0")]
    assert _host(fake).plan_network(parse_site(text)).empty


def test_a_vlan_link_on_the_uplink_is_refused(fake: FakeHost) -> None:
    fake.add_link(Link("eno2.100", kind="vlan", mac="52:54:00:00:00:02", parent="eno2", vid=100))
    text = f"{HEAD}bridges: {{br0: {{mode: vlan-aware, uplink: eno2}}}}\nnetworks:\n"
    error = _against(fake, text + "  prod: {bridge: br0, vlan: 100, reach: agent}\n")
    assert "eno2.100 takes VLAN 100 from eno2" in str(error)


def test_who_else_manages_the_uplink_is_named_with_the_lines_that_end_it(fake: FakeHost) -> None:
    fake.world.managers.append(LinkManager("eno2", "NetworkManager", ("nmcli device set eno2 managed no",)))
    error = _against(fake, f"{HEAD}bridges: {{br0: {{uplink: eno2}}}}\n")
    assert "NetworkManager configures eno2" in str(error)
    assert error.hint == "nmcli device set eno2 managed no"


def test_a_route_that_is_there_is_not_doubled(fake: FakeHost) -> None:
    text = UPLINKED.replace("uplink: eno1, native: 10", "")
    assert "there is a route to 0.0.0.0/0 by eno1 already" in str(_against(fake, text))


def test_every_step_survives_its_journal(fake: FakeHost) -> None:
    plan = _host(fake).plan_network(parse_site(UPLINKED)).plan
    for item in plan.steps[1:-1]:
        for step in (item.do, item.undo):
            assert step_from_json(step_to_json(step)) == step  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no step"):
        step_from_json({"kind": "power-off"})
    with pytest.raises(ValueError):
        step_from_json({"kind": "attach-uplink", "link": "eno1"})


def test_a_vlan_link_has_a_name_of_less_than_15_bytes() -> None:
    assert vlan_link_name("br0", 4094) == "br0.4094"
    assert len(vlan_link_name("br-of-many-byt", 4094)) < 15
    assert vlan_link_name("br-of-many-byt", 5) != vlan_link_name("br-of-many-bye", 5)


def test_a_hypervisor_that_is_not_this_machines_is_refused(fake: FakeHost) -> None:
    observed = _host(fake).observe()
    from vmhost.plan.network import plan_network

    away = replace(observed, host=replace(observed.host, local=False))
    with pytest.raises(Refused, match="of this machine"):
        plan_network(parse_site(UPLINKED), away, seconds=60)
