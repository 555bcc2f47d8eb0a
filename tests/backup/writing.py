"""Writing to disks of guests, and comparing what disks hold: outside witnesses, by QEMU's own tools."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from tests.contract.backends import eventually
from tests.labfixture import InLab
from vmhost.drivers.command import run


@dataclass
class Paused:
    """A guest that runs no instruction; ``files`` are its disks by id. ``model`` is what they should hold by now."""

    lab: InLab
    name: str
    files: dict[str, str]
    model: dict[str, bytearray] = field(default_factory=dict)

    def write(self, disk: str, pattern: int, offset: int, length: int) -> None:
        """Write bytes of one value to a disk as the guest would: QEMU has them, the file perhaps not yet."""
        command = f'qemu-io -d ua-disk-{disk}/virtio-backend "write -P {pattern} {offset} {length}"'
        said = self.lab.virsh("qemu-monitor-command", self.name, "--hmp", command).text
        assert "rror" not in said, said
        self.content(disk)[offset : offset + length] = bytes([pattern]) * length

    def flush(self) -> None:
        """Bring what was written into the files, so that it outlives QEMU."""
        for disk in self.files:
            self.lab.virsh(
                "qemu-monitor-command", self.name, "--hmp", f'qemu-io -d ua-disk-{disk}/virtio-backend "flush"'
            )

    def pid(self) -> int:
        """The process id of its QEMU."""
        return int(Path(f"/run/libvirt/qemu/{self.name}.pid").read_text())

    def await_end(self) -> None:
        """Wait until libvirt knows that its QEMU has ended."""
        assert eventually(lambda: "shut off" in self.lab.virsh("domstate", self.name).text)

    def assert_left_alone(self) -> None:
        """No backup is at work on it any more: libvirt has no job, QEMU copies nothing, no scratch file is there."""
        assert self.lab.virsh("backup-dumpxml", self.name, check=False).code == 1
        said = self.lab.virsh("qemu-monitor-command", self.name, '{"execute": "query-block-jobs"}').text
        assert json.loads(said)["return"] == []
        for path in self.files.values():
            assert list(Path(path).parent.glob(f"{Path(path).name}*scratch*")) == []

    def content(self, disk: str) -> bytearray:
        """What a disk should hold."""
        if disk not in self.model:
            self.model[disk] = bytearray(capacity(Path(self.files[disk])))
        return self.model[disk]

    def hashes(self) -> dict[str, str]:
        """The hash of what each disk should hold."""
        return {disk: hashlib.sha256(self.content(disk)).hexdigest() for disk in self.files}

    def held(self, scratch: Path) -> dict[str, str]:
        """The hash of what each of its files holds; it is off."""
        return {disk: held(Path(path), scratch) for disk, path in self.files.items()}


class Kept:
    """The disks of a guest that is off, and its checkpoint, to be put back as they are now."""

    def __init__(self, guest: Paused, scratch: Path) -> None:
        self._guest = guest
        self._data = {Path(path): Path(path).read_bytes() for path in guest.files.values()}
        self._checkpoint = scratch / "checkpoint.xml"
        xml = guest.lab.virsh("checkpoint-dumpxml", guest.name, self._checkpoints()).text
        self._checkpoint.write_text(xml)

    def put_back(self) -> None:
        """Let the next one find the same; what was kept beside the disks goes."""
        for path, data in self._data.items():
            for left in path.parent.glob(f"{path.name}*"):
                left.unlink()
            path.write_bytes(data)
        if not self._checkpoints():
            self._guest.lab.virsh("checkpoint-create", self._guest.name, str(self._checkpoint), "--redefine")

    def _checkpoints(self) -> str:
        return self._guest.lab.virsh("checkpoint-list", self._guest.name, "--name").text.strip()


def capacity(path: Path) -> int:
    """How large a disk is, as its guest sees it."""
    said = run(["qemu-img", "info", "-U", "--output=json", str(path)], timeout=60).text
    return int(json.loads(said)["virtual-size"])


def content_of(path: Path, scratch: Path, *, of_running: bool = False) -> bytes:
    """What a disk holds with all that it lies on, read by qemu-img; ``of_running``: QEMU has its file open."""
    raw = scratch / f"{path.name}.raw"
    share = ["-U"] if of_running else []
    run(["qemu-img", "convert", *share, "-f", "qcow2", "-O", "raw", str(path), str(raw)], timeout=60)
    try:
        return raw.read_bytes()
    finally:
        raw.unlink()


def held(path: Path, scratch: Path) -> str:
    """The hash of what a disk holds with all that it lies on."""
    return hashlib.sha256(content_of(path, scratch)).hexdigest()


def point_directory(repository: str, point: str) -> Path:
    """Where a point lies, found without vmhost."""
    (found,) = Path(repository).glob(f"hosts/*/guests/*/points/{point}")
    return found


def held_by_point(repository: str, point: str, guest: Paused, scratch: Path) -> dict[str, str]:
    """The hash of what each disk of a point holds, read by qemu-img alone."""
    directory = point_directory(repository, point)
    return {disk: held(directory / f"{disk}.qcow2", scratch) for disk in guest.files}
