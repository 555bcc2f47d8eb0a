"""The map of cores on the host's screen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.tui.stage import on_stage
from vmhost.model.capacity import Capacity, CellRow, CpuRow, Fit, GuestShare, PagesRow, Starved
from vmhost.ops.host import Host
from vmhost.ops.sites import parse_site
from vmhost.testing import FakeHost
from vmhost.testing.demo import demo_host
from vmhost.testing.topologies import Shape
from vmhost.tui.rows.cells import UNICODE, Tone
from vmhost.tui.rows.cores import core_lines
from vmhost.tui.rows.host import host_lines

pytestmark = [pytest.mark.tui]

GIB = 1 << 30


@pytest.mark.asyncio
async def test_the_hosts_screen_shows_cores_and_what_still_fits() -> None:
    async with on_stage(size=(120, 60)) as stage:
        await stage.press("colon", "h", "o", "s", "t", "enter")
        await stage.until(lambda: "CORES" in stage.lines("#facts"))
        text = stage.lines("#facts")
        assert "34 vCPUs share 0-23" in text
        assert "may run on every pCPU: jenkins, router" in text
        assert "small" in text
        assert "more would fit" in text


@pytest.mark.asyncio
async def test_what_changes_on_the_host_changes_the_map() -> None:
    async with on_stage(size=(120, 60)) as stage:
        await stage.press("colon", "h", "o", "s", "t", "enter")
        await stage.until(lambda: "34 vCPUs share" in stage.lines("#facts"))
        stage.fake.hypervisor.power_off(stage.fake.domain("build-01").uuid)
        stage.fake.hypervisor.undefine(stage.fake.domain("build-01").uuid)
        await stage.until(lambda: "26 vCPUs share" in stage.lines("#facts"))


def cpu(number: int, cell: int, use: str, *guests: str) -> CpuRow:
    return CpuRow(number, cell, cell, cell, f"{number // 2 * 2}-{number // 2 * 2 + 1}", use, guests)


def test_threads_of_a_core_stand_together_and_cells_below_each_other() -> None:
    uses = ["reserve", "reserve", "own", "empty", "shared", "shared", "offline", "isolated"]
    cpus = tuple(cpu(number, number // 4, use) for number, use in enumerate(uses))
    cells = tuple(CellRow(cell, 8 * GIB, 4 * GIB, "0-3", (PagesRow(2 << 20, 512, 100),)) for cell in range(2))
    db = GuestShare("db-01", "isolated", "2", 0, 1.0, GIB, promised=True, active=True)
    capacity = Capacity(
        cpus,
        cells,
        (db,),
        16 * GIB,
        GIB,
        4 * GIB,
        11 * GIB,
        "4-5",
        6,
        (Fit("small", 5, "memory"),),
        ("no room",),
        ("hot",),
    )
    lines = [line.text for line in core_lines(capacity, UNICODE)]
    assert next(line for line in lines if line.startswith("cell 0")).split() == ["cell", "0", "RR", "#-", "0-3"]
    assert next(line for line in lines if line.startswith("cell 1")).split() == ["cell", "1", "..", "xi", "4-7"]
    assert any("# somebody's own" in line and "x offline" in line for line in lines)
    assert "db-01         2 (isolated)" in lines
    assert any("cell 1: 100 of 512 free, 2M each" in line for line in lines)
    assert any("5 more would fit; then memory" in line for line in lines)
    assert any("after a reboot: no room" in line for line in lines)


def test_what_runs_short_and_who_waits_is_told() -> None:
    capacity = Capacity((), (), (), GIB, 0, 0, GIB, "", 0)
    waits = Starved("web-01", 1, 0.42, "db-01")
    told = replace(capacity, short=("network eno1: 95 percent",), starved=(waits,), pressure=(("cpu", 12.5),))
    lines = [line.text for line in core_lines(told, UNICODE)]
    assert any(line.endswith("network eno1: 95 percent") for line in lines)
    assert any(line.endswith("web-01: vCPU 1 waits 42 percent of the time; db-01 runs there") for line in lines)
    assert any(line.startswith("pressure ") and line.endswith("cpu 12.5 percent") for line in lines)


@pytest.mark.asyncio
async def test_the_key_measures_again_though_nothing_happened_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = demo_host(speed=0)
    async with on_stage(fake, size=(120, 60)) as stage:
        await stage.press("colon", "h", "o", "s", "t", "enter")
        await stage.until(lambda: "CORES" in stage.lines("#facts"))
        monkeypatch.setattr(fake.kernel, "pressure", lambda: {"memory": 37.5})
        await stage.press("r")
        await stage.until(lambda: "memory 37.5 percent" in stage.lines("#facts"))


def tones(thresholds: str, promised: int) -> dict[str, Tone]:
    """The tones of the bars of a host of 16 G of which so much is promised, by their first word."""
    fake = FakeHost()
    fake.add_image("debian-12")
    fake.shaped(Shape(cores=4, memory=16 * GIB))
    host = Host(ports=fake.ports)
    site = f"apiVersion: vmhost/v1, name: s, host: {{thresholds: {thresholds}}}"
    guest = f"a: {{image: debian-12, memory: {promised}G, disks: [{{size: 4G}}]}}"
    host.apply(host.plan(parse_site(f"{{{site}, guests: {{{guest}}}}}")))
    capacity = host.capacity(site=parse_site(f"{{{site}}}"))
    lines = host_lines(host.watch().look(), capacity, UNICODE)
    return {line.text.split()[0]: line.tone for line in lines if UNICODE.ramp[0] in line.text}


def test_bars_are_coloured_by_the_hosts_own_thresholds() -> None:
    assert tones("{memory: 90}", 13)["promised"] is Tone.PLAIN
    assert tones("{}", 14)["promised"] is Tone.WARN, "85 of itself"
    assert tones("{memory: 50}", 11)["promised"] is Tone.WARN
    assert tones("{memory: 50}", 13)["promised"] is Tone.BAD


@pytest.mark.parametrize(("threshold", "tone"), [(99, Tone.PLAIN), (1, Tone.WARN)])
def test_so_are_pools(threshold: int, tone: Tone) -> None:
    host = Host(ports=demo_host(speed=0).ports)
    site = f"{{apiVersion: vmhost/v1, name: s, host: {{thresholds: {{storage: {threshold}}}}}}}"
    lines = host_lines(host.watch().look(), host.capacity(site=parse_site(site)), UNICODE)
    assert next(line for line in lines if line.text.startswith("vmhost ")).tone is tone


@pytest.mark.asyncio
async def test_a_threshold_of_the_hosts_own_is_shown(tmp_path: Path) -> None:
    fake = demo_host(speed=0)
    fake.layout = replace(fake.layout, config=tmp_path)
    (tmp_path / "host.yaml").write_text("{apiVersion: vmhost/v1, name: host, host: {thresholds: {memory: 60}}}")
    async with on_stage(fake, size=(120, 60)) as stage:
        await stage.press("colon", "h", "o", "s", "t", "enter")
        await stage.until(lambda: "60 is the threshold" in stage.lines("#facts"))


def test_many_cores_take_several_rows() -> None:
    cpus = tuple(CpuRow(number, 0, 0, 0, str(number), "shared") for number in range(40))
    capacity = Capacity(cpus, (), (), GIB, 0, 0, GIB, "0-39", 0)
    numbers = [line.text.split()[-1] for line in core_lines(capacity, UNICODE)[1:4]]
    assert numbers == ["0-15", "16-31", "32-39"]
