"""The hook: which ports it tags, and that nobody depends on it who has no need of it."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vmhost.drivers import command
from vmhost.drivers import hook as driver
from vmhost.drivers.hook import LibvirtHook
from vmhost.helpers import hook
from vmhost.model.errors import AlreadyThere
from vmhost.model.identity import GuestIdentity, GuestMetadata, NicIdentity
from vmhost.model.observed import ObservedLink
from vmhost.model.vlans import port_vlans
from vmhost.render.metadata import metadata_xml

UUID = "3f2a91c4-6c1d-4a8e-9b57-0d1e2f3a4b5c"


def nic(index: int, **parts: object) -> NicIdentity:
    values = {"tap": f"vh3f2a91c4-{index}", "bridge": "br0", **parts}
    return NicIdentity(f"nic{index}", "prod", f"52:54:00:00:00:0{index}", **values)  # type: ignore[arg-type]


def domain(*nics: NicIdentity, bridge: str = "br0", without: str = "") -> str:
    metadata = metadata_xml(GuestMetadata(1, "shop", "root", "", GuestIdentity(UUID, "web", UUID, "", nics), "{}"))
    devices = "".join(
        f"<interface type='bridge'><source bridge='{bridge}'/><target dev='{one.tap}'/></interface>"
        for one in nics
        if one.tap != without
    )
    inside = f"<uuid>{UUID}</uuid><metadata>{metadata}</metadata><devices>{devices}</devices>"
    return f"<domain><name>web</name>{inside}</domain>"


def test_what_is_wanted_is_in_the_metadata() -> None:
    xml = domain(nic(0, pvid=100), nic(1, tagged="5,7-8"), nic(2, pvid=9, tagged="10"), nic(3))
    assert dict(hook.wanted(xml)) == {
        "vh3f2a91c4-0": port_vlans(100),
        "vh3f2a91c4-1": port_vlans(0, [5, 7, 8]),
        "vh3f2a91c4-2": port_vlans(9, [10]),
    }


def test_guards_come_first_and_go_with_the_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, object]] = []

    class Kernel:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *words, **_: done.append((name, words[0]))

    monkeypatch.setattr(hook, "Netlink", Kernel)
    monkeypatch.setattr(hook, "Nft", Kernel)
    xml = domain(nic(0, pvid=100), nic(1, isolated=True, spoofing="refused", address="10.0.0.1/24"), nic(2))
    assert _call(xml, "start", monkeypatch) == 0
    assert [name for name, _ in done] == ["change", "isolate_port", "set_port_vlans"]
    make = done[0][1]
    assert callable(make)
    sent = make("")
    assert "vh3f2a91c4-1.mac" in sent
    assert "vh3f2a91c4-0" not in sent
    done.clear()
    monkeypatch.setattr("sys.stdin", io.StringIO(xml))
    assert hook.main(["web", "release", "end", "-"]) == 0
    assert [name for name, _ in done] == ["change"]


def test_a_nic_that_was_taken_out_is_passed_over() -> None:
    xml = domain(nic(0, pvid=100), nic(1, pvid=200), without="vh3f2a91c4-0")
    assert dict(hook.wanted(xml)) == {"vh3f2a91c4-1": port_vlans(200)}


def test_a_foreign_domain_wants_nothing() -> None:
    assert dict(hook.wanted("<domain><name>web</name><devices/></domain>")) == {}


@pytest.mark.parametrize("parts", [{"pvid": 4095}, {"tagged": "4096"}, {"tagged": "x"}, {"pvid": 5, "tagged": "5"}])
def test_nonsense_ends_a_start(parts: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    assert _call(domain(nic(0, **parts)), "start", monkeypatch) == 1


def test_another_bridge_ends_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _call(domain(nic(0, pvid=100), bridge="br1"), "start", monkeypatch) == 1


@pytest.mark.parametrize("xml", ["", "<domain", domain(nic(0, pvid=4095))])
def test_reconnect_never_fails(xml: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _call(xml, "reconnect", monkeypatch) == 0


@pytest.mark.parametrize(
    ("links", "words"),
    [
        ([], "br0: this host has no such bridge"),
        ([{"kind": "dummy"}], "br0: this host has no such bridge"),
        ([{"kind": "bridge"}], "br0: this bridge does not filter VLANs"),
        ([{"kind": "bridge", "vlan_filtering": True}], ""),
    ],
)
def test_a_guest_of_another_host_stays_there_unless_its_bridges_are_here(
    links: list[dict[str, object]], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What libvirt asks on the way in: at ``migrate`` nothing is there yet, at ``start`` the tap is, as at any start.

    What a hook says at ``migrate`` would become the guest's definition.
    """
    there = tuple(replace(ObservedLink("br0", 1, "", "", 1500, True, True, "", "", ()), **each) for each in links)
    monkeypatch.setattr(hook.Netlink, "links", lambda _: there)
    assert _call(domain(nic(0, pvid=100), nic(1)), "migrate", monkeypatch) == (1 if words else 0)
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert _call(domain(nic(0, pvid=100)), "prepare", monkeypatch) == 0
    assert _call(domain(nic(0)), "migrate", monkeypatch) == 0


@pytest.mark.parametrize("parts", [{"pvid": 4095}, {"tagged": "x"}])
def test_nonsense_keeps_a_guest_where_it_is(parts: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    assert _call(domain(nic(0, **parts)), "migrate", monkeypatch) == 1


def _call(xml: str, operation: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(xml))
    return hook.main(["web", operation, "begin", "-"])


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hook as it is installed, by an installation of vmhost that is gone since."""
    monkeypatch.setattr(driver, "CALLED", tmp_path / "called")
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    file = tmp_path / "hooks/qemu.d/50-vmhost"
    LibvirtHook(file).install()
    return file


@pytest.mark.parametrize(
    ("xml", "operation", "code"),
    [
        (domain(nic(0, pvid=100)), ("start", "begin"), 127),
        (domain(nic(0, tagged="100")), ("start", "begin"), 127),
        (domain(nic(0, pvid=100)), ("reconnect", "begin"), 0),
        (domain(nic(0, pvid=100)), ("stopped", "end"), 0),
        (domain(nic(0, pvid=100)), ("prepare", "begin"), 0),
        (domain(nic(0, pvid=100)), ("migrate", "begin"), 127),
        (domain(nic(0)), ("migrate", "begin"), 0),
        ("<domain><name>foreign</name><devices/></domain>", ("migrate", "begin"), 0),
        (domain(nic(0, pvid=100)), ("release", "end"), 0),
        (domain(nic(0, spoofing="refused")), ("start", "begin"), 127),
        (domain(nic(0, isolated=True)), ("start", "begin"), 127),
        (domain(nic(0, spoofing="refused")), ("prepare", "begin"), 0),
        (domain(nic(0)), ("start", "begin"), 0),
        ("<domain><name>foreign</name><devices/></domain>", ("start", "begin"), 0),
        ("", ("start", "begin"), 0),
    ],
)
def test_only_guests_in_vlans_depend_on_vmhost(script: Path, xml: str, operation: tuple[str, str], code: int) -> None:
    done = command.run([str(script), "web", *operation, "-"], timeout=20, input=xml.encode(), check=False)
    assert (done.code, done.stdout) == (code, b"")
    assert int(driver.CALLED.read_text()) == os.getpid()


def test_it_lies_beside_others_and_goes_alone(tmp_path: Path) -> None:
    other = tmp_path / "hooks/qemu.d/10-other"
    other.parent.mkdir(parents=True)
    other.write_text("#!/bin/sh\n")
    ours = LibvirtHook(tmp_path / "hooks/qemu.d/50-vmhost")
    assert not ours.state().installed
    ours.install()
    ours.install()
    assert ours.state().installed
    assert ours.file.stat().st_mode & 0o777 == 0o755
    ours.file.write_text(ours.file.read_text() + "# older\n")
    assert not ours.state().installed
    ours.remove()
    ours.remove()
    assert list(other.parent.iterdir()) == [other]


def test_a_file_of_another_is_left_alone(tmp_path: Path) -> None:
    ours = LibvirtHook(tmp_path / "50-vmhost")
    ours.file.write_text("#!/bin/sh\nexit 0\n")
    for act in (ours.install, ours.remove):
        with pytest.raises(AlreadyThere):
            act()
    assert ours.file.read_text() == "#!/bin/sh\nexit 0\n"


def test_the_hook_loads_the_socket_alone_and_it_works() -> None:
    code = (
        "import sys; from vmhost.drivers.leanlib import load_lean; load_lean(); "
        "from vmhost.drivers.netlink import Netlink; assert any(link.name == 'lo' for link in Netlink().links()); "
        "print([name for name in ('pyroute2.ndb', 'pyroute2.ethtool', 'pydantic', 'libvirt') if name in sys.modules])"
    )
    assert command.run([sys.executable, "-c", code], timeout=30).text == "[]\n"


def test_a_library_of_another_make_is_loaded_as_it_comes() -> None:
    code = (
        "import sys; sys.modules['pyroute2.iproute.linux'] = None; "
        "from vmhost.drivers.leanlib import load_lean; load_lean(); "
        "assert not any(name.startswith('pyroute2') for name in sys.modules); "
        "from pyroute2 import IPRoute, NDB; print('whole')"
    )
    done = command.run([sys.executable, "-c", code], timeout=30, check=False)
    assert done.text == "whole\n", done.stderr
