"""Pins and quotas of real guests, from a site file to the kernel's own word, and changed while they run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from threading import Event
from time import monotonic

import pytest
from lxml.etree import fromstring

from tests.labfixture import InLab
from vmhost.drivers.kernel import LinuxKernel
from vmhost.model.errors import ApplyError, Refused
from vmhost.model.tuning import Held
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site
from vmhost.testing.faults import FaultPlan, FaultyPorts, driver_error

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

HEAD = (
    "{apiVersion: vmhost/v1, name: placed, defaults: {image: tiny, memory: 64M, disks: [{size: 8M}], ready: {by: none}}"
)


def apply(host: Host, guests: str) -> str:
    """Apply a site of these guests, see that nothing is left to do, and return what was done."""
    site = parse_site(f"{HEAD}, guests: {{{guests}}}}}")
    proposal = host.plan(site)
    host.apply(proposal)
    assert host.plan(site).empty, str(host.plan(site))
    assert host.drift(site) == ()
    return str(proposal)


def held(host: Host, name: str) -> Held:
    """What the kernel says of a guest, read apart from vmhost's own checks."""
    return LinuxKernel().held()[host.guest(name).row.uuid]


def threads(found: Held) -> dict[str, str]:
    """Every thread of a QEMU process with where it may run, straight from /proc."""
    told = {}
    for task in Path(f"/proc/{found.pid}/task").iterdir():
        status = (task / "status").read_text().split("Cpus_allowed_list:\t")[1].split()[0]
        told[(task / "comm").read_text().strip()] = status
    return told


def quota(found: Held, group: str) -> int:
    """A quota of a QEMU process from its group in version 1 of cgroups, straight from the file."""
    lines = Path(f"/proc/{found.pid}/cgroup").read_text().splitlines()
    line = next(line for line in lines if "cpu" in line.split(":")[1].split(","))
    place = Path("/sys/fs/cgroup") / line.split(":")[1] / line.split(":")[2].lstrip("/")
    return int((place.parent / group / "cpu.cfs_quota_us").read_text())


def test_a_guest_is_pinned_limited_and_moved_while_it_runs(placed_host: Host, lab: InLab) -> None:
    host = placed_host
    assert len(host.observe().topology.online) == 2, "this test is for a machine of two CPUs"
    apply(host, "web: {cpus: {count: 2, limit: 1.5}}")
    web = held(host, "web")
    assert threads(web)["CPU 0/TCG"] == threads(web)["CPU 1/TCG"] == "0-1"
    assert (quota(web, ""), quota(web, "vcpu0"), quota(web, "emulator")) == (150_000, -1, -1)

    # a guest with a pCPU of its own comes, and the other one makes room before it starts
    both = (
        "web: {cpus: {count: 2, limit: 1.5}}, db: {cpus: {count: 1, policy: dedicated, pins: {0: %d}, vcpu_limit: 0.5}}"
    )
    done = apply(host, both % 0)
    assert done.index("web: ") < done.index("db: start")
    db = held(host, "db")
    assert threads(db)["CPU 0/TCG"] == "0"
    assert quota(db, "vcpu0") == 50_000
    assert held(host, "web").pid == web.pid
    assert threads(web)["CPU 0/TCG"] == threads(web)["CPU 1/TCG"] == "1"
    assert threads(db)["qemu-system-x86"] == threads(web)["qemu-system-x86"] == "1"

    # both change places, and both go on running
    apply(host, both % 1)
    assert (held(host, "web").pid, held(host, "db").pid) == (web.pid, db.pid)
    assert (threads(db)["CPU 0/TCG"], threads(web)["CPU 1/TCG"]) == ("1", "0")
    assert "vcpu='0' cpuset='1'" in lab.virsh("dumpxml", "--inactive", "db").text
    assert "vcpu='0' cpuset='1'" in lab.virsh("dumpxml", "db").text

    # somebody moves it past vmhost: that is drift, and apply puts it right
    lab.virsh("vcpupin", "db", "0", "0", "--live")
    site = parse_site(f"{HEAD}, guests: {{{both % 1}}}}}")
    assert [(one.guest, one.field) for one in host.drift(site)] == [("db", "cpus.pins")]
    host.apply(host.plan(site))
    assert threads(db)["CPU 0/TCG"] == "1"

    # there is no third place, and a pCPU that is held is not given away
    with pytest.raises(Refused, match=r"needs 1 pCPU of its own.*held by db"):
        host.plan(parse_site(f"{HEAD}, guests: {{{both % 1}, x: {{cpus: {{count: 1, policy: dedicated}}}}}}}}"))

    # a change that fails half way leaves both as they were
    faulty = FaultyPorts(host.ports, FaultPlan(0, error=driver_error, only=lambda _, method: method == "held"))
    with pytest.raises(ApplyError):
        Host(ports=faulty.ports).apply(Host(ports=faulty.ports).plan(parse_site(f"{HEAD}, guests: {{{both % 0}}}}}")))
    assert (threads(db)["CPU 0/TCG"], threads(web)["CPU 1/TCG"]) == ("1", "0")
    assert host.drift(site) == ()

    # when the guest gives its pCPU up, the other one floats again
    apply(host, "web: {cpus: {count: 2}}, db: {cpus: {count: 1}}")
    assert threads(db)["CPU 0/TCG"] == threads(web)["CPU 0/TCG"] == "0-1"
    assert quota(web, "") == quota(db, "vcpu0") == -1


def test_io_threads_run_where_the_rest_of_qemu_does_and_move_with_it(placed_host: Host, lab: InLab) -> None:
    site = (
        "disky: {cpus: {count: 1, policy: dedicated, pins: {0: %d}, iothreads: 2},"
        " disks: [{size: 8M}, {size: 8M}, {size: 8M}]}"
    )
    apply(placed_host, site % 0)
    disky = held(placed_host, "disky")
    assert {name: cpus for name, cpus in threads(disky).items() if name.startswith("IO iothread")} == {
        "IO iothread1": "1",
        "IO iothread2": "1",
    }
    assert (threads(disky)["CPU 0/TCG"], threads(disky)["qemu-system-x86"]) == ("0", "1")
    told = json.loads(lab.virsh("qemu-monitor-command", "disky", '{"execute": "query-iothreads"}').text)
    assert sorted(one["id"] for one in told["return"]) == ["iothread1", "iothread2"]
    drivers = fromstring(lab.virsh("dumpxml", "disky").text).findall("devices/disk/driver")
    assert [driver.get("iothread") for driver in drivers] == ["1", "2", "1", None], "the seed is read once"

    apply(placed_host, site % 1)
    assert held(placed_host, "disky").pid == disky.pid
    assert (threads(disky)["CPU 0/TCG"], threads(disky)["IO iothread2"]) == ("1", "0")

    lab.virsh("iothreadpin", "disky", "2", "1", "--live")
    site_now = parse_site(f"{HEAD}, guests: {{{site % 1}}}}}")
    assert [one.field for one in placed_host.drift(site_now)] == ["cpus.iothreads.pins"]
    placed_host.apply(placed_host.plan(site_now))
    assert threads(disky)["IO iothread2"] == "0"

    proposal = placed_host.plan(
        parse_site(f"{HEAD}, guests: {{{(site % 1).replace('iothreads: 2', 'iothreads: 3')}}}}}")
    )
    assert "next boot" in str(proposal)

    apply(placed_host, (site % 1).replace("iothreads: 2", "iothreads: 1"))
    left = {name: cpus for name, cpus in threads(disky).items() if name.startswith("IO iothread")}
    assert left == {"IO iothread1": "0", "IO iothread2": "0"}, "the second one is there until the next boot, and held"


def test_a_guest_sees_the_pcpus_that_it_has(placed_host: Host, lab: InLab) -> None:
    apply(placed_host, "seer: {cpus: {count: 2, policy: dedicated, topology: host}}")
    cores = {cpu.id: cpu.siblings for cpu in placed_host.observe().topology.cpus}
    told = json.loads(lab.virsh("qemu-monitor-command", "seer", '{"execute": "query-cpus-fast"}').text)
    places = [one["props"] for one in told["return"]]
    pins = [int(threads(held(placed_host, "seer"))[f"CPU {vcpu}/TCG"]) for vcpu in (0, 1)]
    beside = [all(one[part] == other[part] for part in ("socket-id", "core-id")) for one, other in [places]]
    assert beside == [cores[pins[0]] == cores[pins[1]]], "two threads of one core, if that is what it has"


def used(pid: int) -> float:
    """The CPU time that a process has taken, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def shares(pid: int, seconds: float = 2.0) -> Iterator[float]:
    """Yield what part of a pCPU a process takes, window after window."""
    while True:
        start, before = monotonic(), used(pid)
        Event().wait(seconds)
        yield (used(pid) - before) / (monotonic() - start)


def test_a_busy_guest_gets_what_its_limit_says(placed_host: Host, busy_image: str) -> None:
    site = f"loop: {{image: {busy_image}, cpus: %s}}"
    apply(placed_host, site % "0.5")
    found = held(placed_host, "loop")
    windows = list(islice(shares(found.pid), 4))
    assert max(windows) < 0.55, "no window has more, however idle the machine is"
    # a machine that is busy otherwise may give less for a while
    assert any(0.45 < part < 0.55 for part in chain(windows, islice(shares(found.pid), 20)))

    apply(placed_host, site % "{count: 1, limit: 0.2}")
    assert held(placed_host, "loop").pid == found.pid
    next(shares(found.pid))
    # In longer windows, the ticks in which CPU time is told and the period at the edge count for less.
    assert max(islice(shares(found.pid, 4.0), 2)) < 0.22

    apply(placed_host, site % "1")
    assert any(part > 0.6 for part in islice(shares(found.pid), 20)), "without a limit it takes more"


def test_vcpus_are_plugged_and_memory_taken_back_while_it_runs(placed_host: Host, lab: InLab) -> None:
    site = "grow: {cpus: {count: 1, max: 2}, memory: {size: %s, max: 128M}}"
    apply(placed_host, site % "128M")
    pid = held(placed_host, "grow").pid
    done = apply(placed_host, (site % "96M").replace("count: 1", "count: 2"))
    assert {line.split()[1] for line in done.splitlines() if "note:" not in line} == {"live"}
    found = held(placed_host, "grow")
    assert (found.pid, len(found.vcpus)) == (pid, 2)
    told = lab.virsh("dominfo", "grow").text
    assert "CPU(s):         2" in told

    proposal = placed_host.plan_resize("grow", cpus=4)
    assert "next boot" in str(proposal), "beyond the maximum it needs a stop"
    assert "--allow-stop" in str(proposal)


def test_memory_is_plugged_in_up_to_the_maximum_while_it_runs(placed_host: Host, lab: InLab) -> None:
    site = "more: {cpus: 1, memory: {size: %s, max: 512M}}"
    apply(placed_host, site % "128M")
    pid = held(placed_host, "more").pid
    assert plugged(lab, "more") == (128 << 20, 0)
    done = apply(placed_host, site % "384M")
    assert {line.split()[1] for line in done.splitlines() if "note:" not in line} == {"live"}
    assert "plug 256M of memory, 384M in all" in done
    assert (held(placed_host, "more").pid, plugged(lab, "more")) == (pid, (128 << 20, 256 << 20))
    assert "<memory unit='KiB'>393216</memory>" in lab.virsh("dumpxml", "--inactive", "more").text

    # what is plugged in cannot be had back by force: the balloon takes it, and gives it again
    back = apply(placed_host, site % "256M")
    assert "balloon 384M -> 256M" in back
    assert held(placed_host, "more").pid == pid

    proposal = placed_host.plan(parse_site(f"{HEAD}, guests: {{{site % '450M'}}}}}"))
    assert "next boot" in str(proposal), "Linux takes memory in blocks of 128 MiB only"


def plugged(lab: InLab, name: str) -> tuple[int, int]:
    """What QEMU itself says of a guest's memory: bytes at its start, and bytes that were plugged in."""
    told = json.loads(lab.virsh("qemu-monitor-command", name, '{"execute": "query-memory-size-summary"}').text)
    return told["return"]["base-memory"], told["return"]["plugged-memory"]


def test_a_guest_that_a_neighbour_starves_is_named(placed_host: Host, busy_image: str) -> None:
    own = "db: {cpus: {count: 1, policy: dedicated, pins: {0: 0}}}"
    busy = ", ".join(f"{name}: {{image: {busy_image}, cpus: 1}}" for name in ("one", "two"))
    apply(placed_host, f"{own}, {busy}")  # the two share the pCPU that is left
    for _ in range(10):
        named = {one.name: one for one in placed_host.capacity(measure=2.0).starved}
        if {"one", "two"} <= set(named):
            break
    assert {"one", "two"} <= set(named)
    assert (named["one"].by, named["two"].by) == ("two", "one")
    assert 0.2 <= named["one"].share <= 1


def test_a_disk_gives_no_more_than_its_limit_and_more_once_it_may(placed_host: Host, lab: InLab) -> None:
    site = "slow: {cpus: 1, disks: [{size: 8M, limits: {%s}}]}"
    apply(placed_host, site % "rate: 1M")
    pid = held(placed_host, "slow").pid
    assert throttled(lab, "slow") == (1 << 20, 0, 0)
    assert written(lab, "slow", 4) > 2.5, "four MiB at one in a second; the first may go at once"

    done = apply(placed_host, site % "iops: 5000, write_rate: 512M")
    assert {line.split()[1] for line in done.splitlines() if "note:" not in line} == {"live"}
    assert (held(placed_host, "slow").pid, throttled(lab, "slow")) == (pid, (0, 512 << 20, 5000))
    assert any(written(lab, "slow", 4) < 2.0 for _ in range(5)), "a busy machine may be slow for another reason"

    lab.virsh("blkdeviotune", "slow", "vda", "--live", "--total-bytes-sec", "0", "--write-bytes-sec", "9000000")
    changed = parse_site(f"{HEAD}, guests: {{{site % 'iops: 5000, write_rate: 512M'}}}}}")
    assert [one.field for one in placed_host.drift(changed)] == ["disks.root.limits"]
    apply(placed_host, site % "iops: 5000, write_rate: 512M")
    assert throttled(lab, "slow") == (0, 512 << 20, 5000)
    apply(placed_host, "slow: {cpus: 1}")
    assert throttled(lab, "slow") == (0, 0, 0)


def throttled(lab: InLab, name: str) -> tuple[int, int, int]:
    """What QEMU itself says of the first disk: bytes, bytes that are written, operations."""
    told = json.loads(lab.virsh("qemu-monitor-command", name, '{"execute": "query-block"}').text)
    disk = next(one["inserted"] for one in told["return"] if "ua-disk-root" in one["qdev"])
    return disk["bps"], disk["bps_wr"], disk["iops"]


def written(lab: InLab, name: str, mib: int) -> float:
    """How many seconds QEMU takes to write so much to the first disk, in the guest's place."""
    told = json.loads(lab.virsh("qemu-monitor-command", name, '{"execute": "query-block"}').text)
    device = next(one["qdev"] for one in told["return"] if "ua-disk-root" in one["qdev"])
    start = monotonic()
    for _ in range(mib):
        lab.virsh("qemu-monitor-command", name, "--hmp", f'qemu-io -d {device} "write 0 1M"')
    return monotonic() - start
