"""The main job on a real hypervisor: what a user does, in the order in which a user does it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

import vmhost as library
from tests.contract.backends import eventually
from tests.guest.conftest import DEMO, GUESTS, ROOT, VMHOST, Booted, vmhost
from tests.labfixture import InLab
from tests.terminal import on_a_terminal
from vmhost.model.identity import NAMESPACE

pytestmark = [pytest.mark.guest, DEMO, pytest.mark.timeout(900)]


def test_apply_ends_when_both_guests_are_ready(booted: Booted) -> None:
    for name in GUESTS:
        assert f"{name}: wait for SSH and cloud-init" in booted.talk
        assert f"{name}: cloud-init done" in booted.talk


def test_a_second_plan_is_empty_and_nothing_drifts(booted: Booted) -> None:
    assert vmhost("plan", str(booted.site), "--exit-code").text.strip().endswith("nothing to do")
    drift = vmhost("drift", str(booted.site))
    assert drift.text == ""
    assert drift.code == 0


def test_guests_are_listed_and_shown(booted: Booted) -> None:
    rows = {row["name"]: row for row in json.loads(vmhost("guest", "list", "-o", "json").stdout)["data"]}
    assert {rows[name]["state"] for name in GUESTS} == {"running"}
    assert all(rows[name]["flags"] == [] for name in GUESTS), "a guest that is ready is not pending"
    shown = vmhost("guest", "show", "web-01").text
    assert rows["web-01"]["uuid"] in shown
    assert rows["web-01"]["addresses"][0] in shown


def test_commands_run_in_guests_with_their_exit_code(booted: Booted) -> None:
    assert vmhost("guest", "exec", "web-01", "--", "uname", "-s").text.strip() == "Linux"
    assert vmhost("guest", "exec", "web-01", "--", "hostname").text.strip() == "web-01"
    assert vmhost("guest", "exec", "web-01", "--", "sh", "-c", "exit 42", check=False).code == 42
    assert vmhost("guest", "exec", "web-01", "--", "cat", stdin=b"a\x00b").stdout == b"a\x00b"
    assert vmhost("guest", "exec", "nobody", "--", "true", check=False).code == 255


def test_the_systems_ssh_enters_with_the_pinned_key(booted: Booted) -> None:
    argv = [VMHOST, "guest", "ssh", "db-01", "id", "-un"]
    done = subprocess.run(argv, capture_output=True, timeout=60, check=True, stdin=subprocess.DEVNULL)
    assert done.stdout.strip() == b"vmhost"


def test_one_booted_by_bios_and_the_other_by_uefi(booted: Booted) -> None:
    assert {spec.name: spec.firmware for spec in library.load_site(booted.site).guests} == {
        "web-01": "bios",
        "db-01": "uefi",
    }
    efi = ("--", "test", "-d", "/sys/firmware/efi")
    assert vmhost("guest", "exec", "web-01", *efi, check=False).code == 1
    assert vmhost("guest", "exec", "db-01", *efi).code == 0


def test_cloud_init_did_what_the_site_says(booted: Booted) -> None:
    site = library.load_site(booted.site)
    for spec in site.guests:
        for file in spec.cloud_init.files:
            found = vmhost("guest", "exec", spec.name, "--sudo", "--", "cat", file.path)
            assert found.stdout.decode() == file.content


def test_the_root_file_system_fills_its_disk(booted: Booted) -> None:
    size = vmhost("guest", "exec", "web-01", "--", "df", "--output=size", "-B1", "/").text.split()[-1]
    assert int(size) > 3 << 30, "growpart has grown it to the disk's 4 GiB"


def test_the_seed_holds_no_secret_any_more(booted: Booted, lab: InLab) -> None:
    for name in GUESTS:
        xml = lab.virsh("dumpxml", name).text
        assert NAMESPACE in xml
        assert "PRIVATE KEY" not in xml
    seeds = list(Path("/var/lib/vmhost/disks").glob("*-seed.iso"))
    assert len(seeds) == len(GUESTS)
    for seed in seeds:
        assert seed.stat().st_mode & 0o077 == 0
        content = seed.read_bytes()
        assert b"PRIVATE KEY" not in content
        assert b"instance-id" in content


def halve_memory(lab: InLab) -> None:
    """Change what a guest of ours is to have at its next boot, as somebody at virsh does."""
    before = vmhost("guest", "show", "web-01", "-o", "json")
    memory = json.loads(before.stdout)["data"]["row"]["memory"] >> 10
    lab.virsh("setmem", "web-01", str(memory // 2), "--config")


def test_drift_names_what_virsh_changed(booted: Booted, lab: InLab) -> None:
    halve_memory(lab)
    found = vmhost("drift", str(booted.site), check=False)
    assert found.code == 7
    assert "memory" in found.text
    assert "changed outside vmhost" in found.text
    vmhost("apply", str(booted.site), "--yes", timeout=120)
    assert vmhost("drift", str(booted.site)).code == 0


def test_the_library_sees_the_same(booted: Booted) -> None:
    with library.connect() as host:
        site = library.load_site(booted.site)
        assert host.plan(site).empty
        assert host.drift(site) == ()


def test_the_readmes_python_puts_right_what_virsh_changed(
    booted: Booted, lab: InLab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    halve_memory(lab)
    assert vmhost("drift", str(booted.site), check=False).code == 7
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert "memory" in capsys.readouterr().out
    assert "nothing to do" not in str(names["outcome"])
    assert vmhost("drift", str(booted.site)).code == 0


def test_the_console_is_the_guests(booted: Booted) -> None:
    del booted
    with on_a_terminal([VMHOST, "guest", "console", "web-01"]) as person:
        person.until("web-01 login:", seconds=60, nudge="\r")
        person.type("\x1d")  # Ctrl-]
        assert person.end() == 0


def test_stop_and_start_awaited_by_the_agent(booted: Booted, tmp_path: Path) -> None:
    """cloud-init's verdict comes through the agent, for guests that the host cannot reach by network."""
    site = tmp_path / "by-agent.yaml"
    site.write_text(booted.site.read_text().replace("ready: {by: ssh,", "ready: {by: agent,"))
    boot_id = ("guest", "exec", "db-01", "--", "cat", "/proc/sys/kernel/random/boot_id")
    before = vmhost(*boot_id).text
    vmhost("guest", "stop", "db-01", timeout=240)
    assert "shut off" in vmhost("guest", "list").text
    assert vmhost("plan", str(booted.site), "--exit-code", check=False).code == 7
    told = vmhost("apply", str(site), "--yes", timeout=600).stderr.decode()
    assert "db-01: the guest agent answers" in told
    assert "db-01: cloud-init done" in told
    assert vmhost(*boot_id).text != before
    vmhost("apply", str(booted.site), "--yes")


@pytest.mark.full
def test_a_restart_is_another_boot(booted: Booted) -> None:
    del booted
    boot_id = ("guest", "exec", "web-01", "--", "cat", "/proc/sys/kernel/random/boot_id")
    before = vmhost(*boot_id).text
    vmhost("guest", "restart", "web-01", timeout=600)
    assert eventually(lambda: vmhost(*boot_id, check=False).code == 0, seconds=600)
    assert vmhost(*boot_id).text != before


def test_deleting_leaves_nothing_of_ours(booted: Booted, lab: InLab) -> None:
    refused = vmhost("guest", "delete", "web-01", "--disks", "--yes", check=False)
    assert refused.code == 4
    assert "--power-off" in refused.stderr.decode()
    vmhost("guest", "delete", *GUESTS, "--power-off", "--disks", "--yes", timeout=120)
    assert lab.virsh("list", "--all", "--name").text.strip() == ""
    assert not list(Path("/var/lib/vmhost").glob("disks/*"))
    links = json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, check=True, timeout=10).stdout)
    assert not [link for link in links if link["ifname"].startswith(("vh", "br-demo"))]
    assert not list(Path("/var/lib/vmhost/journal").glob("*.jsonl"))
