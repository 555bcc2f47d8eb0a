"""The guards of ports as text, and back; what the kernel makes of them is in tests/network/test_guards.py."""

from __future__ import annotations

import json

import pytest

from vmhost.model.guard import REASONS, PortGuard, guard_of
from vmhost.model.identity import NicIdentity
from vmhost.render import nft
from vmhost.render.parse.nft import parse_guards

ONE = PortGuard("vh00000001-0", "52:54:00:00:00:01", ("10.1.1.1",))
NIC = NicIdentity("prod", "prod", "52:54:00:00:00:01", "vh00000001-0", "10.1.1.1/24", pvid=100, spoofing="refused")


def commands(text: str) -> list[tuple[str, str, dict[str, object]]]:
    return [
        (verb, kind, values)
        for command in json.loads(text)["nftables"]
        for verb, what in command.items()
        for kind, values in what.items()
    ]


def test_only_our_own_table_is_ever_named() -> None:
    have = parse_guards(_listing(ONE, PortGuard("vh00000002-0", ONE.mac)))
    for text in (nft.guard([ONE]), nft.unguard([ONE.port], have), nft.unguard([one.port for one in have], have)):
        for _, kind, values in commands(text):
            assert values["family"] == "bridge"
            assert values["name" if kind == "table" else "table"] == "vmhost"


def test_what_is_flushed_is_ours_and_written_again_at_once() -> None:
    sent = commands(nft.guard([ONE]))
    assert [values["name"] for verb, _, values in sent if verb == "flush"] == ["guests", ONE.port]
    assert {values["chain"] for verb, kind, values in sent if (verb, kind) == ("add", "rule")} == {"guests", ONE.port}
    assert sent[-1][1] == "element", "a port is led to its rules when they are all there"


def test_every_rule_that_drops_counts() -> None:
    for reason, _ in nft.rules(PortGuard("p", ONE.mac, ("10.1.1.1", "fd00::1"), tagged=True, pvid=5)):
        assert reason in {"", *REASONS}
    rules = [values for _, kind, values in commands(nft.guard([ONE])) if kind == "rule" and values["chain"] == ONE.port]
    assert all({"drop": None} in rule["expr"] and any("counter" in part for part in rule["expr"]) for rule in rules)  # type: ignore[attr-defined, operator]
    assert tuple(rule["comment"] for rule in rules) == nft.marks(ONE)


def test_a_mark_differs_where_rules_differ() -> None:
    others = [
        PortGuard("vh00000001-1", ONE.mac, ONE.addresses),
        PortGuard(ONE.port, "52:54:00:00:00:02", ONE.addresses),
        PortGuard(ONE.port, ONE.mac),
        PortGuard(ONE.port, ONE.mac, ("10.1.1.1", "fd00::1")),
        PortGuard(ONE.port, ONE.mac, ONE.addresses, tagged=True),
        PortGuard(ONE.port, ONE.mac, ONE.addresses, tagged=True, pvid=100),
    ]
    assert len({one.mark for one in (ONE, *others)}) == len(others) + 1


def test_what_guards_a_nic() -> None:
    assert guard_of(NIC) == ONE
    assert guard_of(NicIdentity("a", "a", ONE.mac, "vh00000001-0", "10.1.1.1/24")) is None
    assert guard_of(NicIdentity("a", "a", ONE.mac, "", spoofing="refused")) is None
    hybrid = NicIdentity("a", "a", ONE.mac, "t", "", pvid=100, tagged="200", spoofing="refused")
    assert guard_of(hybrid) == PortGuard("t", ONE.mac, (), tagged=True, pvid=100)


@pytest.mark.parametrize(
    ("mac", "address"),
    [("52:54:00:12:34:56", "fe80::5054:ff:fe12:3456"), ("00:00:5e:00:53:01", "fe80::200:5eff:fe00:5301")],
)
def test_link_local_addresses(mac: str, address: str) -> None:
    assert nft.link_local(mac) == address


def test_what_is_there_is_read_back() -> None:
    two = PortGuard("vh00000002-0", "52:54:00:00:00:02")
    found = parse_guards(_listing(ONE, two))
    assert [(one.port, one.marks, one.reached) for one in found] == [
        (one.port, nft.marks(one), True) for one in (ONE, two)
    ]
    assert [reason for reason, _ in found[0].dropped] == list(REASONS)
    assert parse_guards("") == ()


def test_a_port_that_no_map_leads_to_is_not_reached() -> None:
    listing = json.loads(_listing(ONE))
    for entry in listing["nftables"]:
        if "map" in entry:
            entry["map"]["elem"] = []
    assert [one.reached for one in parse_guards(json.dumps(listing))] == [False]
    listing["nftables"] = [entry for entry in json.loads(_listing(ONE))["nftables"] if "hook" not in str(entry)]
    assert [one.reached for one in parse_guards(json.dumps(listing))] == [False]


def test_nothing_is_taken_away_where_nothing_is() -> None:
    assert nft.unguard(["vh00000009-0"], parse_guards(_listing(ONE))) == ""
    assert nft.unguard([], ()) == ""


def _listing(*guards: PortGuard) -> str:
    """What nft tells of them, made from what it was sent."""
    from vmhost.testing.packet import change
    from vmhost.testing.world import World

    world = World()
    change(world, lambda _: nft.guard(guards))
    return world.nft
