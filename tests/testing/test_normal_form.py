"""The fake host's normal form of a domain is libvirt's: held against what 9.0 made of it, and against a live one."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from lxml import etree

from tests.labfixture import InLab
from vmhost.drivers.command import CommandFailed
from vmhost.model.errors import DriverError
from vmhost.model.identity import NAMESPACE
from vmhost.render.parse.domain import parse_domain
from vmhost.testing.normal import live_form, normal_form, with_metadata
from vmhost.testing.xml import read, write

CAPTURED = Path(__file__).parent / "captured"
GOLDEN = Path(__file__).parents[1] / "render" / "golden"
CASES = ("plain", "grow", "efi", "user")
RENDERED = [path.stem for path in sorted(GOLDEN.glob("*.xml")) if '<domain type="qemu"' in path.read_text()[:200]]
LITTLE = "<domain type='qemu'><name>a</name><memory unit='GiB'>1</memory><os><type>hvm</type></os></domain>"


def canonical(xml: str) -> bytes:
    return etree.tostring(read(xml), method="c14n")


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_libvirt_made_of_it(name: str) -> None:
    made = write(normal_form((CAPTURED / f"{name}.xml").read_text()))
    assert canonical(made) == canonical((CAPTURED / f"{name}.normal.xml").read_text())


@pytest.mark.parametrize("name", CASES)
def test_a_normal_form_is_its_own(name: str) -> None:
    normal = (CAPTURED / f"{name}.normal.xml").read_text()
    assert canonical(write(normal_form(normal))) == canonical(normal)


def test_there_are_cases_for_the_real_one() -> None:
    assert len(RENDERED) > 3


@pytest.mark.lab
@pytest.mark.parametrize("name", RENDERED)
def test_libvirt_makes_the_same_of_what_is_rendered(name: str, lab: InLab) -> None:
    file = GOLDEN / f"{name}.xml"
    facts = parse_domain(file.read_text())
    try:
        lab.virsh("define", "--validate", str(file))
        theirs = lab.virsh("dumpxml", "--inactive", facts.uuid).text
    finally:
        with suppress(CommandFailed):
            lab.virsh("undefine", "--nvram", facts.uuid)
    assert write(normal_form(file.read_text())).splitlines() == write(read(theirs)).splitlines()


def test_what_is_left_out_is_filled_in() -> None:
    facts = parse_domain(write(normal_form(LITTLE, "3f2a91c4-0000-4000-8000-000000000000")))
    assert facts.uuid == "3f2a91c4-0000-4000-8000-000000000000"
    assert (facts.memory, facts.max_memory, facts.vcpus) == (1 << 30, 1 << 30, 1)
    root = normal_form(LITTLE)
    assert root.find("os/type").get("machine") == "pc-i440fx-7.2"
    assert (root.findtext("memory"), root.find("memory").get("unit")) == (str(1 << 20), "KiB")
    assert [root.findtext(f"on_{what}") for what in ("poweroff", "reboot", "crash")] == [
        "destroy",
        "restart",
        "destroy",
    ]


def test_a_device_that_is_added_takes_the_next_place() -> None:
    normal = normal_form((CAPTURED / "plain.xml").read_text())
    disk = "<disk type='file' device='disk'><source file='/b'/><target dev='vdb' bus='virtio'/></disk>"
    normal.find("devices").append(read(disk))
    again = normal_form(write(normal))
    places = [found.get("bus") for found in again.iterfind("devices/disk/address")]
    assert places == ["0x03", "0x04", "0x07"]


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "<domain",
        "<network><name>x</name></network>",
        LITTLE.replace("<name>a", "<name>."),
        LITTLE.replace("<name>a", "<name>.."),
        LITTLE.replace("<name>a", "<name>a/b"),
        LITTLE.replace("<name>a</name>", ""),
        LITTLE.replace("<memory unit='GiB'>1</memory>", ""),
        LITTLE.replace(" type='qemu'", ""),
        LITTLE.replace("<os>", "<bogus/><os>"),
    ],
)
def test_what_is_no_domain_is_refused(xml: str) -> None:
    with pytest.raises(DriverError):
        normal_form(xml)


def test_the_live_form_says_what_runs() -> None:
    live = read(live_form((CAPTURED / "efi.normal.xml").read_text(), 7, connected=True))
    assert live.get("id") == "7"
    assert live.find("devices/console").get("tty") == "/dev/pts/7"
    assert live.find("devices/channel/target").get("state") == "connected"
    assert live.find("os").get("firmware") is None
    facts = parse_domain(live)
    assert facts.firmware == "uefi"
    assert facts.disks == parse_domain((CAPTURED / "efi.normal.xml").read_text()).disks


def test_only_our_metadata_is_replaced() -> None:
    theirs = "<metadata><t:note xmlns:t='https://example.com/t'>keep</t:note></metadata>"
    xml = LITTLE.replace("<os>", f"{theirs}<os>")
    ours = f"<vmhost:guest xmlns:vmhost='{NAMESPACE}' version='1'/>"
    twice = with_metadata(with_metadata(xml, ours, NAMESPACE), ours, NAMESPACE)
    assert twice.count("keep") == 1
    assert twice.count("version=") == 1
    without = with_metadata(twice, "", NAMESPACE)
    assert "keep" in without
    assert "version=" not in without
    assert "<metadata" not in with_metadata(with_metadata(LITTLE, ours, NAMESPACE), "", NAMESPACE)
