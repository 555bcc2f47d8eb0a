"""Which VLAN id a network gets: it keeps what it has, and takes nothing that anybody else has, had or uses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vmhost.model.errors import AlreadyThere, NoCapacity
from vmhost.model.observed import ObservedDomain, ObservedLink
from vmhost.model.reservations import Reservation, in_force, keep, released
from vmhost.model.spec import NetworkSpec, Site
from vmhost.model.steps import Release, Reserve, Unreserve
from vmhost.model.vlans import port_vlans
from vmhost.plan.reserve import Settled, lowest_free, settle_vlans, usage
from vmhost.testing import builders

NOW = "2026-03-01T12:00:00Z"
LATER = "2026-03-02T12:00:00Z"


def site(name: str = "shop", **networks: object) -> Site:
    auto = {"lab": {"vlan": "auto", "range": "1000-1002"}, **networks}
    made = {
        key: NetworkSpec.model_validate({"bridge": "br0", "reach": "agent", **value}) for key, value in auto.items()
    }  # type: ignore[dict-item]
    return Site(name=name, networks=made)


def held(vid: int, owner: str = "lab", of: str = "shop", pool: str = "1000-1002") -> Reservation:
    return Reservation("vlan", str(vid), owner, of, pool=pool, since=NOW)


def guest(name: str, vid: int, *, network: str = "lab", of: str = "shop", tagged: str = "") -> ObservedDomain:
    domain = builders.observed_domain(builders.guest(name))
    about = domain.metadata
    assert about is not None
    nics = tuple(
        replace(nic, network=network, pvid=vid, tagged=tagged, bridge="br0", reach="agent")
        for nic in about.identity.nics
    )
    return replace(domain, metadata=replace(about, site=of, identity=replace(about.identity, nics=nics)))


def port(name: str, vid: int, kind: str = "tun") -> ObservedLink:
    return ObservedLink(name, 9, kind, "", 1500, True, True, master="br9", vlans=port_vlans(vid))


def settle(
    wanted: Site,
    *reservations: Reservation,
    domains: tuple[ObservedDomain, ...] = (),
    links: tuple[ObservedLink, ...] = (),
    now: str = NOW,
) -> Settled:
    return settle_vlans(wanted, usage(reservations, domains, links, now), now)


def vid(settled: Settled, network: str = "lab") -> object:
    return settled.site.networks[network].vlan


def test_a_new_network_takes_the_lowest_and_it_is_written_down() -> None:
    settled = settle(site())
    assert vid(settled) == 1000
    assert [(item.do, item.undo) for item in settled.steps] == [(Reserve((held(1000),)), Unreserve((held(1000),)))]


@pytest.mark.parametrize(
    ("reservations", "domains", "links", "more"),
    [
        ((held(1000, "other", "elsewhere"),), (), (), {}),
        ((held(1000, "a switch", ""),), (), (), {}),
        ((released(held(1000, "old"), NOW),), (), (), {}),
        ((), (guest("web", 1000, network="prod"),), (), {}),
        ((), (guest("web", 0, network="prod", tagged="990-1000"),), (), {}),
        ((), (), (port("vnet7", 1000),), {}),
        ((), (), (), {"prod": {"vlan": 1000}}),
        ((), (), (), {"lab": {"vlan": "auto", "range": "1000-1002", "reserved": "1000"}}),
    ],
    ids=["another site's", "by hand", "resting", "a guest's", "a trunk's", "a foreign port's", "fixed", "kept free"],
)
def test_what_anybody_has_is_not_taken(
    reservations: tuple[Reservation, ...],
    domains: tuple[ObservedDomain, ...],
    links: tuple[ObservedLink, ...],
    more: dict[str, object],
) -> None:
    assert vid(settle(site(**more), *reservations, domains=domains, links=links)) == 1001


def test_the_way_to_the_wire_says_nothing_about_who_uses_an_id() -> None:
    assert vid(settle(site(), links=(port("eno1", 1000, kind=""),))) == 1000


def test_what_has_rested_is_free_again() -> None:
    resting = released(held(1000, "old"), NOW)
    assert vid(settle(site(), resting, now="2026-03-02T11:59:59Z")) == 1001
    assert vid(settle(site(), resting, now=LATER)) == 1000
    assert in_force([resting], LATER) == ()


def test_who_had_an_id_has_it_again_before_it_has_rested() -> None:
    resting = released(held(1001), NOW)
    settled = settle(site(), resting)
    assert vid(settled) == 1001
    assert [(item.do, item.undo) for item in settled.steps] == [(Reserve((held(1001),)), Reserve((resting,)))]
    assert vid(settle(site(), resting, links=(port("vnet7", 1001),))) == 1000


def test_a_network_keeps_its_id_and_nothing_is_done() -> None:
    settled = settle(site(), held(1001))
    assert (vid(settled), settled.steps) == (1001, ())


def test_metadata_wins_and_what_was_lost_is_written_down_again() -> None:
    settled = settle(site(), domains=(guest("web", 1002),))
    assert vid(settled) == 1002
    assert [item.do for item in settled.steps] == [Reserve((held(1002),))]
    settled = settle(site(), held(1000), domains=(guest("web", 1002),))
    assert vid(settled) == 1002
    gone, new = (item.do for item in settled.steps)
    assert (gone, new) == (Release((released(held(1000), NOW),)), Reserve((held(1002),)))


def test_two_networks_of_one_range_get_two_ids() -> None:
    settled = settle(site(also={"vlan": "auto", "range": "1000-1002"}))
    assert (vid(settled), vid(settled, "also")) == (1000, 1001)


def test_another_range_means_another_id_and_the_old_one_rests() -> None:
    settled = settle(site(lab={"vlan": "auto", "range": "2000-2001"}), held(1000))
    assert vid(settled) == 2000
    assert Release((released(held(1000), NOW),)) in [item.do for item in settled.steps]


def test_a_network_that_is_gone_gives_its_id_up_once_no_guest_is_in_it() -> None:
    wanted, item = site(), held(1001, "old")
    assert settle(wanted, held(1000), item, domains=(guest("web", 1001, network="old"),)).steps == ()
    assert [step.do for step in settle(wanted, held(1000), item).steps] == [Release((released(item, NOW),))]
    assert settle(wanted, held(1000), held(1001, "old", "other"), held(1002, "a switch", "")).steps == ()


def test_a_full_range_says_why() -> None:
    settled = settle(site(), held(1000, "x", "y"), released(held(1001, "z"), NOW), domains=(guest("a", 1002, of="b"),))
    (refusal,) = settled.refusals
    assert (refusal.kind, refusal.text) == (
        NoCapacity,
        "no VLAN of 1000-1002 is free: of 3, 0 are kept free, 1 rests after a release",
    )
    assert vid(settled) == "auto"


def test_an_id_by_hand_that_vmhost_gave_to_another_site_is_refused() -> None:
    (refusal,) = settle(site(prod={"vlan": 1001}), held(1001, "lab", "other")).refusals
    assert refusal.text == "VLAN 1001 is reserved for network lab of site other"
    assert settle(site(prod={"vlan": 1001}), held(1001, "for-prod", "")).refusals == ()


def test_ids_are_found_between_others() -> None:
    used = usage([held(1), held(3, "b")], (), (), NOW)
    assert lowest_free("1-4", frozenset({2}), used) == 4
    assert lowest_free("1-3", frozenset({2}), used) is None


def test_what_another_holds_is_never_overwritten() -> None:
    mine, theirs = held(1000), held(1000, "theirs", "other")
    assert keep([mine], [mine], NOW) == (mine,)
    with pytest.raises(AlreadyThere, match="reserved for lab"):
        keep([mine], [held(1001), theirs], NOW)
    assert keep([released(mine, NOW)], [theirs], NOW) == (theirs,)
    assert keep([released(mine, NOW)], [held(1001)], LATER) == (held(1001),)
