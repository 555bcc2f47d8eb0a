"""Whether KVM is usable: the probe itself, and a verdict that is quick, kept and never hangs."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from vmhost.drivers import kvm
from vmhost.drivers.command import run

SOURCE = Path(kvm.__file__).with_name("kvm_probe.S")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VMHOST_KVM", raising=False)
    monkeypatch.setenv("VMHOST_RUNTIME_DIR", str(tmp_path / "run"))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file in the place of /dev/kvm, and the verdicts that the probe would give."""
    path = tmp_path / "kvm"
    path.touch()
    monkeypatch.setattr(kvm, "_DEVICE", path)
    return path


def counted(monkeypatch: pytest.MonkeyPatch, works: bool, certain: bool) -> list[tuple[str, str]]:
    calls: list[tuple[str, str]] = []

    def probe(accelerator: str, cpu: str) -> tuple[bool, bool]:
        calls.append((accelerator, cpu))
        return works, certain

    monkeypatch.setattr(kvm, "_try", probe)
    return calls


def test_the_bytes_are_what_the_source_says(tmp_path: Path) -> None:
    for tool in ("as", "ld"):
        assert shutil.which(tool), "binutils come with gcc"
    run(["as", str(SOURCE), "-o", str(tmp_path / "probe.o")], timeout=20)
    words = ["ld", "--oformat", "binary", "-Ttext", "0x7c00", "probe.o", "-o", "probe.bin"]
    run(words, timeout=20, cwd=tmp_path)
    assert (tmp_path / "probe.bin").read_bytes() == kvm.boot_sector()


@pytest.mark.parametrize("cpu", ["max", "qemu64"])
def test_the_probe_works_on_a_machine_that_works(monkeypatch: pytest.MonkeyPatch, cpu: str) -> None:
    monkeypatch.setattr(kvm, "_LIMIT", 50.0)
    assert kvm._try("tcg", cpu) == (True, True)


def test_a_cpu_without_long_mode_is_found_out() -> None:
    """The probe can fail: on a CPU of 32 bits it does not come to its end."""
    assert kvm._try("tcg", "qemu32")[0] is False


@pytest.mark.serial  # it looks at the clock
def test_a_guest_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "_SECTOR", b"\xfa\xf4\xeb\xfd")  # cli; hlt; again
    monkeypatch.setattr(kvm, "_LIMIT", 1.0)
    began = time.monotonic()
    assert kvm._try("tcg", "max") == (False, False)
    assert time.monotonic() - began < 5


def test_a_file_that_is_no_kvm_is_not_enough(device: Path) -> None:
    """QEMU itself says no."""
    assert device.exists()
    if not Path("/dev/kvm").exists():
        assert kvm._try("kvm", "host") == (False, True)


def test_without_the_device_nothing_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = counted(monkeypatch, True, True)
    monkeypatch.setattr(kvm, "_DEVICE", tmp_path / "missing")
    assert (kvm.usable(), calls) == (False, [])


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("works", [True, False])
def test_one_probe_for_each_boot_and_qemu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, works: bool) -> None:
    calls = counted(monkeypatch, works, True)
    assert [kvm.usable() for _ in range(3)] == [works] * 3
    assert calls == [("kvm", "host")]
    boot = tmp_path / "boot_id"
    boot.write_text("another boot\n")
    monkeypatch.setattr(kvm, "_BOOT_ID", boot)
    assert kvm.usable() is works
    assert len(calls) == 2
    emulator = tmp_path / "qemu"
    emulator.write_bytes(b"another QEMU")
    monkeypatch.setattr(kvm, "find", lambda _: str(emulator))
    assert kvm.usable() is works
    assert len(calls) == 3


@pytest.mark.usefixtures("device")
def test_a_time_out_is_not_believed_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch, False, False)
    assert (kvm.usable(), kvm.usable(), len(calls)) == (False, False, 1)
    now = time.time()
    monkeypatch.setattr(kvm.time, "time", lambda: now + 3600)
    assert (kvm.usable(), len(calls)) == (False, 2)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b'{"key": 1}', b"\xff"])
def test_a_damaged_cache_is_no_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, junk: bytes) -> None:
    calls = counted(monkeypatch, True, True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "kvm.json").write_bytes(junk)
    assert (kvm.usable(), kvm.usable(), len(calls)) == (True, True, 1)


@pytest.mark.usefixtures("device")
def test_without_a_place_to_keep_it_the_verdict_holds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = counted(monkeypatch, True, True)
    (tmp_path / "run").write_text("a file where the directory should be")
    assert (kvm.usable(), kvm.usable(), len(calls)) == (True, True, 2)


@pytest.mark.parametrize(("value", "verdict"), [("0", False), ("1", True)])
def test_the_environment_is_believed(monkeypatch: pytest.MonkeyPatch, value: str, verdict: bool) -> None:
    calls = counted(monkeypatch, not verdict, True)
    monkeypatch.setenv("VMHOST_KVM", value)
    assert (kvm.usable(), calls) == (verdict, [])


@pytest.mark.serial  # it looks at the clock
def test_the_real_verdict_is_quick_and_quicker_the_second_time() -> None:
    began = time.monotonic()
    first = kvm.usable()
    between = time.monotonic()
    assert kvm.usable() is first
    assert between - began < 5
    assert time.monotonic() - between < 0.5
    assert not (first and not os.access("/dev/kvm", os.R_OK | os.W_OK))
