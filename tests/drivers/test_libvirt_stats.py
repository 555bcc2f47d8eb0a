"""Counters as libvirt gives them, and those that it leaves out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from vmhost.drivers.libvirt.stats import read_stats

RUNNING = {"state.state": 1, "cpu.time": 10**9, "balloon.current": 1 << 20, "block.count": 1}
ALL = {"balloon.rss": 1 << 19, "block.0.rd.bytes": 50 << 30, "block.0.wr.bytes": 1 << 30}


def handle(values: dict[str, Any], dear: dict[str, Any] | None = None) -> Any:
    domain = SimpleNamespace(UUIDString=lambda: "u")
    answer = [] if dear is None else [(domain, dear)]
    return SimpleNamespace(getAllDomainStats=lambda *_: [(domain, values)], domainListGetStats=lambda *_: answer)


def test_what_libvirt_leaves_out_of_a_guest_whose_qemu_is_busy_is_not_known() -> None:
    (known,), (busy,) = read_stats(handle(RUNNING | ALL)), read_stats(handle(RUNNING))
    assert (known.whole, known.read, known.resident) == (True, 50 << 30, 1 << 29)
    assert not busy.whole


def test_of_some_who_were_asked_those_are_known_that_answered() -> None:
    assert read_stats(handle(RUNNING, ALL), {"u"})[0].whole
    assert not read_stats(handle(RUNNING, {"balloon.current": 1 << 20}), {"u"})[0].whole
    assert not read_stats(handle(RUNNING), {"u"})[0].whole
    assert not read_stats(handle(RUNNING, ALL), set())[0].whole
    assert read_stats(handle({"state.state": 5}), set())[0].whole, "it does not run: it uses nothing"
