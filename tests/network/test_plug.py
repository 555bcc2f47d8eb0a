"""NICs that are plugged into a running guest, and taken out, by the engine: in their VLAN from the first moment."""

from __future__ import annotations

import pytest

from tests.labfixture import InLab
from tests.network.conftest import GUESTS, Trio
from tests.network.guests import BRIDGE
from tests.network.sniffer import Sniffer, until
from vmhost.drivers.netlink import Netlink
from vmhost.engine.context import Context
from vmhost.engine.execute import execute, undo
from vmhost.model.errors import Absent, AlreadyThere
from vmhost.model.identity import tap_name
from vmhost.model.steps import PlugNic, SetNicLink, SetPortVlans, UnplugNic
from vmhost.model.vlans import NO_VLAN, port_vlans
from vmhost.ops.host import connect

pytestmark = [pytest.mark.uml, GUESTS, pytest.mark.timeout(300)]

MAC = "52:54:00:77:77:01"
XML = """
<interface type='bridge'><mac address='{mac}'/><source bridge='{bridge}'/><target dev='{tap}'/><model type='virtio'/>
<rom enabled='no'/><link state='down'/><alias name='ua-nic-more'/></interface>"""


def test_a_nic_comes_into_its_vlan_and_goes(lab: InLab, trio: Trio, ear: Sniffer) -> None:
    guest = trio.one
    tap = tap_name(guest.uuid, 1)
    with connect() as host:
        context = Context(host.ports)
        plug = PlugNic(guest.uuid, guest.name, MAC, XML.format(mac=MAC, bridge=BRIDGE, tap=tap))
        execute(plug, context)
        port = next(link for link in Netlink().links() if link.name == tap)
        assert (port.master, port.vlans) == (BRIDGE, NO_VLAN)
        with pytest.raises(AlreadyThere):
            execute(plug, context)

        # Its system sees it, and sends all the time from now on: nothing passes before the port is in its VLAN.
        assert until(lambda: guest.run("ip link set eth1 up")[0] == 0)
        guest.run("ip addr add 10.1.9.1/24 dev eth1; ping -q -i 0.1 10.1.9.255 >/dev/null 2>&1 &")
        assert guest.run("cat /sys/class/net/eth1/carrier")[1].strip() == "0"
        execute(SetPortVlans(tap, 200, "200", ""), context)
        assert ear.heard(MAC) == []
        execute(SetNicLink(guest.uuid, guest.name, MAC, True), context)
        assert until(lambda: len(ear.heard(MAC)) > 5)
        assert ear.vids(MAC) == {200}

        # The way back, as undos do it.
        undo(SetNicLink(guest.uuid, guest.name, MAC, False), context)
        undo(SetPortVlans(tap, 0, "", ""), context)
        assert next(link.vlans for link in Netlink().links() if link.name == tap) == NO_VLAN
        guest.run("killall ping")  # its shell ends, and with it the guest, when a NIC goes while something sends by it
        execute(UnplugNic(guest.uuid, guest.name, MAC), context)
        assert tap not in {link.name for link in Netlink().links()}
        with pytest.raises(Absent):
            execute(UnplugNic(guest.uuid, guest.name, MAC), context)
        undo(UnplugNic(guest.uuid, guest.name, MAC), context)
    assert ear.vids(MAC) == {200}
    assert guest.vlans == port_vlans(100)
    assert guest.reaches("10.1.1.2")


def test_a_nic_that_others_plug_in_is_in_no_vlan(lab: InLab, trio: Trio, ear: Sniffer) -> None:
    mac = "52:54:00:77:77:02"
    lab.virsh("attach-interface", "other", "bridge", BRIDGE, "--model", "virtio", "--mac", mac, timeout=90)
    try:
        tap = next(row.split()[0] for row in lab.virsh("domiflist", "other").text.splitlines() if mac in row)
        assert next(link.vlans for link in Netlink().links() if link.name == tap) == NO_VLAN
        with connect() as host:
            found = {item.title for item in host.doctor(only="network") if item.id == "foreign-tap"}
        assert any(tap in title for title in found)
        assert ear.heard(mac) == []
    finally:
        lab.virsh("detach-interface", "other", "bridge", "--mac", mac, timeout=90)
