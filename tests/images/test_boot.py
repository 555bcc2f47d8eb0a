"""The built image boots by BIOS and by UEFI, and is what the recipe promises, with nothing of vmhost between."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.images.plainguest import DISK, PlainGuest, plain_guest
from vmhost.drivers.images.store import ImageStore
from vmhost.lab.cache import images as image_cache

pytestmark = pytest.mark.guest

PATIENCE = 300.0
GIB = 1 << 30
FIRMWARE = ("bios", "uefi")


@pytest.fixture(scope="module")
def image() -> Path:
    """The image in the cache that labs share; it is built before the lab is entered."""
    return ImageStore(image_cache()).path("debian-12")


@pytest.fixture(scope="module")
def booting(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, PlainGuest]]:
    """A guest of each firmware; they boot side by side."""
    with ExitStack() as guests:
        yield {
            firmware: guests.enter_context(
                plain_guest(image, tmp_path_factory.mktemp(firmware), uefi=firmware == "uefi")
            )
            for firmware in FIRMWARE
        }


@pytest.fixture(scope="module", params=FIRMWARE)
def guest(request: pytest.FixtureRequest, booting: Mapping[str, PlainGuest]) -> PlainGuest:
    """A guest that lets us in, once for each firmware."""
    running = booting[request.param]
    running.await_login(PATIENCE)
    print(f"{request.param}: login after {running.age:.0f} s")
    return running


def test_cloud_init_ends_well_and_the_system_is_whole(guest: PlainGuest, request: pytest.FixtureRequest) -> None:
    result = guest.await_verdict(PATIENCE)
    print(f"cloud-init's verdict after {guest.age:.0f} s")
    assert result["v1"]["errors"] == []
    assert result["v1"]["datasource"].startswith("DataSourceNoCloud [seed=/dev/vdb]")
    said = guest.ssh(
        "set -e; cloud-init status; grep -c WARNING /var/log/cloud-init.log || true; hostname; "
        "systemctl --failed --no-legend; findmnt -bno SIZE /; [ -d /sys/firmware/efi ] && echo uefi || echo bios"
    ).text.split("\n")
    assert said[:3] == ["status: done", "0", "plain-01"]
    assert int(said[3]) > DISK - GIB, "the root partition has not grown"
    assert said[4] == request.node.callspec.params["guest"]


def test_nothing_is_shared_between_guests_of_one_image(guest: PlainGuest) -> None:
    host_keys = guest.ssh("ls /etc/ssh/ssh_host_*_key").text.split()
    assert host_keys == ["/etc/ssh/ssh_host_ed25519_key"]
    machine_id = guest.ssh("cat /etc/machine-id").text.strip()
    assert len(machine_id) == 32
    assert guest.ssh("sudo grep -c '^root:[!*]' /etc/shadow").text.strip() == "1"


def test_a_forgotten_freeze_ends_by_itself(guest: PlainGuest) -> None:
    """decision 0009: the host froze the guest's file systems and died."""
    assert guest.agent("guest-fsfreeze-freeze")["return"] >= 1
    frozen = time.monotonic()
    assert guest.agent("guest-fsfreeze-status") == {"return": "frozen"}

    guest.ssh("sudo sh -c 'echo written >/var/tmp/mark; sync -f /var/tmp/mark'", timeout=60)
    waited = time.monotonic() - frozen
    print(f"thawed after {waited:.1f} s")
    assert waited > 5, "it was not frozen at all"
    told = guest.ssh("timeout 30 sh -c 'until sudo dmesg | grep \"vmhost: no thaw\"; do sleep 0.2; done'").text
    assert "no thaw came within 10 s" in told
    # The agent takes commands again: it has been started anew, and not as frozen.
    assert guest.agent("guest-fsfreeze-status") == {"return": "thawed"}
    assert "return" in guest.agent("guest-get-host-name")


def test_a_thaw_in_time_disarms_the_dead_man(guest: PlainGuest) -> None:
    frozen = guest.agent("guest-fsfreeze-freeze")["return"]
    assert guest.agent("guest-fsfreeze-thaw") == {"return": frozen}
    state = "timeout 30 sh -c 'while systemctl --quiet is-active vmhost-thaw; do sleep 0.2; done; echo ended'"
    assert guest.ssh(state).text.strip() == "ended"
    told = guest.ssh("sudo dmesg | grep -c 'vmhost: no thaw' || true").text.strip()
    assert told in ("0", "1")  # at most the one of the test above


@pytest.mark.full
def test_a_kernel_of_the_guests_own_is_found_at_the_next_boot(guest: PlainGuest) -> None:
    """update-grub, which every kernel's installation runs, writes a menu for the disk as the guest sees it."""
    guest.ssh("sudo update-grub", timeout=180)
    menu = guest.ssh("sudo cat /boot/grub/grub.cfg").text
    assert "root=UUID=" in menu
    assert "console=ttyS0" in menu
    assert guest.ssh("sudo ls /boot/efi/EFI").text.split() == ["BOOT", "debian"]
