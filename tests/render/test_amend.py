"""Definitions changed in what is ours; what others put there stays."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lxml import etree

from tests.render.cases import CASES, GIB, GOLDEN, NETWORKS, packaged
from vmhost.drivers.schemas import domain_schema
from vmhost.model.errors import DamagedData, NotFound, Refused
from vmhost.model.identity import NicIdentity
from vmhost.render import amend
from vmhost.render.document import same
from vmhost.render.domain import DiskPath
from vmhost.render.parse.domain import parse_domain
from vmhost.render.parse.metadata import parse_metadata
from vmhost.render.shape import flat
from vmhost.render.validate import validate_domain

TEMPLATES = packaged()
FOREIGN = """
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>old</name><uuid>3f2a91c4-6c1d-4a8e-9b57-0d1e2f3a4b5c</uuid><title>the boss's machine</title>
  <metadata><app:x xmlns:app='urn:app'>kept</app:x></metadata>
  <memory unit='KiB'>2097152</memory><currentMemory unit='KiB'>1048576</currentMemory>
  <vcpu placement='static' cpuset='0-1' current='1'>4</vcpu>
  <vcpus><vcpu id='0' enabled='yes' hotpluggable='no'/><vcpu id='1' enabled='no' hotpluggable='yes'/></vcpus>
  <cputune><vcpupin vcpu='0' cpuset='0'/><vcpupin vcpu='3' cpuset='1'/></cputune>
  <os><type arch='x86_64' machine='pc-q35-6.2'>hvm</type></os>
  <cpu mode='host-model'><topology sockets='1' dies='1' cores='2' threads='2'/></cpu>
  <devices>
    <disk type='file' device='disk'><source file='/a'/><target dev='vda' bus='virtio'/>
      <address type='pci' bus='0x04'/></disk>
    <disk type='file' device='disk'><source file='/c'/><target dev='vdc' bus='virtio'/></disk>
    <interface type='network'><mac address='52:54:00:00:00:01'/><source network='default'/></interface>
    <sound model='ich9'/>
  </devices>
  <qemu:commandline><qemu:arg value='-device'/><qemu:arg value='edu,bus=pcie.0,addr=0x10'/></qemu:commandline>
</domain>
"""


def case(name: str) -> str:
    return (GOLDEN / f"{name}.xml").read_text()


def kept(before: str, after: str, *changed: str) -> None:
    """Assert that both documents are alike once the named elements are taken out of both."""
    one, other = etree.fromstring(before), etree.fromstring(after)
    for root in (one, other):
        for path in changed:
            for element in root.findall(path):
                element.getparent().remove(element)
    assert same(etree.tostring(one, encoding="unicode"), etree.tostring(other, encoding="unicode"))


@pytest.mark.parametrize("name", CASES)
def test_amending_leads_to_what_would_have_been_rendered(name: str) -> None:
    """A guest that grew by amending is the guest that a larger spec would have made; a picture of its pCPUs is
    taken away before, as plans do.
    """
    old = CASES[name]
    xml = flat(old.render()) if old.tuning.shape else old.render()
    grown = replace(
        old,
        tuning=replace(old.tuning, shape=None),
        spec=old.spec.model_copy(
            update={
                "cpus": CASES["growing"].spec.cpus,
                "memory": CASES["growing"].spec.memory,
            }
        ),
    )
    metadata = grown.context().metadata
    xml = amend.with_memory(xml, 2 * GIB, 8 * GIB)
    xml = amend.with_metadata(amend.with_vcpus(xml, 2, 4), metadata)
    assert xml == grown.render()


def test_memory_grows_and_shrinks_with_its_maximum() -> None:
    grown = amend.with_memory(case("smallest"), 2 * GIB, 8 * GIB)
    assert (parse_domain(grown).memory, parse_domain(grown).max_memory) == (2 * GIB, 8 * GIB)
    assert etree.fromstring(grown).find("maxMemory").get("slots") == "16"
    assert etree.fromstring(grown).find("cpu/numa/cell").get("memory") == str(2 * GIB >> 10)
    assert amend.with_memory(grown, GIB, GIB) == case("smallest")


def test_memory_of_another_unit() -> None:
    xml = "<domain><memory unit='GiB'>2</memory><vcpu>3</vcpu></domain>"
    changed = parse_domain(amend.with_memory(xml, GIB, 2 * GIB))
    assert (changed.memory, changed.max_memory) == (GIB, 2 * GIB)
    assert etree.fromstring(amend.with_memory(xml, GIB, 2 * GIB)).find("cpu/numa/cell").get("cpus") == "0-2"


def test_memory_keeps_the_rest() -> None:
    changed = amend.with_memory(FOREIGN, 3 * GIB, 4 * GIB)
    kept(FOREIGN, changed, "memory", "currentMemory", "maxMemory", "cpu/numa")


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("<cpu><numa><cell id='0' memory='1'/><cell id='1' memory='1'/></numa></cpu>", "2 NUMA cells"),
        ("<devices><memory model='dimm'/></devices>", "memory modules"),
    ],
)
def test_memory_that_is_not_ours_to_divide(part: str, words: str) -> None:
    xml = f"<domain><name>n</name><memory>1</memory>{part}</domain>"
    with pytest.raises(Refused, match=words) as caught:
        amend.with_memory(xml, GIB, GIB)
    assert (caught.value.subject, caught.value.hint) == ("n", "virsh edit n")


def test_vcpus_and_what_depends_on_them() -> None:
    changed = amend.with_vcpus(FOREIGN, 2, 2)
    root = etree.fromstring(changed)
    assert (parse_domain(changed).vcpus, parse_domain(changed).max_vcpus) == (2, 2)
    assert root.find("vcpu").get("current") is None
    assert root.find("vcpu").get("cpuset") == "0-1"
    assert [pin.get("vcpu") for pin in root.findall("cputune/vcpupin")] == ["0"]
    topology = dict(root.find("cpu/topology").attrib)
    assert topology == {"sockets": "1", "dies": "1", "cores": "1", "threads": "2"}
    kept(FOREIGN, changed, "vcpu", "vcpus", "cputune", "cpu")


@pytest.mark.parametrize(("maximum", "pinned"), [(2, ["0"]), (3, ["0"]), (4, ["0", "3"])])
def test_pins_of_vcpus_that_are_gone_go(maximum: int, pinned: list[str]) -> None:
    root = etree.fromstring(amend.with_vcpus(FOREIGN, 2, maximum))
    assert [pin.get("vcpu") for pin in root.findall("cputune/vcpupin")] == pinned


def test_a_topology_that_does_not_divide_becomes_one_socket() -> None:
    topology = etree.fromstring(amend.with_vcpus(FOREIGN, 3, 3)).find("cpu/topology")
    assert dict(topology.attrib) == {"sockets": "1", "dies": "1", "cores": "3", "threads": "1"}


def test_vcpus_keep_their_single_states_when_nothing_changes() -> None:
    assert amend.with_vcpus(FOREIGN, 1, 4) == amend.normal(FOREIGN.replace("cores='2'", "cores='2'"))


def test_vcpus_in_several_numa_cells_are_refused() -> None:
    xml = "<domain><name>n</name><vcpu>2</vcpu><cpu><numa><cell cpus='0'/><cell cpus='1'/></numa></cpu></domain>"
    with pytest.raises(Refused):
        amend.with_vcpus(xml, 4, 4)


def test_a_disk_takes_the_lowest_free_target_and_stands_before_the_seed() -> None:
    changed = amend.with_disk_added(case("disks"), DiskPath("more", "/d/<m>"), TEMPLATES)
    assert validate_domain(changed, domain_schema()) == ()
    disks = parse_domain(changed).disks
    assert [disk.target for disk in disks] == ["vda", "vdb", "vdc", "vdd", "vdz"]
    assert (disks[3].alias, disks[3].source, disks[4].alias) == ("ua-disk-more", "/d/<m>", "ua-seed")
    without = amend.with_disk_removed(changed, "data1")
    again = amend.with_disk_added(without, DiskPath("data2", "/d/2"), TEMPLATES)
    assert [disk.target for disk in parse_domain(again).disks] == ["vda", "vdc", "vdd", "vdb", "vdz"]


def test_a_disk_for_a_foreign_guest_follows_its_disks() -> None:
    changed = amend.with_disk_added(FOREIGN, DiskPath("data1", "/d"), TEMPLATES)
    assert [(disk.target, disk.alias) for disk in parse_domain(changed).disks] == [
        ("vda", ""),
        ("vdc", ""),
        ("vdb", "ua-disk-data1"),
    ]
    assert amend.with_disk_removed(changed, "data1") == amend.normal(FOREIGN)


def test_a_disk_that_is_there_gets_the_path_and_keeps_the_rest() -> None:
    xml = case("smallest").replace("<serial>root</serial>", "<serial>mine</serial>")
    changed = amend.with_disk_added(xml, DiskPath("root", "/new", "raw"), TEMPLATES)
    disk = parse_domain(changed).disks[0]
    assert (disk.source, disk.format) == ("/new", "raw")
    kept(xml, changed, "devices/disk/source", "devices/disk/driver")


def test_no_room_for_another_disk() -> None:
    xml = case("smallest")
    for number in range(24):
        xml = amend.with_disk_added(xml, DiskPath(f"d{number}", f"/{number}"), TEMPLATES)
    with pytest.raises(Refused, match="25 disks"):
        amend.with_disk_added(xml, DiskPath("last", "/last"), TEMPLATES)


def test_what_is_not_there_is_taken_out_without_a_word() -> None:
    assert amend.with_disk_removed(FOREIGN, "data1") == amend.normal(FOREIGN)
    assert amend.with_nic_removed(FOREIGN, "prod") == amend.normal(FOREIGN)


def test_a_nic_changes_in_place() -> None:
    xml = case("nics").replace(
        '<mac address="52:54:00:12:34:56"/>', '<mac address="52:54:00:12:34:56"/><link state="down"/>'
    )
    nic = NicIdentity("store", "wide", "52:54:00:99:99:99", "vh3f2a91c4-7")
    changed = amend.with_nic_changed(xml, nic, NETWORKS["wide"], TEMPLATES)
    found = parse_domain(changed).nics[1]
    assert (found.mac, found.source, found.tap) == (nic.mac, "br0", nic.tap)
    element = etree.fromstring(changed).findall("devices/interface")[1]
    assert element.find("mtu").get("size") == "1400"
    assert element.find("link").get("state") == "down"
    plain = amend.with_nic_changed(changed, replace(nic, network="prod"), NETWORKS["prod"], TEMPLATES)
    assert etree.fromstring(plain).findall("devices/interface")[1].find("mtu") is None


def test_a_nic_moves_between_a_bridge_and_the_user_network() -> None:
    nic = NicIdentity("store", "nat", "52:54:00:99:99:99", ssh_port=40999)
    changed = amend.with_nic_changed(case("nics"), nic, NETWORKS["nat"], TEMPLATES)
    assert validate_domain(changed, domain_schema()) == ()
    assert [found.alias for found in parse_domain(changed).nics] == ["ua-nic-prod", "ua-nic-second", "ua-nic-store"]
    assert parse_domain(changed).nics[2].source == "127.0.0.1:40999"
    back = replace(nic, network="store", tap="vh3f2a91c4-1", ssh_port=0)
    again = amend.with_nic_changed(changed, back, NETWORKS["store"], TEMPLATES)
    assert etree.fromstring(again).find("{*}commandline") is None
    assert {found.type for found in parse_domain(again).nics} == {"bridge"}


def test_a_user_nic_takes_a_free_slot_and_leaves_other_arguments() -> None:
    nic = NicIdentity("nat", "nat", "52:54:00:00:00:09", ssh_port=40022)
    changed = amend.with_nic_added(FOREIGN, nic, NETWORKS["nat"], TEMPLATES)
    values = [arg.get("value") for arg in etree.fromstring(changed).findall("{*}commandline/{*}arg")]
    assert values[:2] == ["-device", "edu,bus=pcie.0,addr=0x10"]
    assert "addr=0x11" in values[-1]
    moved = amend.with_nic_changed(changed, replace(nic, ssh_port=40023), NETWORKS["nat"], TEMPLATES)
    assert parse_domain(moved).nics[-1].source == "127.0.0.1:40023"
    assert "addr=0x11" in etree.fromstring(moved).findall("{*}commandline/{*}arg")[-1].get("value")
    assert amend.with_nic_removed(changed, "nat") == amend.normal(FOREIGN)


def test_user_nics_come_to_an_end() -> None:
    xml = case("smallest")
    for number in range(10):
        nic = NicIdentity(f"n{number}", "nat", f"52:54:00:00:00:{number:02x}")
        xml = amend.with_nic_added(xml, nic, NETWORKS["nat"], TEMPLATES)
    assert validate_domain(xml, domain_schema()) == ()
    with pytest.raises(Refused, match="at most 10"):
        amend.with_nic_added(xml, NicIdentity("x", "nat", "52:54:00:00:00:99"), NETWORKS["nat"], TEMPLATES)


def test_metadata_beside_that_of_others() -> None:
    metadata = CASES["nics"].context().metadata
    changed = amend.with_metadata(FOREIGN, metadata)
    assert parse_metadata(changed) == metadata
    assert etree.fromstring(changed).findtext("metadata/{urn:app}x") == "kept"
    once_more = amend.with_metadata(changed, replace(metadata, owner="other"))
    assert parse_metadata(once_more) == replace(metadata, owner="other")
    assert amend.with_metadata(once_more, metadata) == changed


def test_metadata_where_there_is_none() -> None:
    metadata = CASES["nics"].context().metadata
    bare = f"<domain><name>n</name><uuid>{metadata.identity.uuid}</uuid></domain>"
    assert parse_metadata(amend.with_metadata(bare, metadata)) == metadata


def test_a_name_and_the_title_that_follows_it() -> None:
    changed = etree.fromstring(amend.with_name(case("smallest"), "web-02"))
    assert (changed.findtext("name"), changed.findtext("title")) == ("web-02", "shop/web-02")
    other = etree.fromstring(amend.with_name(FOREIGN, "new"))
    assert (other.findtext("name"), other.findtext("title")) == ("new", "the boss's machine")


def test_a_device_alone() -> None:
    device = etree.fromstring(amend.device_xml(case("disks"), "ua-disk-data1"))
    assert (device.tag, device.find("target").get("dev")) == ("disk", "vdb")
    with pytest.raises(NotFound):
        amend.device_xml(case("disks"), "ua-disk-data2")


def test_no_xml() -> None:
    with pytest.raises(DamagedData):
        amend.normal("<domain>")
