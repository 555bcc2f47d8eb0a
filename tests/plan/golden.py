"""A case: a folder with a site, what the host was before, and what the plan has to say."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.plan.happenings import happen
from vmhost.cli import diagnostics
from vmhost.engine.record import plan_to_json
from vmhost.model.errors import VmhostError
from vmhost.model.permit import Permit
from vmhost.model.plan import Plan
from vmhost.model.spec import Site
from vmhost.ops.host import Host
from vmhost.ops.proposals import Proposal
from vmhost.ops.sites import load_site
from vmhost.testing import FakeHost

CASES = Path(__file__).parent / "cases"
LONGEST = 60


@dataclass(frozen=True)
class Case:
    """One folder of ``cases``."""

    directory: Path

    @property
    def site(self) -> Site:
        """The site that is planned."""
        return load_site(self.directory / "site.yaml")

    @property
    def permit(self) -> Permit:
        """What the person permits."""
        given: dict[str, Any] = json.loads(self._text("permit.json") or "{}")
        return Permit(**{key: frozenset(value) if isinstance(value, list) else value for key, value in given.items()})

    def stage(self) -> FakeHost:
        """Return the host as it is before: before.yaml applied, then everything of world.txt happened."""
        fake = FakeHost(seed=3)
        fake.add_image("debian-12")
        if (self.directory / "before.yaml").exists():
            host = Host(ports=fake.ports)
            host.apply(host.plan(load_site(self.directory / "before.yaml")))
        happen(fake, self._text("world.txt"))
        return fake

    def propose(self, fake: FakeHost) -> Proposal:
        """Return what vmhost would do. :raises VmhostError: it refuses."""
        return Host(ports=fake.ports).plan(self.site, self.permit)

    def _text(self, name: str) -> str:
        path = self.directory / name
        return path.read_text(encoding="utf-8") if path.exists() else ""


def shown(case: Case) -> dict[str, str]:
    """Return what the case's golden files should hold, by name."""
    fake = case.stage()
    try:
        plan = case.propose(fake).plan
    except VmhostError as error:
        return {"plan.txt": _refusal(error), "undo.txt": "", "drift.txt": _drift(case, fake)}
    return {"plan.txt": f"{plan}\n", "undo.txt": _undo(plan, fake), "drift.txt": _drift(case, fake)}


def _refusal(error: VmhostError) -> str:
    lines = [f"exit {diagnostics.exit_code(error)}", *str(error).splitlines()]
    return "\n".join([*lines, f"  try: {error.hint}" if error.hint else "  (no command helps)"]) + "\n"


def _drift(case: Case, fake: FakeHost) -> str:
    return "".join(f"{difference}\n" for difference in Host(ports=fake.ports).drift(case.site))


def _undo(plan: Plan, fake: FakeHost) -> str:
    """Return each step's undo on one line; texts that are too long for one are told by what they are."""
    present = {text for domain in fake.hypervisor.domains() for text in (domain.xml, _metadata(domain.xml))}
    lines = []
    for number, item in enumerate(plan_to_json(plan)["steps"], 1):
        undo = item["undo"]
        values = {key: _short(value, present) for key, value in undo.items()} if undo else None
        lines.append(f"{number:3} {item['do']['kind']:20} {json.dumps(values)}\n")
    return "".join(lines)


def _short(value: Any, present: set[str]) -> Any:
    if not isinstance(value, str) or len(value) <= LONGEST:
        return value
    return "(as it is now)" if value in present or _metadata(value) in present else "(something else)"


def _metadata(xml: str) -> str:
    """Return our metadata element without what its place in a document decides: indentation and namespaces."""
    found = re.search(r"<vmhost:guest.*</vmhost:guest>", xml, re.DOTALL)
    text = found.group() if found else ""
    return re.sub(r">\s+<", "><", re.sub(r' xmlns:vmhost="[^"]*"', "", text))
