"""The definition of a drill, made of every kind of ours and of one with all that a drill leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.render.cases import GOLDEN
from vmhost.drivers.schemas import domain_schema
from vmhost.model.errors import DamagedData
from vmhost.render.drill import DrillDomain, drill_xml
from vmhost.render.parse.domain import parse_domain
from vmhost.render.parse.metadata import parse_drill, parse_metadata
from vmhost.render.parse.reading import look_into
from vmhost.render.validate import validate_domain

UUID = "0c7d36e4-1d52-4c0e-8d5c-2f6a7b8c9d0e"
LOADED = """<domain type='kvm'>
  <name>web-01</name><uuid>3f2a91c4-6c1d-4a8e-9b57-0d1e2f3a4b5c</uuid><title>shop/web-01</title>
  <memory unit='KiB'>524288</memory>
  <memoryBacking><hugepages/></memoryBacking>
  <vcpu placement='static' cpuset='1'>1</vcpu>
  <cputune><vcpupin vcpu='0' cpuset='1'/></cputune>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <on_poweroff>restart</on_poweroff>
  <devices>
    <disk type='file' device='cdrom'><source file='/iso'/><target dev='sda' bus='sata'/><readonly/></disk>
    <disk type='block' device='disk'>
      <driver name='qemu' type='raw' cache='none' io='native'/><source dev='/dev/sdz'/><target dev='vda' bus='virtio'/>
      <iotune><total_iops_sec>100</total_iops_sec></iotune>
    </disk>
    <interface type='network'>
      <mac address='52:54:00:00:00:01'/><source network='default' portid='3f2a91c4-6c1d-4a8e-9b57-0d1e2f3a4b5c'/>
      <target dev='vnet7'/><model type='virtio'/><bandwidth><inbound average='128'/></bandwidth>
      <filterref filter='clean-traffic'/>
    </interface>
    <serial type='tcp'><source mode='bind' host='127.0.0.1' service='4000'/><protocol type='telnet'/></serial>
    <serial type='pty'/>
    <channel type='unix'>
      <source mode='bind' path='/var/lib/libvirt/qemu/channel/7/agent'/>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
    <graphics type='vnc' port='5900' listen='0.0.0.0'/>
    <hostdev mode='subsystem' type='pci' managed='yes'>
      <source><address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></source>
    </hostdev>
  </devices>
</domain>"""


def drilled(xml: str) -> str:
    """The drill of a guest."""
    facts = parse_domain(xml)
    macs = [nic.mac for nic in facts.nics if nic.type != "user"]
    return drill_xml(
        xml,
        DrillDomain(
            *(UUID, "vmhost-drill-0c7d36e4", facts.uuid, "point", "/log"),
            disks={disk.target: f"/overlays/{disk.target}" for disk in facts.disks if not disk.readonly},
            nics={mac: (f"vd-{index}", f"vt-{index}") for index, mac in enumerate(macs)},
            forwards={nic.mac: 40022 for nic in facts.nics if nic.type == "user"},
            nvram="/overlays/nvram",
            seed="/overlays/seed",
        ),
    )


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.xml")), ids=lambda path: path.stem)
def test_every_guest_of_ours_has_a_drill_that_libvirt_takes(path: Path) -> None:
    before = path.read_text()
    after = drilled(before)
    assert validate_domain(after, domain_schema()) == ()
    old, new = parse_domain(before), parse_domain(after)
    assert (new.uuid, new.name, new.memory, new.vcpus) == (UUID, "vmhost-drill-0c7d36e4", old.memory, old.vcpus)
    assert all(disk.source.startswith("/overlays/") for disk in new.disks)
    assert [disk.target for disk in new.disks] == [disk.target for disk in old.disks]
    assert [nic.mac for nic in new.nics] == [nic.mac for nic in old.nics]
    assert parse_metadata(after) is None
    assert parse_drill(after) == old.uuid
    assert not parse_drill(before)
    assert "cputune" not in after
    values = [arg.get("value", "") for arg in look_into(after).iter() if arg.tag.endswith("}arg")]
    forwarded = [value for value in values if value.startswith("user,")]
    assert all("restrict=on,hostfwd=tcp:127.0.0.1:40022-:22" in value for value in forwarded)
    assert len(forwarded) == sum(nic.type == "user" for nic in old.nics)


def test_nothing_of_the_host_is_taken_along() -> None:
    after = drilled(LOADED)
    assert validate_domain(after, domain_schema()) == ()
    here = (
        "/iso",
        "sdz",
        "default",
        "portid",
        "vnet7",
        "filterref",
        "bandwidth",
        "5900",
        "hostdev",
        "4000",
        "hugepages",
    )
    assert [
        word for word in (*here, "cpuset", "channel/7", "iotune", "native", "restart", "shop/") if word in after
    ] == []
    assert '<log file="/log" append="on"/>' in after
    assert after.count("<serial") == 1
    (disk,) = parse_domain(after).disks
    assert (disk.source, disk.format) == ("/overlays/vda", "qcow2")


PLANTED = """<domain type='kvm' id='7' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web-01</name><uuid>3f2a91c4-6c1d-4a8e-9b57-0d1e2f3a4b5c</uuid>
  <memory unit='KiB'>524288</memory><vcpu>1</vcpu>
  <sysinfo type='fwcfg'><entry name='opt/evil' file='/evil/fwcfg'/></sysinfo>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type><loader type='pflash' readonly='yes'>/evil/loader</loader>
    <kernel>/evil/kernel</kernel><initrd>/evil/initrd</initrd><cmdline>evil</cmdline>
    <nvram template='/evil/template'>/evil/nvram</nvram>
  </os>
  <cpu mode='host-model'><numa><cell id='0' cpus='0' memory='524288' memAccess='shared'/></numa></cpu>
  <launchSecurity type='sev'><policy>0x1</policy></launchSecurity>
  <devices>
    <emulator>/evil/emulator</emulator>
    <disk type='file' device='disk' rawio='yes' sgio='unfiltered'>
      <source file='/evil/disk'><encryption format='luks'/></source><target dev='vda' bus='virtio'/><shareable/>
    </disk>
    <interface type='vhostuser'>
      <mac address='52:54:00:00:00:01'/><source type='unix' path='/evil/socket' mode='client'/>
      <model type='virtio'/><rom file='/evil/rom'/><virtualport type='openvswitch'/>
    </interface>
    <interface type='ethernet'><script path='/evil/script'/></interface>
    <serial type='file'><source path='/evil/serial'/><target port='0'/></serial>
    <parallel type='dev'><source path='/evil/parallel'/></parallel>
    <channel type='tcp'><source mode='connect' host='evil' service='1'/>
      <target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <channel type='tcp'><source mode='bind' host='0.0.0.0' service='2'/><target type='virtio' name='evil'/></channel>
    <smartcard mode='host-certificates'><certificate>evil</certificate><certificate>evil</certificate>
      <certificate>evil</certificate><database>/evil/cards</database></smartcard>
    <input type='evdev'><source dev='/evil/input'/></input>
    <input type='tablet' bus='usb'/>
    <rng model='virtio'><backend model='egd' type='tcp'><source mode='connect' host='evil' service='3'/></backend></rng>
    <memory model='nvdimm' access='shared'>
      <source><path>/evil/nvdimm</path></source><target><size unit='KiB'>1024</size><node>0</node></target>
    </memory>
    <memory model='dimm'>
      <source><pagesize unit='KiB'>2048</pagesize></source><target><size unit='KiB'>1024</size><node>0</node></target>
    </memory>
    <vsock model='virtio'><cid auto='no' address='666'/></vsock>
    <lease><lockspace>evil</lockspace><key>evil</key><target path='/evil/lease'/></lease>
    <sound model='ich9'/><audio id='1' type='file' path='/evil/audio'/>
    <crypto model='virtio' type='qemu'><backend model='builtin'/></crypto>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-netdev'/><qemu:arg value='tap,id=host-nat,ifname=evil0,script=/evil/up'/>
    <qemu:arg value='-device'/>
    <qemu:arg value='virtio-net-pci,netdev=host-nat,mac=52:54:00:00:00:02,bus=pcie.0,addr=0x10,romfile=/evil/rom'/>
    <qemu:arg value='-nic'/><qemu:arg value='user,hostfwd=tcp:0.0.0.0:666-:22'/>
    <qemu:arg value='-drive'/><qemu:arg value='file=/evil/drive'/>
    <qemu:arg value='-device'/><qemu:arg value='virtio-net-pci,netdev=evil,mac=evil'/>
    <qemu:env name='EVIL' value='evil'/>
  </qemu:commandline>
  <qemu:override><qemu:device alias='evil'/></qemu:override>
</domain>"""


def test_nothing_that_somebody_planted_leads_out_of_it() -> None:
    drill = DrillDomain(
        *(UUID, "vmhost-drill-0c7d36e4", "guest", "point", "/log"),
        disks={"vda": "/overlays/vda"},
        nics={"52:54:00:00:00:01": ("vd-0", "vt-0")},
        forwards={"52:54:00:00:00:02": 40022},
        nvram="/overlays/nvram",
    )
    after = drill_xml(PLANTED, drill)
    assert validate_domain(after, domain_schema()) == ()
    assert [line for line in after.splitlines() if "evil" in line.lower() or "666" in line] == []
    root = look_into(after)
    kinds = ["channel", "disk", "input", "interface", "memory", "rng", "serial"]
    assert sorted(str(device.tag) for device in root.findall("devices/*")) == kinds
    assert [arg.get("value") for arg in root.iter() if arg.tag.endswith("}arg")] == [
        *("-netdev", "user,id=drill0,restrict=on,hostfwd=tcp:127.0.0.1:40022-:22"),
        *("-device", "virtio-net-pci,netdev=drill0,mac=52:54:00:00:00:02,bus=pcie.0,addr=0x10,romfile="),
    ]
    assert "/dev/urandom" in after
    assert parse_domain(after).firmware == "uefi"
    for word in ("rawio", "sgio", "shareable", "encryption", "memAccess", "pagesize", "launchSecurity", "vhostuser"):
        assert word not in after


def test_what_is_no_xml_is_damage() -> None:
    with pytest.raises(DamagedData):
        drill_xml("<domain>", DrillDomain(UUID, "x", "y", "p", "/log", {}, {}, {}))
