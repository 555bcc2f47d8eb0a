"""What is there in a guest, of that which a service is about."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, TypeVar

from vmhost.engine.services.line import Lines
from vmhost.model.errors import DriverError
from vmhost.model.guestops import GuestCommand
from vmhost.model.services import GuestFacts, PathFact
from vmhost.model.spec.service import ServiceState
from vmhost.plan.services import paths_of, units_of
from vmhost.render import guestfacts as ask
from vmhost.render.service import MANIFESTS, Desired, manifest_path

T = TypeVar("T")

TEXT_LIMIT: Final = 1 << 20
"""Bytes of a file that may be kept to show a difference and to put it back."""


class Gatherer:
    """Asks one guest; every question may be asked again when the line breaks."""

    def __init__(self, lines: Lines, guest: str) -> None:
        self._lines = lines
        self._guest = guest

    def manifest(self, service: str) -> str:
        """Return what an earlier deployment left in the guest, or empty."""
        return self.maybe(manifest_path(service))

    def maybe(self, path: str) -> str:
        """Return a file of ours as text, or empty when it is not there."""
        result = self._lines.run(self._guest, ask.ask_text(path), again=True, cap=TEXT_LIMIT * 2)
        return result.stdout.decode("utf-8", "replace") if result.exit_code == 0 else ""

    def for_plan(self, wanted: Desired) -> GuestFacts:
        """Return all that a plan has to know, with the texts of files that will be replaced."""
        before = self.manifest(wanted.state.name)
        found = self._state(wanted.state, tuple(dict.fromkeys(paths_of(wanted, before))), units_of(wanted, before))
        kept = {file.path: file for file in wanted.state.files}
        replaced = [
            path
            for path, fact in found.paths.items()
            if fact.kind == "file" and not (path in kept and _same(wanted, path, fact)) and path != MANIFESTS
        ]
        texts = {path: self.text(path) for path in replaced}
        return replace(found, manifest=before, texts=texts)

    def for_drift(self, state: ServiceState) -> GuestFacts:
        """Return all that a look for drift has to know."""
        before = self.manifest(state.name)
        paths = [*(file.path for file in state.files), *(directory.path for directory in state.directories)]
        units = [state.unit.name] if state.unit else []
        return replace(self._state(state, tuple(dict.fromkeys(paths)), units), manifest=before)

    def _state(self, state: ServiceState, paths: tuple[str, ...], units: list[str]) -> GuestFacts:
        packages = [package.partition("=")[0] for package in state.packages]
        users = [user.name for user in state.users]
        keys = tuple(state.sysctl)
        found = self._ask(ask.ask_paths, paths, ask.read_paths)
        files = [path for path, fact in found.items() if fact.kind == "file"]
        sums = self._ask(ask.ask_sums, files, ask.read_sums)
        links = [path for path, fact in found.items() if fact.kind == "symlink"]
        targets = self._ask(ask.ask_links, links, lambda output: ask.read_links(output, links))
        return GuestFacts(
            packages=self._ask(ask.ask_packages, packages, ask.read_packages),
            paths={
                path: replace(fact, sha256=sums.get(path, ""), target=targets.get(path, ""))
                for path, fact in found.items()
            },
            users=self._ask(ask.ask_users, users, ask.read_users),
            groups=self._ask(ask.ask_groups, state.groups, ask.read_groups),
            sysctl=self._ask(ask.ask_sysctl, keys, lambda output: ask.read_sysctl(output, keys)),
            units=self._ask(ask.ask_units, units, lambda output: ask.read_units(output, units)),
        )

    def _ask(
        self, question: Callable[[list[str]], GuestCommand], names: Iterable[str], read: Callable[[bytes], dict[str, T]]
    ) -> dict[str, T]:
        """Ask for some things of one kind, if there are any; what is absent is told by its absence."""
        wanted = list(names)
        if not wanted:
            return {}
        result = self._lines.run(self._guest, question(wanted), again=True)
        if result.exit_code in (126, 127):
            text = result.stderr.decode("utf-8", "replace").strip()[:200]
            raise DriverError(f"this guest does not tell what is there: {text}", subject=self._guest)
        return read(result.stdout)

    def text(self, path: str) -> bytes:
        """Return a file's content. :raises DriverError: it is larger than 1 MiB, or cannot be read."""
        result = self._lines.run(self._guest, ask.ask_text(path), again=True, cap=TEXT_LIMIT)
        if result.exit_code != 0 or result.truncated:
            why = "is larger than 1 MiB" if result.truncated else result.stderr.decode("utf-8", "replace").strip()
            raise DriverError(f"{path} cannot be kept for putting it back: {why}", subject=self._guest)
        return result.stdout


def _same(wanted: Desired, path: str, fact: PathFact) -> bool:
    from hashlib import sha256

    return fact.sha256 == sha256(wanted.texts[path]).hexdigest()
