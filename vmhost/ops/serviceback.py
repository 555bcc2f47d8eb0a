"""What a guest keeps of a service before a roll changes it: the way back, also for another vmhost."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from vmhost.engine.services.carry import do
from vmhost.engine.services.facts import TEXT_LIMIT, Gatherer
from vmhost.engine.services.line import Lines
from vmhost.model.errors import DamagedData, Refused
from vmhost.model.guestops import PutFile
from vmhost.model.services import DeployedService, GuestFacts
from vmhost.model.spec.service import ServiceState
from vmhost.ops.servicedeploy import GuestDeployment
from vmhost.render.service import Desired, canonical, previous_path, read_state

if TYPE_CHECKING:
    from vmhost.ops.services import Found

BACK: Final = "back"
"""The mark of a finished roll that is taken back."""


@dataclass(frozen=True, slots=True)
class Previous:
    """What was in a guest before a roll, and that roll's mark and the SHA-256 of the state that it goes to."""

    wanted: Desired
    roll: str
    target: str

    def is_way_back_of(self, deployed: DeployedService) -> bool:
        """Whether it is what was before the roll under way, or before the last one when none is."""
        if deployed.roll and deployed.roll != BACK:
            return deployed.roll == self.roll
        return deployed.sha256 == self.target


def keep_previous(lines: Lines, found: Found, item: GuestDeployment, mark: str) -> None:
    """Write into a guest what it is now, unless this very roll has done so before; the guest's lock is held.

    :param found: the service as it was before the roll, or before it goes on.
    :param item: what the roll is about to do there.
    :raises Refused: not everything is there, or it is too large: nothing could bring it back.
    """
    name = found.deployed.name
    earlier = read_previous(lines, found.guest, name) if found.deployed.roll else None
    if earlier is not None and earlier.roll == mark:
        return
    state = known_state(found)
    gatherer = Gatherer(lines, found.guest)
    facts = gatherer.for_drift(state)
    check_whole(found.guest, state, facts)
    texts = {file.path: base64.b64encode(gatherer.text(file.path)).decode("ascii") for file in state.files}
    document = {
        "format": 1,
        "roll": mark,
        "target": item.wanted.sha256,
        "state": json.loads(canonical(state)),
        "brings": json.loads(canonical(_brought(item))),
        "versions": dict(facts.packages),
        "texts": texts,
    }
    data = json.dumps(document, sort_keys=True).encode()
    if len(data) > 2 * TEXT_LIMIT:
        raise Refused(f"{name}: its files are too large to be kept for the way back", subject=found.guest)
    do(found.guest, PutFile(previous_path(name), "0600", "root:root", data, secret=True), lines)


def check_whole(guest: str, state: ServiceState, facts: GuestFacts) -> None:
    """Return when every file of a service lies in its guest as it was deployed. :raises Refused: one does not."""
    for file in state.files:
        fact = facts.paths.get(file.path)
        if fact is None or fact.kind != "file" or file.sha256 not in ("", fact.sha256):
            what = "is gone" if fact is None else "was changed"
            text = f"{state.name}: {file.path} {what}: there would be no way back to it; deploy it first"
            raise Refused(text, subject=guest, hint="vmhost service deploy SITE")


def known_state(found: Found) -> ServiceState:
    """Return what was deployed. :raises Refused: a newer vmhost did it."""
    if found.state is None:
        raise Refused("a newer vmhost deployed this service: read-only for this one", subject=found.guest)
    return found.state


def _brought(item: GuestDeployment) -> ServiceState:
    """Return of the state that a roll goes to what the guest does not have yet: what has to go again."""
    state, facts = item.wanted.state, item.facts
    files = tuple(file for file in state.files if file.path not in facts.paths)
    unit = facts.units.get(state.unit.name) if state.unit else None
    there = unit is not None and unit.there
    return state.model_copy(update={"files": files, "unit": None if there else state.unit})


def read_previous(lines: Lines, guest: str, name: str) -> Previous | None:
    """Return what a guest was before the last roll, None without one. :raises DamagedData: it is not whole."""
    text = Gatherer(lines, guest).maybe(previous_path(name))
    if not text:
        return None
    try:
        data: Any = json.loads(text)
        state, brings = (read_state(json.dumps(data[key])) for key in ("state", "brings"))
        texts = {str(path): base64.b64decode(value) for path, value in data["texts"].items()}
        versions: Mapping[str, str] = {str(package): str(version) for package, version in data["versions"].items()}
        mark, target = str(data["roll"]), str(data["target"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedData(f"what it was before cannot be read: {error}", subject=guest) from error
    if state is None or brings is None or {file.path for file in state.files} != texts.keys():
        raise DamagedData("what it was before is not whole", subject=guest)
    return Previous(Desired(state, texts, versions, brings), mark, target)
