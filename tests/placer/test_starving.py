"""Who waits for pCPUs, from two looks at made-up counters."""

from __future__ import annotations

from pathlib import Path

from vmhost.drivers.kernel import LinuxKernel
from vmhost.model.stats import LinkLoad
from vmhost.model.tuning import Held
from vmhost.plan.starving import starved

SECOND = 1_000_000_000
NAMES = {"u1": "web", "u2": "db", "u3": "idle"}


def look(pid: int, cpu: int, *, ran: float, waited: float) -> Held:
    return Held(pid, vcpus=((0, frozenset({cpu})),), waits=((0, int(ran * SECOND), int(waited * SECOND)),))


def test_the_one_that_waits_is_named_with_the_one_that_runs() -> None:
    before = {uuid: look(n, cpu, ran=5, waited=1) for n, (uuid, cpu) in enumerate((("u1", 1), ("u2", 1), ("u3", 2)))}
    after = {"u1": look(0, 1, ran=5.5, waited=2.5), "u2": look(1, 1, ran=6.5, waited=1.1), "u3": before["u3"]}
    (found,) = starved(before, after, NAMES, 2.0)
    assert (found.name, found.vcpu, found.share, found.by) == ("web", 0, 0.75, "db")


def test_where_no_guest_runs_it_is_the_host() -> None:
    before = {"u1": look(0, 1, ran=5, waited=1)}
    (found,) = starved(before, {"u1": look(0, 1, ran=5, waited=2)}, NAMES, 1.0)
    assert found.by == "the host itself"


def test_a_guest_that_was_started_anew_or_waits_little_is_not_named() -> None:
    before = {"u1": look(0, 1, ran=5, waited=1), "u2": look(1, 1, ran=5, waited=1)}
    after = {"u1": look(9, 1, ran=1, waited=3), "u2": look(1, 1, ran=6, waited=1.1), "u3": look(3, 1, ran=1, waited=9)}
    assert starved(before, after, NAMES, 1.0) == ()


def test_what_network_cards_carry_is_read_and_bridges_are_none(tmp_path: Path) -> None:
    links = ("eno1", "1000", "device"), ("bond0", "2000", "bonding"), ("br0", "1000", ""), ("eno2", "-1", "device")
    for name, speed, card in links:
        link = tmp_path / name
        (link / "statistics").mkdir(parents=True)
        (link / "speed").write_text(f"{speed}\n")
        for number, way in enumerate(("rx", "tx"), 1):
            (link / "statistics" / f"{way}_bytes").write_text(f"{number}\n")
        if card:
            (link / card).mkdir()
    found = LinuxKernel(network=tmp_path).traffic()
    assert found == {"eno1": LinkLoad(1, 2, 10**9), "bond0": LinkLoad(1, 2, 2 * 10**9)}
    assert LinuxKernel(network=tmp_path / "nowhere").traffic() == {}
