"""Templates: strict, escaping, and clear about the place of a fault."""

from __future__ import annotations

import pytest
from lxml import etree

from tests.render.cases import CASES, packaged
from vmhost.model.errors import UsageError
from vmhost.render.parse.domain import parse_domain
from vmhost.render.templates import Templates


def one(text: str, *, sandboxed: bool = False) -> Templates:
    return Templates({"page": "<a>{% include 'part' %}</a>", "part": text}, sandboxed=sandboxed)


def test_values_are_escaped_whatever_the_template_is_called() -> None:
    text = one("{{ value }}").render("page", value="<b>&'\"{{ 1 }}")
    assert text == "<a>&lt;b&gt;&amp;&#39;&#34;{{ 1 }}</a>"


@pytest.mark.parametrize("sandboxed", [False, True])
def test_an_undefined_value_is_named_with_template_and_line(sandboxed: bool) -> None:
    with pytest.raises(UsageError) as caught:
        one("\n\n{{ nope }}", sandboxed=sandboxed).render("page", value=1)
    assert caught.value.subject == "part, line 3"
    assert "'nope' is undefined" in caught.value.message
    assert "known here: value" in caught.value.message
    assert caught.value.hint.startswith("mv part ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{% if %}", "Expected an expression"),
        ("{{ value.nope }}", "has no attribute"),
        ("{% include 'other' %}", "no such template"),
        ("{{ absent }}", "None"),
        ("{{ value // 0 }}", "zero"),
        ("{{ value + 'x' }}", "unsupported operand"),
        ("{{ value | nope }}", "nope"),
    ],
)
def test_a_wrong_template_is_a_usage_error(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        one(text).render("page", value=1, absent=None)
    assert words in caught.value.message
    assert caught.value.subject.startswith("other" if "include" in text else "part, line 1")


def test_an_absent_template_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no such template"):
        one("").render("other")


@pytest.mark.parametrize(
    "text",
    [
        "{{ value.__class__.__mro__ }}",
        "{{ ''.__class__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ value.append(1) }}",
        "{{ range(999999999) }}",
    ],
)
def test_overrides_reach_values_only(text: str) -> None:
    with pytest.raises(UsageError):
        one(text, sandboxed=True).render("page", value=[1])


def test_a_part_may_be_overridden() -> None:
    part = "<rng model='virtio'><backend model='random'>/dev/random</backend></rng>"
    xml = CASES["smallest"].render(packaged(sandboxed=True, **{"parts/rng.xml.j2": part}))
    assert etree.fromstring(xml).findtext("devices/rng/backend") == "/dev/random"


def test_an_override_may_add_devices() -> None:
    cdrom = "<disk type='file' device='cdrom'><source file='/x.iso'/><target dev='sda' bus='sata'/></disk>"
    part = f"{cdrom}<panic model='isa'/>"
    xml = CASES["smallest"].render(packaged(sandboxed=True, **{"parts/panic.xml.j2": part}))
    assert parse_domain(xml).disks[-1].source == "/x.iso"


@pytest.mark.parametrize(
    ("part", "text", "words"),
    [
        ("guest.xml.j2", "<domain", "no XML"),
        ("guest.xml.j2", "<domain/>", "metadata"),
        ("parts/disk.xml.j2", "", "ua-disk-root"),
        ("parts/disk.xml.j2", "<disk><alias name='ua-disk-root'/></disk>", "ua-disk-root"),
        ("parts/nic.xml.j2", "", "ua-nic-prod"),
        ("parts/seed.xml.j2", "", "ua-seed"),
        ("parts/memory.xml.j2", "<memory unit='MiB'>1</memory>", "memory"),
        ("parts/cpu.xml.j2", "<vcpu>17</vcpu>", "vcpus"),
        ("parts/boot.xml.j2", "<os firmware='efi'><type>hvm</type></os>", "firmware"),
        ("parts/serial.xml.j2", "", "serial_log"),
        ("parts/rng.xml.j2", "<a></b>", "no XML"),
    ],
)
def test_an_override_that_loses_what_the_guest_is_known_by_is_refused(part: str, text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        CASES["nics"].render(packaged(sandboxed=True, **{part: text}))
    assert words in caught.value.message
    assert caught.value.subject == "web-01"
