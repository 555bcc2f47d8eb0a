"""A guest of plain QEMU, with nothing of vmhost between: what shows that an image is good by itself."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmhost.drivers.command import Child, Completed, run, spawn
from vmhost.drivers.seediso import IsoSeedMaker

MAC = "52:54:00:12:34:56"
DISK = 6 << 30
OVMF = Path("/usr/share/OVMF")


@dataclass(frozen=True)
class PlainGuest:
    """A running guest: QEMU's process, the port of its SSH on loopback, a directory with its keys, log and sockets."""

    qemu: Child
    port: int
    place: Path
    started: float

    @property
    def age(self) -> float:
        """Seconds since QEMU was started."""
        return time.monotonic() - self.started

    def ssh(self, command: str, *, timeout: float = 60, check: bool = True) -> Completed:
        """Run a command in the guest; its host key is the one of the seed and no other."""
        options = [f"UserKnownHostsFile={self.place / 'known_hosts'}", "StrictHostKeyChecking=yes", "BatchMode=yes"]
        words = [word for option in (*options, "ConnectTimeout=10") for word in ("-o", option)]
        login = ["-F", "none", "-i", str(self.place / "key"), "-p", str(self.port), "op@127.0.0.1"]
        return run(["ssh", *words, *login, command], timeout=timeout, check=check)

    def await_login(self, patience: float) -> None:
        """Wait until the guest lets us in."""
        while True:
            if self.ssh("true", check=False).code == 0:
                return
            assert self.qemu.code() is None, f"QEMU ended: {self.last_words()}"
            assert self.age < patience, f"no login after {patience} s: {self.last_words()}"
            time.sleep(0.5)

    def await_verdict(self, patience: float) -> dict[str, Any]:
        """Wait until cloud-init has ended, and return its result."""
        wait = f"timeout {patience:.0f} sh -c 'until [ -e /run/cloud-init/result.json ]; do sleep 0.5; done'"
        done = self.ssh(f"{wait} && cat /run/cloud-init/result.json", timeout=patience + 30)
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def last_words(self) -> str:
        """The end of its serial console."""
        return (self.place / "console.log").read_text(errors="replace")[-2000:]

    def agent(self, command: str, *, patience: float = 60) -> Any:
        """Ask the guest agent, as libvirt would (docs/interop/qemu-ga-ref of QEMU)."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(patience)
            connection.connect(str(self.place / "agent"))
            # The byte 0xff makes the agent forget half a command of somebody before us.
            connection.sendall(b"\xff" + json.dumps({"execute": "guest-sync", "arguments": {"id": 7}}).encode() + b"\n")
            lines = connection.makefile("rb")
            while json.loads(lines.readline().lstrip(b"\xff")).get("return") != 7:
                pass
            connection.sendall(json.dumps({"execute": command}).encode() + b"\n")
            return json.loads(lines.readline())


@contextmanager
def plain_guest(image: Path, place: Path, *, uefi: bool) -> Iterator[PlainGuest]:
    """Boot an image under TCG with a seed, and power it off at the end."""
    keys(place)
    disk, seed = place / "disk.qcow2", place / "seed.iso"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(image), str(disk), str(DISK)], timeout=60)
    seed.write_bytes(IsoSeedMaker().make(seed_files(place)))
    port = free_port()
    (place / "known_hosts").write_text(f"[127.0.0.1]:{port} {(place / 'host.pub').read_text()}")
    started = time.monotonic()
    with spawn(qemu(place, disk, seed, port, uefi=uefi), log=place / "console.log") as child:
        yield PlainGuest(child, port, place, started)


def keys(place: Path) -> None:
    for name in ("key", "host"):
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(place / name)], timeout=60)


def seed_files(place: Path) -> dict[str, bytes]:
    user = {
        "name": "op",
        "shell": "/bin/bash",
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "ssh_authorized_keys": [(place / "key.pub").read_text().strip()],
    }
    user_data = {
        "users": [user],
        "ssh_keys": {
            "ed25519_private": (place / "host").read_text(),
            "ed25519_public": (place / "host.pub").read_text(),
        },
    }
    nic = {
        "match": {"macaddress": MAC},
        "addresses": ["10.0.2.15/24"],
        "routes": [{"to": "default", "via": "10.0.2.2"}],
        "accept-ra": False,
    }
    return {
        "user-data": b"#cloud-config\n" + json.dumps(user_data).encode(),
        "meta-data": json.dumps({"instance-id": "i-1", "local-hostname": "plain-01"}).encode(),
        "network-config": json.dumps({"version": 2, "ethernets": {"net0": nic}}).encode(),
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def qemu(place: Path, disk: Path, seed: Path, port: int, *, uefi: bool) -> list[str]:
    """The command line; only virtio devices, since Debian's cloud kernel has no other drivers."""
    words = ["qemu-system-x86_64", "-nodefaults", "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "2"]
    words += ["-m", "768", "-display", "none", "-serial", "stdio", "-device", "virtio-rng-pci"]
    words += ["-drive", f"file={disk},if=virtio,format=qcow2,cache=unsafe"]
    words += ["-drive", f"file={seed},if=virtio,format=raw,readonly=on"]
    words += ["-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22"]
    words += ["-device", f"virtio-net-pci,netdev=net,mac={MAC},romfile="]
    words += ["-chardev", f"socket,id=agent,path={place / 'agent'},server=on,wait=off", "-device", "virtio-serial-pci"]
    words += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
    if uefi:
        shutil.copy(OVMF / "OVMF_VARS_4M.fd", place / "vars.fd")
        words += ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF / 'OVMF_CODE_4M.fd'}"]
        words += ["-drive", f"if=pflash,format=raw,file={place / 'vars.fd'}"]
    return words
