"""The order of a rolling change: who is first, who is changed side by side, and why it may not begin."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from vmhost.model.services import Rolling
from vmhost.model.spec.service import ServiceState


def batches(
    guests: Sequence[str], how: Rolling, down: Collection[str] = (), staying: Collection[str] = ()
) -> tuple[tuple[str, ...], ...]:
    """Return the guests in the order of their change; what is in one batch is changed side by side.

    Guests that are down go first: nobody misses them. Each other batch leaves room for those that stay down.

    :param down: those that are down now; :param staying: those that are down and are not changed.
    """
    first = [guest for guest in guests if guest in down]
    rest = [guest for guest in guests if guest not in down]
    found: list[tuple[str, ...]] = [(guest,) for guest in first]
    canaries = max(0, how.canary - len(first))
    found += [(guest,) for guest in rest[:canaries]]
    size = max(1, min(how.batch, how.unavailable - len(staying)))
    others = rest[canaries:]
    found += [tuple(others[start : start + size]) for start in range(0, len(others), size)]
    return tuple(found)


def refusal(staying: Collection[str], how: Rolling) -> str:
    """Return why a change may not begin, or empty: so many of those that are not changed are down already."""
    if len(staying) >= how.unavailable:
        verb = "is" if len(staying) == 1 else "are"
        return f"{', '.join(staying)} {verb} down already, and at most {how.unavailable} may be"
    return ""


def retarget(state: ServiceState, version: str, offered: dict[str, Sequence[str]]) -> tuple[ServiceState, str]:
    """Return a state of another version, and why that cannot be, or empty.

    Packages that are pinned, or the only one, are pinned to the newest version offered that begins with ``version``.

    :param offered: the versions of each package that the guest's mirrors hold, the newest first.
    """
    pinned = [package for package in state.packages if "=" in package] or list(state.packages[:1])
    changed = []
    for package in state.packages:
        name = package.partition("=")[0]
        if package not in pinned:
            changed.append(package)
            continue
        fitting = [one for one in offered.get(name, ()) if begins_with(one, version)]
        if not fitting:
            known = ", ".join(offered.get(name, ())) or "none"
            return state, f"no version of {name} begins with {version}; the guest's mirrors hold {known}"
        changed.append(f"{name}={fitting[0]}")
    return state.model_copy(update={"version": version, "packages": tuple(changed)}), ""


def begins_with(package: str, version: str) -> bool:
    """Whether a package's version is one of ``version``: 1.26 is begun by 1.26-1 and 1.26.3-1, not by 1.2 or 1.260."""
    upstream = package.partition(":")[2] or package
    return any(re.match(rf"{re.escape(version)}(?![0-9A-Za-z])", text) is not None for text in (package, upstream))
