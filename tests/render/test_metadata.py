"""Our element in the domain's metadata: written, read back, and read when a newer vmhost wrote it."""

from __future__ import annotations

import json
from dataclasses import replace
from uuid import uuid4
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from tests.render.cases import CASES
from vmhost.model.errors import DamagedData, UsageError
from vmhost.model.identity import METADATA_VERSION, NAMESPACE, GuestIdentity, GuestMetadata, NicIdentity
from vmhost.model.services import DeployedService
from vmhost.render.metadata import metadata_xml
from vmhost.render.parse.metadata import parse_copied, parse_metadata

# Everything that XML 1.0 can hold in an attribute or an element, without what a parser normalises.
texts = st.text(
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff"),
    max_size=12,
)
nics = st.builds(NicIdentity, texts, texts, texts, texts, texts, st.integers(0, 65535))
identities = st.builds(GuestIdentity, texts, texts, texts, texts, st.lists(nics, max_size=3).map(tuple))
services = st.builds(DeployedService, texts, texts, texts, texts, texts, texts, texts, st.booleans(), texts)
metadata = st.builds(
    GuestMetadata,
    version=st.integers(1, 99),
    site=texts,
    owner=texts,
    applied=texts,
    identity=identities,
    spec=texts,
    volumes=st.lists(texts, max_size=3).map(tuple),
    user=texts,
    protect=st.booleans(),
    pending=st.booleans(),
    command=texts,
    services=st.lists(services, max_size=2).map(tuple),
)


@given(value=metadata)
def test_written_and_read_back(value: GuestMetadata) -> None:
    assert parse_metadata(metadata_xml(value)) == value


@given(value=metadata)
def test_read_from_a_domain_and_from_its_root(value: GuestMetadata) -> None:
    uuid = escape(value.identity.uuid)
    domain = f"<domain><uuid>{uuid}</uuid><metadata><x xmlns='urn:x'/>{metadata_xml(value)}</metadata></domain>"
    assert parse_metadata(domain) == value
    assert parse_metadata(etree.fromstring(domain)) == value
    assert parse_copied(domain) == ""


def test_metadata_of_another_guest_are_not_ours() -> None:
    value = _sample()
    copy = f"<domain><uuid>{uuid4()}</uuid><metadata>{metadata_xml(value)}</metadata></domain>"
    assert parse_metadata(copy) is None
    assert parse_metadata(etree.fromstring(copy)) is None
    assert parse_copied(copy) == value.identity.uuid
    assert parse_copied("<domain><uuid>x</uuid></domain>") == ""


def test_every_field_is_written() -> None:
    plain = parse_metadata(metadata_xml(_sample()))
    changed = {
        "version": 2,
        "site": "other",
        "owner": "other",
        "applied": "other",
        "identity": GuestIdentity("u", "n", "i", "k"),
        "spec": "{}",
        "volumes": ("a/b",),
        "user": "other",
        "protect": True,
        "pending": True,
        "command": "guest resize",
        "services": (DeployedService("nginx", "1", "prod", "00", "{}"),),
    }
    assert set(changed) == set(GuestMetadata.__dataclass_fields__)
    for field, value in changed.items():
        assert parse_metadata(metadata_xml(replace(_sample(), **{field: value}))) != plain


@pytest.mark.parametrize(
    "xml",
    [
        "<domain/>",
        "<domain><metadata/></domain>",
        "<domain><metadata><guest version='1'/></metadata></domain>",
        f"<domain><metadata><o:other xmlns:o='{NAMESPACE}'/></metadata></domain>",
        "<domain><metadata><v:guest xmlns:v='urn:other' version='1'/></metadata></domain>",
        f"<domain><devices><v:guest xmlns:v='{NAMESPACE}' version='1'/></devices></domain>",
    ],
)
def test_what_is_not_ours_is_foreign(xml: str) -> None:
    assert parse_metadata(xml) is None


def test_a_newer_version_is_read_as_far_as_it_is_understood_and_not_changed() -> None:
    xml = metadata_xml(replace(_sample(), version=METADATA_VERSION + 1))
    root = etree.fromstring(xml)
    etree.SubElement(root, f"{{{NAMESPACE}}}brand-new").text = "x"
    root.set("brand-new", "x")
    root.remove(root.find(f"{{{NAMESPACE}}}spec"))
    read = parse_metadata(etree.tostring(root, encoding="unicode"))
    assert read is not None
    assert (read.site, read.identity, read.spec) == ("shop", _sample().identity, "")
    assert not read.readable


@pytest.mark.parametrize(("version", "known"), [(METADATA_VERSION, False), (METADATA_VERSION + 1, True)])
def test_what_a_newer_version_says_no_identity_in_is_newer_and_not_foreign(version: int, known: bool) -> None:
    element = f"<v:guest xmlns:v='{NAMESPACE}' version='{version}'/>"
    xml = f"<domain><uuid>{_sample().identity.uuid}</uuid><metadata>{element}</metadata></domain>"
    read = parse_metadata(xml)
    assert (read is not None and not read.readable) is known
    assert parse_copied(xml) == ""


@pytest.mark.parametrize("version", ["", "0", "-1", "2.1", "x", "\u0661"])
def test_a_version_that_cannot_be_read_counts_as_newer(version: str) -> None:
    read = parse_metadata(f"<v:guest xmlns:v='{NAMESPACE}' version='{version}'/>")
    assert read is not None
    assert not read.readable


def test_prefix_and_order_do_not_matter() -> None:
    xml = metadata_xml(_sample()).replace("vmhost:", "x:").replace("xmlns:vmhost", "xmlns:x")
    root = etree.fromstring(xml)
    root[:] = reversed(root)
    assert parse_metadata(root) == _sample()


@pytest.mark.parametrize("text", ["\x00", "\x1b[2J", "\ufffe", "\ud800"])
def test_what_xml_cannot_hold_is_refused_in_words(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        metadata_xml(replace(_sample(), command=text))
    assert caught.value.subject == "web-01"


def test_what_json_holds_and_xml_cannot_travels_in_the_spec() -> None:
    spec = json.dumps({"labels": {"a": "\ufffe\uffff\U0001f600<&>"}}, ensure_ascii=False)
    read = parse_metadata(metadata_xml(replace(_sample(), spec=spec)))
    assert read is not None
    assert json.loads(read.spec) == json.loads(spec)


@pytest.mark.parametrize("xml", ["", "<domain>", "no xml", "<a/><b/>", "\ud800"])
def test_what_is_not_xml_is_said(xml: str) -> None:
    with pytest.raises(DamagedData, match="not well-formed"):
        parse_metadata(xml)


def test_nothing_is_resolved_or_fetched() -> None:
    evil = f"""<!DOCTYPE d [<!ENTITY e SYSTEM "file:///etc/hostname">]>
      <v:guest xmlns:v='{NAMESPACE}' version='1'><v:site>&e;</v:site></v:guest>"""
    with pytest.raises(DamagedData, match="undefined entity"):
        parse_metadata(evil)


def _sample() -> GuestMetadata:
    return replace(CASES["smallest"].context().metadata, pending=False)
