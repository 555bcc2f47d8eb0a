"""Volumes and pools, written and read."""

from __future__ import annotations

import pytest
from lxml import etree

from vmhost.model.errors import DamagedData, UsageError
from vmhost.render.parse.storage import parse_pool
from vmhost.render.parse.units import scaled
from vmhost.render.storage import pool_xml, volume_xml

STORED = etree.RelaxNG(file="/usr/share/libvirt/schemas/storagevol.rng")
POOLED = etree.RelaxNG(file="/usr/share/libvirt/schemas/storagepool.rng")


def test_an_overlay_says_both_formats_and_version_3() -> None:
    xml = volume_xml("<&>.qcow2", 10 << 30, format="qcow2", backing="/i/<&>.qcow2", backing_format="qcow2")
    STORED.assertValid(etree.fromstring(xml))
    root = etree.fromstring(xml)
    assert root.findtext("name") == "<&>.qcow2"
    assert root.findtext("capacity") == str(10 << 30)
    assert root.findtext("target/compat") == "1.1"
    assert root.find("target/format").get("type") == "qcow2"
    assert root.findtext("backingStore/path") == "/i/<&>.qcow2"
    assert root.find("backingStore/format").get("type") == "qcow2"
    assert root.findtext("target/permissions/mode") == "0600"


def test_a_raw_volume_has_no_version() -> None:
    xml = volume_xml("s.iso", 376832, format="raw", mode="0640")
    STORED.assertValid(etree.fromstring(xml))
    assert "compat" not in xml
    assert etree.fromstring(xml).findtext("target/permissions/mode") == "0640"


@pytest.mark.parametrize(
    ("form", "backing", "backing_format"), [("qcow2", "/a", ""), ("qcow2", "", "raw"), ("raw", "/a", "raw")]
)
def test_a_backing_file_needs_its_format_and_qcow2_on_top(form: str, backing: str, backing_format: str) -> None:
    with pytest.raises(UsageError):
        volume_xml("v", 1, format=form, backing=backing, backing_format=backing_format)


def test_a_pool() -> None:
    xml = pool_xml("vmhost", "/var/lib/<&>")
    POOLED.assertValid(etree.fromstring(xml))
    assert parse_pool(xml, True, ()).path == "/var/lib/<&>"


def test_a_pool_with_volumes_is_read_sorted() -> None:
    pool = """<pool type='dir'><name>p</name><capacity unit='KiB'>100</capacity><available unit='bytes'>7</available>
      <target><path>/d/</path></target></pool>"""
    volumes = [
        """<volume type='file'><name>b</name><key>/d/b</key><capacity unit='bytes'>5</capacity>
           <allocation unit='KiB'>1</allocation><target><path>/d/b</path><format type='qcow2'/></target>
           <backingStore><path>/i</path><format type='raw'/></backingStore></volume>""",
        "<volume><name>a</name><key>/d/a</key></volume>",
    ]
    read = parse_pool(pool, True, volumes)
    assert (read.name, read.type, read.path, read.active) == ("p", "dir", "/d", True)
    assert (read.capacity, read.available) == (102400, 7)
    first, second = read.volumes
    assert (first.name, first.path, first.capacity, first.format, first.backing) == ("a", "/d/a", 0, "", "")
    assert (second.pool, second.capacity, second.allocation, second.format, second.backing) == (
        "p",
        5,
        1024,
        "qcow2",
        "/i",
    )


def test_a_pool_without_a_path() -> None:
    assert parse_pool("<pool type='rbd'><name>p</name></pool>", False, ()).path == ""


def test_no_xml() -> None:
    with pytest.raises(DamagedData):
        parse_pool("<pool>", True, ())


@pytest.mark.parametrize(
    ("text", "unit", "size"),
    [
        ("1", "KiB", 1024),
        ("1", "K", 1024),
        ("1", "KB", 1000),
        ("2", "G", 2 << 30),
        (" 3 ", "bytes", 3),
        ("3", "b", 3),
        ("1", "EiB", 1 << 60),
        ("1", "parsec", 0),
        ("1", "Kx", 0),
        ("", "KiB", 0),
        ("-1", "KiB", 0),
        ("1.5", "KiB", 0),
    ],
)
def test_units(text: str, unit: str, size: int) -> None:
    assert scaled(text, unit) == size
