"""``guest attach`` and ``guest detach`` on a fake host: what they plan, what they refuse, and what the site is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.reliability.scene import told, vmhost
from vmhost.drivers.command import Completed
from vmhost.model.errors import NotFound, Refused, SpecError
from vmhost.model.spec import Site
from vmhost.model.vlans import port_vlans
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site
from vmhost.testing import FakeHost

NIC = "{network: store, address: 10.30.0.77}"
SITE = """
apiVersion: vmhost/v1
name: shop
bridges: {br0: {mode: vlan-aware}}
networks:
  front: {bridge: br0, vlan: 100, subnet: 10.20.0.0/24, reach: agent}
  store: {bridge: br0, vlan: 200, subnet: 10.30.0.0/24, reach: agent, isolated: true, spoofing: refused}
defaults: {image: debian-12, memory: 128M, disks: [{size: 4G}], ready: {by: none}}
guests:
  web:
    count: 2
    nics: [{network: front}]
  other: {state: stopped, nics: [{network: front}%s]}
"""


def site(more: str = "") -> Site:
    return parse_site(SITE % (f", {more}" if more else ""), "shop.yaml")


@pytest.fixture
def fake() -> FakeHost:
    host = FakeHost()
    host.add_image("debian-12")
    made = Host(ports=host.ports)
    made.apply(made.plan(site()))
    return host


@pytest.fixture
def host(fake: FakeHost) -> Host:
    return Host(ports=fake.ports)


def test_a_nic_comes_and_goes_while_the_guest_runs(host: Host) -> None:
    host.apply(host.nics.plan_attach(site(), "web-01", network="store", address="10.30.0.77"))
    observed = host.observe()
    domain = observed.domain("web-01")
    assert domain is not None
    assert domain.metadata is not None
    nic = domain.metadata.identity.nics[1]
    link = observed.link(nic.tap)
    assert link is not None
    assert (link.vlans, link.isolated, domain.plugged(nic.tap)) == (port_vlans(200), True, True)
    assert [one.port for one in observed.guards] == [nic.tap]
    assert domain.metadata.command == "guest attach web-01"
    with pytest.raises(Refused, match="changed by command 'guest attach web-01'"):
        host.plan(site())
    with pytest.raises(Refused, match="changed by command 'guest attach web-01'"):
        host.nics.plan_detach(site(), "web-02", "front")


def test_a_stopped_guest_has_it_at_its_next_start_and_the_file_makes_it_whole(host: Host) -> None:
    told = str(host.nics.plan_attach(site(), "other", network="store", address="10.30.0.77"))
    assert "plug in" not in told
    assert 'add {"network": "store", "id": "store", "address": "10.30.0.77"} to its nics in shop.yaml' in told
    host.apply(host.nics.plan_attach(site(), "other", network="store", address="10.30.0.77"))
    host.apply(host.plan(site(NIC)))
    assert host.plan(site(NIC)).empty
    told = str(host.nics.plan_detach(site(NIC), "other", "store"))
    assert "let 10.30.0.77 rest for an hour" in told
    host.apply(host.nics.plan_detach(site(NIC), "other", "store"))
    host.apply(host.plan(site()))
    assert host.drift(site()) == ()


@pytest.mark.parametrize(
    ("nic", "error", "words"),
    [
        ({"network": "nowhere"}, SpecError, "network: there is no network 'nowhere'"),
        ({"network": "store", "address": "10.20.0.9"}, SpecError, "address: 10.20.0.9 is not in the subnet"),
        ({"network": "front", "id": "front"}, SpecError, "front"),
        ({"network": "store", "tagged": "4096"}, SpecError, "tagged: .*4096"),
        ({"network": "store", "mac": "no"}, SpecError, "mac"),
        ({"network": "store", "colour": "red"}, SpecError, "colour"),
    ],
)
def test_what_is_no_nic_is_refused(host: Host, nic: dict[str, str], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        host.nics.plan_attach(site(), "web-01", **nic)


def test_who_or_what_is_not_there_is_said(host: Host) -> None:
    with pytest.raises(NotFound, match="site shop has no such guest"):
        host.nics.plan_attach(site(), "web-03", network="store")
    with pytest.raises(NotFound, match=r"no NIC store \(it has: front\)"):
        host.nics.plan_detach(site(), "web-01", "store")


def test_nothing_else_is_done_on_the_way(host: Host) -> None:
    changed = parse_site(SITE.replace("count: 2", "count: 3") % "", "shop.yaml")
    with pytest.raises(Refused, match=r"the host is not as shop\.yaml says: that comes first") as caught:
        host.nics.plan_attach(changed, "web-01", network="store")
    assert caught.value.hint == "vmhost apply shop.yaml"


def test_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "one.yaml"
    file.write_text(
        "{apiVersion: vmhost/v1, name: one, networks: {lan: {bridge: br0, subnet: 10.20.0.0/24}}, guests: {one-01: "
        "{image: debian-12, memory: 128M, disks: [{size: 4G}], ready: {by: none}, nics: [{network: lan}]}}}"
    )
    env = {**os.environ, "VMHOST_FAKE_STATE": str(tmp_path / "host")}

    def type_in(*words: str) -> Completed:
        return vmhost("-c", "fake:demo", *words, env=env)

    of_site = ("--site", str(file))
    assert type_in("apply", str(file), "--yes").code == 0
    attach = ("guest", "attach", "one-01", *of_site, "--network", "lan", "--id", "more", "--address", "10.20.0.77")
    shown = type_in(*attach, "--dry-run")
    assert (shown.code, "one-01: plug in NIC more with its link down" in shown.text) == (0, True)
    assert "note" in told(type_in(*attach, "--yes")) + type_in("guest", "show", "one-01").text
    assert "10.20.0.77/24" in type_in("guest", "show", "one-01").text
    again = type_in(*attach, "--yes")
    assert (again.code, "changed by command 'guest attach one-01'" in told(again)) == (4, True)
    assert type_in("apply", str(file), "--overwrite", "one-01", "--yes").code == 0
    assert "10.20.0.77/24" not in type_in("guest", "show", "one-01").text

    assert type_in("guest", "detach", "one-01", "none", *of_site, "--yes").code == 3
    assert type_in("guest", "detach", "one-01", "lan", *of_site).code == 2  # nobody is there to say yes
    assert type_in("guest", "detach", "one-01", "lan", *of_site, "--yes").code == 0
    assert type_in("guest", "attach", "one-01", *of_site, "--network", "nowhere", "--yes").code == 2
