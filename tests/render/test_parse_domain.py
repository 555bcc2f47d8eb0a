"""Foreign domains of every kind, as values."""

from __future__ import annotations

import pytest

from vmhost.model.errors import DamagedData
from vmhost.model.observed import DiskFacts, NicFacts
from vmhost.render.parse.domain import parse_domain


def disk(xml: str) -> DiskFacts:
    return parse_domain(f"<domain><devices>{xml}</devices></domain>").disks[0]


def nic(xml: str) -> NicFacts:
    return parse_domain(f"<domain><devices>{xml}</devices></domain>").nics[0]


def test_a_domain_that_says_nothing() -> None:
    facts = parse_domain("<domain/>")
    assert (facts.uuid, facts.name, facts.type, facts.vcpus, facts.max_vcpus) == ("", "", "", 1, 1)
    assert (facts.memory, facts.max_memory, facts.firmware, facts.disks, facts.nics) == (0, 0, "bios", (), ())
    assert (facts.serial_log, facts.description) == ("", "")


def test_an_encoding_declaration_is_no_fault() -> None:
    assert parse_domain("<?xml version='1.0' encoding='UTF-8'?><domain><name>\u00e9</name></domain>").name == "\u00e9"


@pytest.mark.parametrize(
    ("xml", "memory", "most"),
    [
        ("<memory>1024</memory>", 1 << 20, 1 << 20),
        ("<memory unit='GiB'>4</memory><currentMemory unit='MiB'>512</currentMemory>", 512 << 20, 4 << 30),
        ("<maxMemory slots='2' unit='GiB'>8</maxMemory><memory unit='GiB'>4</memory>", 4 << 30, 8 << 30),
        ("<memory unit='KB'>1000</memory>", 1_000_000, 1_000_000),
    ],
)
def test_memory(xml: str, memory: int, most: int) -> None:
    facts = parse_domain(f"<domain>{xml}</domain>")
    assert (facts.memory, facts.max_memory) == (memory, most)


@pytest.mark.parametrize(
    ("xml", "firmware"),
    [
        ("<os><type>hvm</type></os>", "bios"),
        ("<os firmware='bios'/>", "bios"),
        ("<os firmware='efi'/>", "uefi"),
        ("<os><loader readonly='yes' type='pflash'>/OVMF.fd</loader></os>", "uefi"),
        ("<os><loader type='rom'>/bios.bin</loader></os>", "bios"),
    ],
)
def test_firmware(xml: str, firmware: str) -> None:
    assert parse_domain(f"<domain>{xml}</domain>").firmware == firmware


@pytest.mark.parametrize(
    ("xml", "source"),
    [
        ("<disk type='file'><source file='/a b'/></disk>", "/a b"),
        ("<disk type='block'><source dev='/dev/sda'/></disk>", "/dev/sda"),
        ("<disk type='volume'><source pool='p' volume='v'/></disk>", "p/v"),
        (
            "<disk type='network'><source protocol='rbd' name='pool/image'><host name='h'/></source></disk>",
            "rbd:pool/image",
        ),
        ("<disk type='file' device='cdrom'/>", ""),
        ("<disk type='vhostuser'><source type='unix' path='/s'/></disk>", "/s"),
    ],
)
def test_sources_of_disks(xml: str, source: str) -> None:
    assert disk(xml).source == source


def test_a_disk() -> None:
    found = disk(
        "<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><target dev='sda' bus='sata'/><readonly/>"
        "<alias name='ua-x'/></disk>"
    )
    assert found == DiskFacts("sda", "", "raw", "sata", "cdrom", "ua-x", readonly=True)


@pytest.mark.parametrize(
    ("xml", "kind", "source"),
    [
        ("<interface type='network'><source network='n' bridge='virbr0'/></interface>", "network", "n"),
        ("<interface type='direct'><source dev='eno1' mode='bridge'/></interface>", "direct", "eno1"),
        ("<interface type='user'/>", "user", ""),
        ("<interface type='hostdev'><source><address type='pci'/></source></interface>", "hostdev", ""),
    ],
)
def test_sources_of_nics(xml: str, kind: str, source: str) -> None:
    assert (nic(xml).type, nic(xml).source) == (kind, source)


def test_a_nic() -> None:
    found = nic(
        "<interface type='bridge'><mac address='52:54:00:AA:BB:CC'/><source bridge='br0'/><target dev='t'/>"
        "<model type='e1000e'/></interface>"
    )
    assert found == NicFacts("bridge", "br0", "52:54:00:aa:bb:cc", "e1000e", "t", "")


def test_arguments_for_qemu_that_are_not_ours() -> None:
    xml = """<domain xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'><q:commandline>
      <q:arg value='-netdev'/><q:arg value='user,id=a'/><q:arg value='-device'/>
      <q:arg value='e1000,netdev=a,mac=52:54:00:00:00:01'/>
      <q:arg value='-device'/><q:arg value='e1000,netdev=other'/><q:arg value='-snapshot'/><q:arg/>
      <q:env name='X' value='-device'/></q:commandline></domain>"""
    assert parse_domain(xml).nics == (NicFacts("user", "", "52:54:00:00:00:01", "e1000", "", ""),)


def test_no_xml() -> None:
    with pytest.raises(DamagedData):
        parse_domain("not xml")
