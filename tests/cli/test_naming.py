"""What people call things, and what they are told to type when there is no such thing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.session import Terminal
from vmhost.cli.main import run
from vmhost.drivers.images import catalogue, recipe
from vmhost.lab import store
from vmhost.model.domains import DomainState, ObservedDomain, RawDomain, meant, numbered
from vmhost.model.errors import Conflict, NotFound
from vmhost.ops.guests import find_guest
from vmhost.ops.images import Images
from vmhost.render.parse.domain import parse_domain
from vmhost.testing.demo import demo_host


def observed(name: str, uuid: str, number: int = 0) -> ObservedDomain:
    live = f"<domain type='kvm' id='{number}'><name>{name}</name></domain>" if number else ""
    state = DomainState.RUNNING if number else DomainState.SHUTOFF
    return ObservedDomain(RawDomain(uuid, name, state, "<domain/>", live), parse_domain("<domain/>"))


def test_a_guest_is_meant_by_its_name_before_its_uuid() -> None:
    web, seven, off = observed("web", "aa-1", 7), observed("7", "bb-2", 3), observed("off", "cc-3")
    calls = {"web": web, "7": seven, "3": None, "AA-1": web, "aa-1": web, "cc-3": off, "": None, "0": None, "w": None}
    numbers = {"7": web, "3": seven, "": None, "0": None}
    for domains in ((web, seven, off), (off, seven, web)):
        assert {name: meant(name, domains) for name in calls} == calls
        assert {number: numbered(number, domains) for number in numbers} == numbers


def test_a_number_is_libvirts_own(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["-c", "test:///default", "guest", "show", "1"]) == 0
    assert "name:        test\n" in capfd.readouterr().out


def test_a_uuid_is_taken_in_capitals_by_what_shows_and_by_what_changes(terminal: Terminal) -> None:
    uuid = find_guest(demo_host().ports.hypervisor, "web-01").uuid.upper()
    assert "name:        web-01\n" in terminal.run("guest", "show", uuid)[1]
    assert terminal.run("guest", "delete", uuid, "--power-off", "--dry-run")[0] == 0


@pytest.mark.parametrize("flag", ["--allow-replace", "--overwrite", "--prune"])
def test_harm_that_is_allowed_to_nobody_is_a_mistake(terminal: Terminal, flag: str) -> None:
    terminal.one('echo "new-01: {}" > site.yaml')
    code, out, told = terminal.run("plan", "site.yaml", flag, "nobody")
    assert (code, out) == (3, "")
    assert told.startswith("vmhost: nobody: site try has no such guest")
    assert told.endswith("  try: vmhost guest list\n")


@pytest.mark.parametrize(
    ("image", "hint"), [("nope", "vmhost image list --available"), ("debian-11", "vmhost image build debian-11")]
)
def test_who_lacks_an_image_is_told_how_to_get_it(terminal: Terminal, image: str, hint: str) -> None:
    terminal.one(f'echo "new-01: {{image: {image}}}" > site.yaml')
    code, _, told = terminal.run("plan", "site.yaml")
    assert (code, told.splitlines()[-1]) == (3, f"  try: {hint}")
    with pytest.raises(NotFound) as caught:
        catalogue.entry(image)
    assert caught.value.hint == hint


def test_an_image_that_nobody_builds_is_looked_for_in_the_list() -> None:
    with pytest.raises(NotFound) as caught:
        recipe.load("nope")
    assert caught.value.hint == "vmhost image list --available"


def test_what_can_be_had_is_listed(terminal: Terminal) -> None:
    code, out, _ = terminal.run("image", "list", "--available")
    rows = [[cell.strip() for cell in line.split("  ") if cell] for line in out.splitlines()]
    assert code == 0
    assert ["debian-12", "build", "Debian's archive keys", "ok"] in rows
    assert ["debian-12", "pull", "TLS certificate alone", "unproven"] in rows
    assert ["ubuntu-24.04", "pull", "signature (ubuntu-keyring)", "unproven"] in rows


def test_an_unproven_image_says_so(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    host = demo_host()
    made = replace(host.world.images[0], source="pull", status="unproven")
    host.world.images[0] = made
    monkeypatch.setattr("vmhost.testing.demo.demo_ports", lambda _uri: host.ports)
    monkeypatch.setattr(Images, "pull", lambda *_, **__: made)
    assert "  pull, unproven  " in terminal.run("image", "list")[1]
    assert ": ready, unproven (" in terminal.run("image", "pull", made.name)[2]


def test_a_lab_is_down_already_or_its_name_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMHOST_LAB_DIR", str(tmp_path))
    with pytest.raises(NotFound) as missing:
        store.find("nolab")
    assert missing.value.hint == "vmhost lab list"
    store.claim(tmp_path / "mine")
    with pytest.raises(Conflict, match="a lab of that name exists"):
        store.claim(tmp_path / "mine")
