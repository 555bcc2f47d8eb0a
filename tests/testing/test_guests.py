"""Guests of a fake host: they boot from their seed, answer with its key, and behave as they are told."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest

from vmhost.model.errors import (
    Absent,
    DriverError,
    HostKeyMismatch,
    PermissionDenied,
    Unreachable,
    UsageError,
)
from vmhost.model.identity import GuestIdentity, console_log, volume_name
from vmhost.model.observed import DomainState
from vmhost.model.shell import SshTarget, VerdictState
from vmhost.model.spec import GuestSpec
from vmhost.ports import ShellSession
from vmhost.render.parse.cloudinit import VERDICT_ARGV, parse_verdict_output
from vmhost.testing import FakeHost, builders
from vmhost.testing.commands import Ran
from vmhost.testing.seed import FakeSeedMaker, read_seed
from vmhost.testing.world import Volume
from vmhost.testing.xml import read, write

POOL, PATH = builders.POOL, builders.POOL_PATH


class Room:
    """A fake host with one guest, off, whose seed lets vmhost's key of the site ``shop`` in."""

    def __init__(self, **network: object) -> None:
        self.host = FakeHost()
        self.ports = self.host.ports
        self.image = self.host.add_image()
        self.host.links.create_bridge("br0", alias="vmhost:shop", mtu=1500, address="10.20.0.1/24")
        self.host.hypervisor.create_pool(POOL, PATH)
        self.host.keys.store("shop", self.host.entropy.keypair("shop"))
        self.spec: GuestSpec = builders.guest("web-01")
        self.who: GuestIdentity = builders.identity(self.spec)
        root = Volume(volume_name(self.who.uuid, "root"), 10 << 30, "qcow2", str(self.image.path), "qcow2")
        self.host.add_volume(POOL, root)
        self.plant(**network)
        about = builders.metadata(self.spec, self.who)
        self.host.hypervisor.define(builders.domain_xml(self.spec, self.who, about))

    def plant(self, *, instance: str = "", key: str = "", **network: object) -> None:
        """Give the guest a seed."""
        login = {"name": "vmhost", "ssh_authorized_keys": [self.host.keys.public("shop")]}
        config = {
            "users": [login],
            "ssh_keys": {"ed25519_public": key or self.who.host_key},
            "write_files": [{"path": "/etc/motd", "content": "hello\n"}],
            "final_message": "all done",
        }
        nic = {"match": {"macaddress": self.who.nics[0].mac}, **(network or {"addresses": [self.who.nics[0].address]})}
        meta = {"instance-id": instance or self.who.instance_id, "local-hostname": "web-01"}
        image = FakeSeedMaker().make(
            {
                "meta-data": json.dumps(meta).encode(),
                "user-data": b"#cloud-config\n" + json.dumps(config).encode(),
                "network-config": json.dumps({"version": 2, "ethernets": {"net0": nic}}).encode(),
            }
        )
        name = volume_name(self.who.uuid, "seed", "iso")
        self.host.add_volume(POOL, Volume(name, len(image), "raw", data=image))

    def start(self) -> None:
        self.host.hypervisor.start(self.who.uuid)

    def target(self, **more: object) -> SshTarget:
        values = {
            "guest": "web-01",
            "host": "10.20.0.10",
            "host_keys": (self.who.host_key,),
            "user": "vmhost",
            "private_key_files": (self.host.keys.private_file("shop"),),
            "connect_timeout": 60.0,
        }
        return SshTarget(**{**values, **more})  # type: ignore[arg-type]

    def connect(self, seconds: float = 60.0, **more: object) -> ShellSession:
        deadline = self.ports.clock.monotonic() + seconds
        return self.ports.shell.connect(self.target(**more), deadline=deadline)


@pytest.fixture
def room() -> Room:
    return Room()


class TestSsh:
    def test_it_answers_when_it_is_up_and_not_before(self, room: Room) -> None:
        room.start()
        began = room.ports.clock.monotonic()
        with pytest.raises(Unreachable):
            room.connect(5)
        assert room.ports.clock.monotonic() - began == pytest.approx(5)
        session = room.connect()
        assert room.ports.clock.monotonic() - began == pytest.approx(20)
        assert session.run(["hostname"], timeout=5).stdout == b"web-01\n"

    def test_no_try_lasts_longer_than_its_connection_may_take(self, room: Room) -> None:
        room.start()
        began = room.ports.clock.monotonic()
        with pytest.raises(Unreachable):
            room.connect(60, connect_timeout=0.5)
        assert room.ports.clock.monotonic() - began == pytest.approx(0.5)

    def test_a_guest_that_is_off_does_not_answer(self, room: Room) -> None:
        with pytest.raises(Unreachable) as caught:
            room.connect(10)
        assert caught.value.retryable

    def test_another_host_key_is_no_answer(self, room: Room) -> None:
        room.host.behave("web-01", host_key="ssh-ed25519 AAAAsomebodyelse")
        room.start()
        with pytest.raises(HostKeyMismatch):
            room.connect()

    def test_the_seeds_key_is_the_guests_key(self, room: Room) -> None:
        room.plant(key=room.host.entropy.keypair("other").public)
        room.start()
        with pytest.raises(HostKeyMismatch):
            room.connect()

    def test_no_pinned_key_is_a_mistake(self, room: Room) -> None:
        room.start()
        with pytest.raises(UsageError):
            room.connect(host_keys=())

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            ({"private_key_files": ()}, "no private key"),
            ({"user": "root"}, "does not accept"),
        ],
    )
    def test_only_the_seeds_accounts_get_in(self, room: Room, more: dict[str, object], words: str) -> None:
        room.start()
        with pytest.raises(PermissionDenied, match=words):
            room.connect(**more)

    def test_another_sites_key_does_not_fit(self, room: Room) -> None:
        room.host.keys.store("lab", room.host.entropy.keypair("lab"))
        room.start()
        with pytest.raises(PermissionDenied):
            room.connect(private_key_files=(room.host.keys.private_file("lab"),))

    def test_another_address_is_another_machine(self, room: Room) -> None:
        room.start()
        with pytest.raises(Unreachable):
            room.connect(host="10.20.0.11")

    def test_a_seed_for_another_mac_gives_no_address(self, room: Room) -> None:
        room.who = replace(room.who, nics=(replace(room.who.nics[0], mac="52:54:00:00:00:01"),))
        room.plant()
        room.start()
        with pytest.raises(Unreachable):
            room.connect()

    def test_without_sshd_nobody_answers(self, room: Room) -> None:
        room.host.behave("web-01", ssh=False)
        room.start()
        with pytest.raises(Unreachable):
            room.connect()

    def test_a_power_cut_ends_the_session(self, room: Room) -> None:
        room.start()
        session = room.connect()
        room.host.hypervisor.power_off(room.who.uuid)
        room.start()
        room.host.advance(60)
        with pytest.raises(Unreachable, match="lost"):
            session.run(["true"], timeout=5)

    def test_programs_and_files(self, room: Room) -> None:
        room.start()
        session = room.connect()
        assert session.read_file("/etc/motd") == b"hello\n"
        session.write_file("/tmp/x", b"data")
        assert session.run(["cat", "/tmp/x"], timeout=5).stdout == b"data"
        assert session.run(["whoami"], timeout=5, sudo=True).stdout == b"root\n"
        assert session.run(["false"], timeout=5).exit_code == 1
        assert session.run(["nosuch"], timeout=5).exit_code == 127
        room.host.programs["nginx"] = lambda inside, arguments, data: Ran(b"v1 " + data, exit_code=len(arguments))
        found = session.run(["/usr/sbin/nginx", "-v"], input=b"in", timeout=5, cap=4)
        assert (found.exit_code, found.stdout, found.truncated) == (1, b"v1 i", True)
        with pytest.raises(Absent):
            session.read_file("/no")
        with pytest.raises(DriverError, match="larger"):
            session.read_file("/etc/motd", cap=2)
        session.close()
        with pytest.raises(Unreachable):
            session.run(["true"], timeout=5)


class TestCloudInit:
    def verdict(self, room: Room, timeout: float = 60.0):  # type: ignore[no-untyped-def]
        return parse_verdict_output(room.connect().run(VERDICT_ARGV, timeout=timeout).stdout)

    def test_done(self, room: Room) -> None:
        room.start()
        began = room.ports.clock.monotonic()
        verdict = self.verdict(room)
        assert verdict.state is VerdictState.DONE
        assert verdict.datasource.startswith("DataSourceNoCloud")
        assert room.ports.clock.monotonic() - began == pytest.approx(30), "it waits for the end"
        assert "all done" in room.ports.signals.console_tail(console_log(builders.LOGS, room.who.uuid), 9)

    def test_it_takes_longer_than_one_waits(self, room: Room) -> None:
        room.start()
        with pytest.raises(DriverError, match="in time"):
            self.verdict(room, timeout=5)

    def test_errors_and_warnings_are_the_modules_own_words(self, room: Room) -> None:
        room.host.behave("web-01", verdict="error", errors=["('scripts_user', boom)"], warnings=["deprecated"])
        room.start()
        verdict = self.verdict(room)
        assert verdict.state is VerdictState.ERROR
        assert verdict.errors == ("('scripts_user', boom)",)
        assert verdict.warnings == ("WARNING: deprecated",)

    def test_degraded(self, room: Room) -> None:
        room.host.behave("web-01", verdict="degraded", warnings=["deprecated"])
        room.start()
        assert self.verdict(room).state is VerdictState.DEGRADED

    def test_it_runs_once_for_an_instance_id(self, room: Room) -> None:
        room.start()
        room.connect()
        room.host.hypervisor.power_off(room.who.uuid)
        stranger = room.host.entropy.keypair("new").public
        room.plant(key=stranger)
        room.start()
        room.connect()
        room.host.hypervisor.power_off(room.who.uuid)
        room.plant(key=stranger, instance="another")
        room.start()
        with pytest.raises(HostKeyMismatch):
            room.connect()

    def test_a_seed_without_secrets_changes_nothing(self, room: Room) -> None:
        room.start()
        room.connect()
        room.host.hypervisor.power_off(room.who.uuid)
        meta = json.dumps({"instance-id": room.who.instance_id}).encode()
        scrubbed = FakeSeedMaker().make({"meta-data": meta, "user-data": b"#cloud-config\n{}"})
        room.host.hypervisor.upload_volume(POOL, volume_name(room.who.uuid, "seed", "iso"), scrubbed)
        room.start()
        assert room.connect().run(["hostname"], timeout=5).stdout == b"web-01\n"

    def test_an_empty_disk_boots_nothing(self, room: Room) -> None:
        room.host.add_volume(POOL, Volume(volume_name(room.who.uuid, "root"), 10 << 30, "qcow2"))
        room.start()
        with pytest.raises(Unreachable):
            room.connect()
        assert room.ports.signals.console_tail(console_log(builders.LOGS, room.who.uuid), 1) == ("No bootable device.",)

    def test_without_a_seed_it_is_nobody(self, room: Room) -> None:
        room.host.hypervisor.delete_volume(POOL, volume_name(room.who.uuid, "seed", "iso"))
        room.host.add_volume(POOL, Volume(volume_name(room.who.uuid, "seed", "iso"), 2048, "raw"))
        room.start()
        with pytest.raises(Unreachable):
            room.connect()


class TestNetwork:
    def test_neighbours_are_those_who_are_up(self, room: Room) -> None:
        assert room.host.links.neighbours() == ()
        room.start()
        room.host.advance(30)
        (neighbour,) = room.host.links.neighbours()
        assert (neighbour.address, neighbour.mac, neighbour.link) == ("10.20.0.10", room.who.nics[0].mac, "br0")
        room.host.hypervisor.power_off(room.who.uuid)
        assert room.host.links.neighbours() == ()

    def test_dhcp_gives_an_address_of_the_subnet_and_always_the_same(self) -> None:
        room = Room(dhcp4=True)
        room.start()
        room.host.advance(30)
        (first,) = room.host.links.neighbours()
        assert first.address.startswith("10.20.0.")
        assert 128 <= int(first.address.rpartition(".")[2]) < 255
        assert room.connect(host=first.address)

    def test_a_tap_is_there_while_the_domain_runs(self, room: Room) -> None:
        names = {link.name for link in room.host.links.links()}
        room.start()
        (tap,) = [link for link in room.host.links.links() if link.name not in names]
        assert (tap.name, tap.master, tap.kind) == (room.who.nics[0].tap, "br0", "tun")
        assert tap.mac == "fe" + room.who.nics[0].mac[2:]
        room.host.hypervisor.power_off(room.who.uuid)
        assert {link.name for link in room.host.links.links()} == names

    def test_a_forwarded_port(self, room: Room) -> None:
        mac = room.who.nics[0].mac
        qemu = "{http://libvirt.org/schemas/domain/qemu/1.0}"
        backend = "user,id=host-n,hostfwd=tcp:127.0.0.1:22200-:22"
        args = ("-netdev", backend, "-device", f"virtio-net-pci,netdev=host-n,id=ua-nic-n,mac={mac}")

        def change(xml: str) -> str:
            root = read(xml)
            for nic in root.findall("devices/interface"):
                nic.getparent().remove(nic)
            line = root.makeelement(f"{qemu}commandline")
            line.extend(root.makeelement(f"{qemu}arg", {"value": value}) for value in args)
            root.append(line)
            return write(root)

        room.host.edit("web-01", change)
        room.start()
        assert room.connect(host="127.0.0.1", port=22200)
        assert room.host.entropy.port(frozenset({22201})) == 22202


class TestAgent:
    def ask(self, room: Room, command: str, **arguments: object):  # type: ignore[no-untyped-def]
        question = json.dumps({"execute": command, "arguments": arguments})
        return json.loads(room.host.hypervisor.agent(room.who.uuid, question, 2.0))["return"]

    def test_only_when_it_is_up(self, room: Room) -> None:
        with pytest.raises(Absent, match="does not run"):
            self.ask(room, "guest-ping")
        room.start()
        with pytest.raises(Unreachable, match="not connected"):
            self.ask(room, "guest-ping")
        room.host.advance(30)
        assert self.ask(room, "guest-ping") == {}
        assert 'state="connected"' in room.host.domain("web-01").live_xml

    def test_a_guest_without_one(self, room: Room) -> None:
        room.host.behave("web-01", agent=False)
        room.start()
        room.host.advance(30)
        with pytest.raises(Unreachable):
            self.ask(room, "guest-ping")

    def test_addresses_programs_and_the_unknown(self, room: Room) -> None:
        room.start()
        room.host.advance(30)
        (link,) = self.ask(room, "guest-network-get-interfaces")
        assert link["hardware-address"] == room.who.nics[0].mac
        assert link["ip-addresses"][0]["ip-address"] == "10.20.0.10"
        pid = self.ask(room, "guest-exec", path="echo", arg=["a", "b"], **{"capture-output": True})["pid"]
        ended = self.ask(room, "guest-exec-status", pid=pid)
        assert (ended["exited"], ended["exitcode"], base64.b64decode(ended["out-data"])) == (True, 0, b"a b\n")
        with pytest.raises(DriverError, match="has not been found"):
            self.ask(room, "guest-nosuch")
        room.host.agents.answers["guest-nosuch"] = lambda asked: asked.domain.name
        assert self.ask(room, "guest-nosuch") == "web-01"


class TestEnds:
    def test_it_shuts_down_when_asked(self, room: Room) -> None:
        room.start()
        room.host.advance(30)
        room.host.hypervisor.shut_down(room.who.uuid)
        assert room.host.domain("web-01").state is DomainState.SHUTOFF

    def test_it_takes_its_time(self, room: Room) -> None:
        room.host.behave("web-01", shutdown_seconds=7)
        room.start()
        room.host.advance(30)
        room.host.hypervisor.shut_down(room.who.uuid)
        room.host.advance(6)
        assert room.host.domain("web-01").state is DomainState.RUNNING
        room.host.advance(2)
        assert room.host.domain("web-01").state is DomainState.SHUTOFF

    def test_one_that_has_not_booted_does_not_listen(self, room: Room) -> None:
        room.start()
        room.host.hypervisor.shut_down(room.who.uuid)
        room.host.advance(30)
        assert room.host.domain("web-01").state is DomainState.RUNNING

    def test_one_that_does_not_obey(self, room: Room) -> None:
        room.host.behave("web-01", obeys=False)
        room.start()
        room.host.advance(30)
        room.host.hypervisor.shut_down(room.who.uuid)
        room.host.advance(600)
        assert room.host.domain("web-01").state is DomainState.RUNNING

    def test_saved_memory_starts_what_it_was(self, room: Room) -> None:
        room.start()
        room.host.advance(30)
        room.host.save_memory("web-01")
        assert room.host.domain("web-01").managed_save
        room.host.edit("web-01", lambda xml: xml.replace(">524288<", ">1048576<"))
        room.start()
        domain = room.host.domain("web-01")
        assert not domain.managed_save
        assert ">524288<" in domain.live_xml, "the old definition runs"
        assert ">1048576<" in domain.xml
        assert room.connect(), "at once: it was up when it was saved"

    def test_a_crash(self, room: Room) -> None:
        room.start()
        room.host.crash_guest("web-01")
        assert room.host.domain("web-01").state is DomainState.SHUTOFF


def test_seeds_go_there_and_back() -> None:
    files = {"meta-data": b"{}", "user-data": bytes(range(256))}
    image = FakeSeedMaker().make(files)
    assert len(image) % 2048 == 0
    assert read_seed(image + bytes(4096)) == files
    assert read_seed(b"") is None
    assert FakeSeedMaker().make(files) == image
