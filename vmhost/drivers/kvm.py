"""Whether guests really run under KVM here.

``/dev/kvm`` may exist and yet no ordinary kernel runs under it: QEMU stops on a model-specific register, or the guest
hangs. So a guest of one boot sector is started with the CPU that real guests get; ``kvm_probe.S`` tells what it does.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from vmhost.drivers.command import CommandFailed, find, run
from vmhost.drivers.files import make_directory, write_atomically
from vmhost.drivers.layout import layout_for
from vmhost.model.errors import Absent, DriverError

EMULATOR: Final = "qemu-system-x86_64"
WORKS: Final = 85  # the probe's 0x2a on isa-debug-exit, as QEMU turns it into an exit code

_DEVICE: Final = Path("/dev/kvm")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_LIMIT: Final = 3.0  # seconds; a machine with KVM needs a few tenths
_DOUBT: Final = 600.0  # seconds that a time-out counts: the machine may only have been busy
_DISK: Final = 4 << 20  # SeaBIOS does not boot from a disk of less than a cylinder
_SECTOR: Final = bytes.fromhex(
    "fafc31c08ed88ec08ed0bc007cbf0010b90050f3aac70600100720c70600200730c70618200740c7060030870066c706b84f"
    "9b00e0fec70600542b7d66c70602540800008e0f0116687d0f011e6e7d0f20e00c200f22e066b8001000000f22d866b98000"
    "00c00f320d01010f300f20c0660d010000800f22c0ea7e7c080066b810008ed88ec08ed0b8010000000fa2f7c2000200000f"
    "8494000000b9000100c0b834125a5a31d20f3031c00f323d34125a5a757bb9810000c031c0ba080018000f30b9820000c0b8"
    "e97c000031d20f30b9de7c000041bb02000000480f07668cc824033c0375fe0f0566b810008ed0bc007c0000b0ffe621e6a1"
    "bb0000e0fec783f0000000ff010000c783e00300000b000000c7832003000040000000c78380030000a0860100fbf4ebfdb0"
    "2ae6f4b001e6f4ebfa0f1f00000000000000000000000000009a2000000000000092000000000000000000000000000000f2"
    "00000000000000fa20002f00387d0000ff0f0050"
)


def usable() -> bool:
    """Whether a KVM guest runs on this machine; False at once without ``/dev/kvm``, else after one probe for each boot.

    ``VMHOST_KVM=0`` or ``1`` is believed without looking. On other architectures than x86_64 there is no probe: False.
    """
    forced = os.environ.get("VMHOST_KVM")
    if forced in ("0", "1"):
        return forced == "1"
    if platform.machine() != "x86_64" or not os.access(_DEVICE, os.R_OK | os.W_OK):
        return False
    try:
        emulator = find(EMULATOR)
    except Absent:
        return False
    key, cache = _key(emulator), layout_for(privileged=os.geteuid() == 0).runtime / "kvm.json"
    known = _remembered(cache, key)
    if known is not None:
        return known
    works, certain = _try("kvm", "host")
    _remember(cache, key, works, certain)
    return works


def boot_sector() -> bytes:
    """The probe as a bootable sector."""
    return _SECTOR.ljust(510, b"\0") + b"\x55\xaa"


def _try(accelerator: str, cpu: str) -> tuple[bool, bool]:
    """Boot the probe; return whether it worked, and whether that is certain (False: its time was over)."""
    with tempfile.NamedTemporaryFile(prefix="vmhost-kvm-") as disk:
        disk.write(boot_sector())
        disk.truncate(_DISK)
        disk.flush()
        words = [EMULATOR, "-accel", accelerator, "-cpu", cpu, "-machine", "q35", "-m", "32", "-display", "none"]
        words += ["-nodefaults", "-no-user-config", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
        words += ["-drive", f"file={disk.name},format=raw,if=none,id=probe,readonly=on"]
        words += ["-device", "virtio-blk-pci,drive=probe"]
        try:
            return run(words, timeout=_LIMIT, check=False, grace=0.2).code == WORKS, True
        except CommandFailed:
            return False, False
        except DriverError:
            return False, True


def _key(emulator: str) -> str:
    """What the verdict depends on: this boot (kernel and modules) and this QEMU."""
    status = Path(emulator).stat()
    return f"{_BOOT_ID.read_text().strip()} {emulator} {status.st_size} {status.st_mtime_ns}"


def _remembered(cache: Path, key: str) -> bool | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(cache.read_text())
        if kept["key"] == key and time.time() < float(kept["until"]):
            return bool(kept["usable"])
    return None


def _remember(cache: Path, key: str, works: bool, certain: bool) -> None:
    """Keep the verdict; where that is not possible the next call probes again."""
    until = time.time() + (365 * 86400 if certain else _DOUBT)
    with suppress(DriverError):
        make_directory(cache.parent)
        write_atomically(cache, json.dumps({"key": key, "usable": works, "until": until}).encode(), mode=0o644)
