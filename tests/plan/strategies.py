"""Random sites: one to four guests with any options, on networks of any kind."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from vmhost.model.spec import Site
from vmhost.ops.sites import parse_site

CANARY_VARIABLE = "VMHOST_TEST_CANARY"
NAMES = ("web-01", "db-01", "mail-01", "cache-01", "job-01")
MIB_SIZES = (256, 512, 768, 1024)
NETWORKS = {
    "lan": {"bridge": "br0", "subnet": "10.20.0.0/24", "gateway": "10.20.0.1"},
    "back": {"bridge": "br1", "subnet": "10.30.0.0/28", "pool": "10.30.0.2-10.30.0.14"},
    "office": {"bridge": "br1"},
    "nat": {"type": "user"},
}
SECRET_FILE = {"path": "/etc/token", "secret": {"env": CANARY_VARIABLE}, "mode": "0600"}


@st.composite
def _disks(draw: st.DrawFn) -> list[dict[str, Any]]:
    ids = draw(st.lists(st.sampled_from(("data", "logs", "scratch")), unique=True, max_size=2))
    return [{"size": draw(st.sampled_from(("4G", "6G")))}, *({"id": name, "size": "1G"} for name in ids)]


@st.composite
def _held(draw: st.DrawFn, count: int) -> dict[str, Any]:
    """What holds a guest; of four guests each may have one pCPU of the fake host's eight for itself."""
    kind = draw(st.sampled_from(("none", "none", "none", "limit", "own", "mixed")))
    if kind == "limit":
        return {"limit": draw(st.sampled_from((0.5, 1))), "shares": draw(st.sampled_from((512, 2048)))}
    if kind == "own" and count == 1:
        return {"policy": draw(st.sampled_from(("dedicated", "isolated"))), "vcpu_limit": 0.5}
    return {"policy": "mixed", "dedicated": "0"} if kind == "mixed" and count > 1 else {}


@st.composite
def _guest(draw: st.DrawFn) -> dict[str, Any]:
    networks = draw(st.lists(st.sampled_from(sorted(NETWORKS)), unique=True, max_size=3))
    count = draw(st.integers(1, 4))
    size = draw(st.sampled_from(MIB_SIZES))
    guest: dict[str, Any] = {
        "cpus": {"count": count, "max": draw(st.integers(count, 4)), **draw(_held(count))},
        "memory": {
            "size": f"{size}M",
            "max": f"{draw(st.sampled_from([each for each in MIB_SIZES if each >= size]))}M",
        },
        "disks": draw(_disks()),
        "nics": [{"network": name} for name in networks],
        "state": draw(st.sampled_from(("running", "running", "stopped"))),
        "firmware": draw(st.sampled_from(("bios", "uefi"))),
        "autostart": draw(st.booleans()),
        "labels": draw(st.dictionaries(st.sampled_from(("tier", "owner")), st.sampled_from(("front", "<&\"'>")))),
    }
    if draw(st.booleans()):
        guest["cloud_init"] = {"files": [SECRET_FILE], "packages": ["nginx"]}
    if draw(st.booleans()):
        guest["ready"] = {"by": draw(st.sampled_from(("agent", "none")))}
    return guest


@st.composite
def sites(draw: st.DrawFn) -> Site:
    """Return a site of the name ``shop``."""
    guests = draw(st.dictionaries(st.sampled_from(NAMES), _guest(), min_size=1, max_size=4))
    return site_of(guests)


def site_of(guests: dict[str, Any]) -> Site:
    """Return the site of these guests."""
    import json

    return parse_site(
        json.dumps(
            {
                "apiVersion": "vmhost/v1",
                "name": "shop",
                "bridges": {"br0": {"address": "10.20.0.1/24"}, "br1": {}},
                "networks": NETWORKS,
                "defaults": {"image": "debian-12"},
                "guests": guests,
            }
        )
    )
