"""What a guest itself says while it is changed: how long it runs, and what it has of what it was given."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.backends import eventually
from tests.labfixture import InLab
from tests.placer.test_real import apply, held
from tests.speaking import Speaking, boot_small_guests, spoken_with
from vmhost.ops.host import Host

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

MIB = 1 << 20
SITE = "speaker: {cpus: {count: %s, max: 2%s}, memory: {size: %s, max: 512M}, disks: [{size: 512M}]}"


@pytest.fixture
def speaking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, placed_host: Host, lab: InLab) -> Iterator[Speaking]:
    """A guest that vmhost made, with a shell to ask it."""
    boot_small_guests(tmp_path, monkeypatch)
    apply(placed_host, SITE % (1, "", "256M"))
    with spoken_with(lab, "speaker") as speaking:
        yield speaking


def test_a_guest_runs_on_and_uses_what_it_is_given_while_it_is_changed(speaking: Speaking, placed_host: Host) -> None:
    boot, start, pid = speaking.boot_id, speaking.uptime, held(placed_host, "speaker").pid
    assert re.fullmatch(r"[0-9a-f-]{36}", boot)
    assert speaking.number("nproc") == 1
    first = speaking.memory

    # a quota, pCPUs of its own, one vCPU and a memory module more: the guest's system has to bring both online
    for more in (", limit: 0.9", ", policy: dedicated, pins: {0: 1}", ""):
        apply(placed_host, SITE % (1, more, "256M"))
        assert speaking.boot_id == boot
    apply(placed_host, SITE % (2, "", "512M"))
    assert speaking.ask("cat /sys/devices/system/cpu/online") == "0"
    speaking.ask("echo 1 > /sys/devices/system/cpu/cpu1/online")
    assert speaking.number("nproc") == 2
    blocks = "/sys/devices/system/memory/memory*/state"
    assert speaking.number(f"grep -l offline {blocks} | wc -l") == 2
    speaking.ask(f"for block in {blocks}; do echo online > $block; done 2>&1")
    assert speaking.memory >= first + 250 * MIB

    # it fills its memory with what it has read; the balloon makes QEMU give that back to the host
    speaking.ask("dd if=/dev/vda of=/dev/null bs=1M count=400 2>&1")
    assert eventually(lambda: held(placed_host, "speaker").resident > 400 * MIB)
    full = held(placed_host, "speaker").resident
    done = apply(placed_host, SITE % (2, "", "160M"))
    assert "balloon 512M -> 160M" in done
    assert eventually(lambda: held(placed_host, "speaker").resident < full - 200 * MIB, seconds=90)
    assert eventually(lambda: speaking.memory < 170 * MIB)

    assert (held(placed_host, "speaker").pid, speaking.boot_id) == (pid, boot)
    assert speaking.uptime > start
    assert speaking.number("nproc") == 2
