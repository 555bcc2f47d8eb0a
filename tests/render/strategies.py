"""Guests of every shape, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.render.cases import HOST, Case
from vmhost.model.spec import GuestSpec, NetworkSpec
from vmhost.model.units import MIB

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True)
identifiers = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", fullmatch=True)
links = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", fullmatch=True)
macs = st.integers(0, (1 << 40) - 1).map(lambda n: "52:" + ":".join(f"{n >> s & 255:02x}" for s in (32, 24, 16, 8, 0)))
sizes = st.integers(64, 1 << 20).map(lambda n: n * MIB)
_hostile = st.sampled_from(
    ["<", "&", "'", '"', "{{", "}}", "{%", "$(", "`", "]]>", "<!--", "&amp;", "\\", "\u00e9", "中", "😀"]
)
# Every text that a label may hold: no control characters (the model), but all of the rest of Unicode.
_plain = st.characters(exclude_categories=("Cc", "Cs"))
lines = st.lists(st.one_of(_hostile, st.text(_plain, max_size=8)), max_size=6).map("".join)


@st.composite
def _cpus(draw: st.DrawFn) -> dict[str, int]:
    count = draw(st.integers(1, 255))
    most = draw(st.none() | st.integers(count, 255))
    return {"count": count} if most is None else {"count": count, "max": most}


@st.composite
def _memory(draw: st.DrawFn) -> dict[str, int]:
    size = draw(sizes)
    more = draw(st.none() | st.integers(0, 1 << 20))
    return {"size": size} if more is None else {"size": size, "max": size + more * MIB}


networks = st.dictionaries(
    names,
    st.one_of(
        st.builds(NetworkSpec, bridge=links, mtu=st.none() | st.integers(576, 65521)),
        st.builds(NetworkSpec, type=st.just("user"), mtu=st.none() | st.integers(576, 65521)),
    ),
    min_size=1,
    max_size=3,
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A guest with some disks and NICs on plain and user networks, texts as hostile as the models let through."""
    known = draw(networks)
    disks = draw(st.lists(identifiers, min_size=1, max_size=5, unique=True))
    nics = draw(st.lists(identifiers, max_size=4, unique=True))
    spec = GuestSpec.model_validate(
        {
            "name": draw(names),
            "image": draw(names),
            "cpus": draw(_cpus()),
            "memory": draw(_memory()),
            "firmware": draw(st.sampled_from(["bios", "uefi"])),
            "disks": [{"id": disk, "size": MIB} for disk in disks],
            "nics": [
                {"id": nic, "network": draw(st.sampled_from(sorted(known))), "mac": draw(macs), "address": "dhcp"}
                for nic in nics
            ],
            "labels": draw(st.dictionaries(identifiers, lines, max_size=3)),
            "protect": draw(st.booleans()),
        }
    )
    # The directories are the administrator's own words; XML has no sign for two characters, which nobody checks there.
    path = lines.filter(lambda text: not {"\ufffe", "\uffff"} & set(text))
    return Case(spec, HOST, known, draw(st.booleans()), f"/d/{draw(path)}", f"/l/{draw(path)}")
