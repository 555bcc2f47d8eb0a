"""Into VLANs where the host has no address: through an access port in a namespace of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.labfixture import InLab
from tests.network.conftest import ALIAS, GUESTS, Trio
from tests.network.guests import BRIDGE
from tests.network.sniffer import Sniffer
from tests.reliability.scene import ALL, site_file
from tests.ssh.private_sshd import PrivateSshd
from vmhost.drivers import netns
from vmhost.drivers.command import run
from vmhost.drivers.netlink import Netlink
from vmhost.drivers.ssh.openssh import known_hosts_line, ssh_argv
from vmhost.drivers.ssh.shell import SshShell
from vmhost.drivers.ssh.via import proxy_command
from vmhost.model.errors import Unreachable
from vmhost.model.reach import AccessPort, Jump
from vmhost.model.vlans import port_vlans
from vmhost.ops.host import Host
from vmhost.ops.sites import load_site

pytestmark = [pytest.mark.uml, pytest.mark.timeout(300)]

INTO_100 = AccessPort(BRIDGE, 100, "10.1.1.250/24")
INTO_200 = AccessPort(BRIDGE, 200, "10.1.1.250/24")
QUIET = "br-quiet"
INTO_QUIET = AccessPort(QUIET, 100, "10.1.1.250/24")


@pytest.fixture
def quiet() -> Iterator[str]:
    """A VLAN-aware bridge without guests."""
    Netlink().create_bridge(QUIET, alias=ALIAS, mtu=1500, address="", vlan_aware=True)
    yield QUIET
    Netlink().delete_bridge(QUIET, alias=ALIAS)


@contextmanager
def opened(*ways: AccessPort) -> Iterator[None]:
    for way in ways:
        Netlink().open_access(way, alias=ALIAS, mtu=1500)
    try:
        yield
    finally:
        for way in ways:
            Netlink().close_access(way, alias=ALIAS)


def _ask(way: AccessPort, host: str) -> bytes:
    """What somebody says there. Between two who ask, its nc has to be started anew."""
    for _ in range(100):
        with suppress(ConnectionRefusedError), netns.connect(way.namespace, host, 7777, 10) as wire:
            wire.settimeout(20)
            return wire.recv(64)
        time.sleep(0.1)
    pytest.fail(f"{host} does not listen")


@GUESTS
def test_tcp_into_two_vlans_with_one_subnet(trio: Trio, ear: Sniffer) -> None:
    before = ({link.name for link in Netlink().links()}, Netlink().namespaces())
    for guest in (trio.one, trio.other):
        guest.run(f"(while :; do echo I am {guest.name} | nc -l -p 7777; done) >/dev/null 2>&1 &")
    with opened(INTO_100, INTO_200):
        ports = {link.name: link.vlans for link in Netlink().links()}
        assert (ports[INTO_100.port], ports[INTO_200.port]) == (port_vlans(100), port_vlans(200))
        assert _ask(INTO_100, "10.1.1.1") == b"I am one\n"
        assert _ask(INTO_200, "10.1.1.3") == b"I am other\n"
        with pytest.raises(OSError):
            netns.connect(INTO_200.namespace, "10.1.1.1", 7777, 3)
        # Nothing of the host is in there: no listener, no other link.
        assert run(["ip", "netns", "exec", INTO_100.namespace, "ip", "-o", "link"], timeout=20).text.count("\n") == 2
        # Another process gets in, too; what made it need not be alive.
        proxy = [sys.executable, "-m", "vmhost.helpers.proxy", INTO_100.namespace, "10.1.1.1", "7777"]
        code = "import sys; from vmhost.helpers.proxy import main; sys.exit(main(sys.argv[1:]))"
        done = subprocess.run([sys.executable, "-c", code, *proxy[3:]], capture_output=True, timeout=30, check=False)
        assert (done.returncode, done.stdout) == (0, b"I am one\n")
    assert ({link.name for link in Netlink().links()}, Netlink().namespaces()) == before


@contextmanager
def machine(name: str, bridge: str, address: str) -> Iterator[None]:
    """A machine in VLAN 100, with network and SSH server of its own: a network namespace."""
    run(["ip", "netns", "add", name], timeout=20)
    try:
        run(["ip", "link", "add", f"port-{name}", "type", "veth", "peer", "name", "eth0", "netns", name], timeout=20)
        run(["ip", "link", "set", f"port-{name}", "master", bridge, "up"], timeout=20)
        Netlink().set_port_vlans(f"port-{name}", port_vlans(100))
        for words in (f"addr add {address}/24 dev eth0", "link set eth0 up", "link set lo up"):
            run(["ip", "-n", name, *words.split()], timeout=20)
        yield
    finally:
        run(["ip", "netns", "delete", name], timeout=20)


def test_ssh_of_both_kinds_goes_through_without_noticing(quiet: str, tmp_path: Path) -> None:
    with machine("machine", quiet, "10.1.1.77"), opened(INTO_QUIET), SshShell() as shell:
        server = PrivateSshd(tmp_path, port=22, address="10.1.1.77", namespace="machine")
        target = server.target(via=INTO_QUIET)
        came = threading.Event()
        with shell.knock(target, lambda _sign: came.set()):
            time.sleep(0.5)
            assert not came.is_set()
            with server:
                assert came.wait(60)
                session = shell.connect(target, deadline=time.monotonic() + 60)
                said = session.run(["sh", "-c", "echo $SSH_CONNECTION"], timeout=30).stdout
                assert said.split()[0] == b"10.1.1.250"
                session.close()
                known = tmp_path / "known"
                known.write_text(known_hosts_line(target.host, 22, target.host_keys[0]) + "\n")
                argv = ssh_argv(target, known, ("echo", "over"), proxy=proxy_command(target))
                done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
                assert (done.returncode, done.stdout) == (0, b"over\n"), done.stderr


def test_a_jump_host_leads_into_a_vlan_that_this_host_is_not_in(quiet: str, tmp_path: Path) -> None:
    """Two machines: the gate has a link to this host and a port in the VLAN, the other that port alone."""
    for name in ("gate", "inner"):
        (tmp_path / name).mkdir()
    with machine("gate", quiet, "10.1.1.66"), machine("inner", quiet, "10.1.1.77"), SshShell() as shell:
        run(["ip", "link", "add", "to-gate", "type", "veth", "peer", "name", "eth1", "netns", "gate"], timeout=20)
        run(["ip", "addr", "add", "10.9.0.1/24", "dev", "to-gate"], timeout=20)
        run(["ip", "link", "set", "to-gate", "up"], timeout=20)
        for words in ("addr add 10.9.0.2/24 dev eth1", "link set eth1 up"):
            run(["ip", "-n", "gate", *words.split()], timeout=20)
        gate = PrivateSshd(tmp_path / "gate", port=22, address="10.9.0.2", namespace="gate")
        inner = PrivateSshd(tmp_path / "inner", port=22, address="10.1.1.77", namespace="inner")
        shutil.copy(inner.directory / "authorized_keys", gate.directory / "authorized_keys")
        with gate, inner:
            jump = Jump(gate.user, gate.address, 22, " ".join(gate.host_key.split()[:2]))
            with pytest.raises(Unreachable):
                shell.connect(inner.target(), deadline=time.monotonic() + 5)
            session = shell.connect(inner.target(via=jump), deadline=time.monotonic() + 60)
            said = session.run(["sh", "-c", "echo $SSH_CONNECTION"], timeout=30).stdout.split()
            assert (said[0], said[2]) == (b"10.1.1.66", b"10.1.1.77")
            session.close()
            known = tmp_path / "known"
            target = inner.target(via=jump)
            known.write_text(known_hosts_line(target.host, 22, target.host_keys[0]) + "\n")
            argv = ssh_argv(target, known, ("echo", "over"), proxy=proxy_command(target))
            done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
            assert (done.returncode, done.stdout) == (0, b"over\n"), done.stderr


NETWORKS = """
  prod: {bridge: br-site, vlan: 100, subnet: 10.20.0.0/24, reach: port, reach_address: 10.20.0.250}
  test: {bridge: br-site, vlan: 200, subnet: 10.20.0.0/24, reach: %s}"""


def test_a_site_makes_its_access_ports_and_takes_them_away(host: Host, lab: InLab, tmp_path: Path) -> None:
    before = Netlink().namespaces()

    def load(reach: str) -> object:
        bridges, nics = "{br-site: {mode: vlan-aware}}", "[{network: prod}, {network: test}]"
        return load_site(site_file(tmp_path, "r", "web", bridges=bridges, networks=NETWORKS % reach, nics=nics))

    site = load("port, reach_address: 10.20.0.250")
    host.apply(host.plan(site))
    assert set(Netlink().namespaces()) - set(before) == {"vmhost-br-site-100", "vmhost-br-site-200"}
    assert host.plan(site).empty

    run(["ip", "netns", "delete", "vmhost-br-site-100"], timeout=20)
    assert [item.why for item in host.plan(site).plan.steps] == [
        "br-site: access port of this host into VLAN 100 with 10.20.0.250/24"
    ]
    host.apply(host.plan(site))
    assert host.plan(site).empty

    less = load("agent")
    host.apply(host.plan(less))
    assert set(Netlink().namespaces()) - set(before) == {"vmhost-br-site-100"}
    host.apply(host.plan_delete(["web"], ALL))
    assert Netlink().namespaces() == before
    assert "br-site" not in {link.name for link in Netlink().links()}
