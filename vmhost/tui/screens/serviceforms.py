"""The forms that deploy the services of a site file, and that roll one over its guests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from vmhost.model.errors import VmhostError
from vmhost.model.services import MOST_AT_ONCE, Rolling
from vmhost.ops.formhelp import site_files
from vmhost.tui import servicechanges
from vmhost.tui.rows.cells import Line, Tone
from vmhost.tui.screens.form import Field, FormScreen, outcome_lines

if TYPE_CHECKING:
    from vmhost.model.serviceplan import ServicePlan
    from vmhost.tui.changes import Change

_COUNTS: Final = (
    ("canary", "canary", 0, "guests that go first, one by one"),
    ("batch", "batch", 1, "guests that are changed side by side"),
    ("away", "away", 1, "guests that may be away at once"),
)


class DeployScreen(FormScreen):
    """A site file, and the plan that brings its services to its guests."""

    def __init__(self) -> None:
        super().__init__()
        self._files: tuple[str, ...] | None = None

    def title_of_place(self) -> str:
        return "deploy services"

    def fields(self) -> Sequence[Field]:
        return (
            self._file_field(),
            Field("only", "services", "", "only these, with spaces between; empty: all of the file"),
            Field("guests", "guests", "", "only in these, with spaces between; empty: wherever the file says"),
        )

    def _file_field(self) -> Field:
        if self._files is None:
            self._files = site_files(self.vmhost.host.ledger.layout.config)
        words = ", ".join(self._files) or "a YAML file, as examples/services.yaml"
        return Field("file", "site file", self.vmhost.site_file, words, self._files)

    def faults(self) -> dict[str, str]:
        # What is in the file, and in the guests, is the trial's: neither may stop a key.
        return {} if self.value("file") else {"file": "which site file?"}

    def room(self) -> Callable[[], Sequence[Line]] | None:
        from vmhost.ops.serviceproposals import propose_deploy

        if self.faults():
            return None
        host, file, only, guests = self.vmhost.host, self.value("file"), self._words("only"), self._words("guests")
        return lambda: _tried(file, only, lambda: propose_deploy(host, file, only, guests).plan)

    def change(self) -> Change:
        self.vmhost.site_file = self.value("file")
        return servicechanges.deploy(self.value("file"), self._words("only"), self._words("guests"))

    def _words(self, field: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.value(field).replace(",", " ").split()))


class RollScreen(DeployScreen):
    """A service, where it is to go, and how many guests at once.

    :param service: the one that is meant most likely; :param known: all that were deployed.
    """

    def __init__(self, service: str, known: Sequence[str]) -> None:
        super().__init__()
        self._service = service
        self._known = tuple(known)

    def title_of_place(self) -> str:
        return "roll a service"

    def fields(self) -> Sequence[Field]:
        counts = (Field(name, label, "1", words) for name, label, _, words in _COUNTS)
        return (
            Field("service", "service", self._service, ", ".join(self._known) or "none was deployed", self._known),
            Field("to", "version", "", "one of its packages, as 1.26, with the files of now"),
            self._file_field(),
            *counts,
        )

    def _file_field(self) -> Field:
        field = super()._file_field()
        return Field(field.id, field.label, "", f"or what a site file says: {field.words}", field.choices)

    def faults(self) -> dict[str, str]:
        found = {}
        if self.value("service") not in self._known:
            name = self.value("service")[:40]
            found["service"] = f"there is no service {name!r}" if name else "which service?"
        if bool(self.value("to")) == bool(self.value("file")):
            text = "a version or a site file, not both" if self.value("to") else "to which version, or which site file?"
            found["to"] = text
        for name, _, least, _ in _COUNTS:
            text = self.value(name)
            if not (text.isascii() and text.isdecimal() and len(text) < 6 and least <= int(text) <= MOST_AT_ONCE):
                found[name] = f"a whole number of guests is expected, {least} to {MOST_AT_ONCE}"
        return found

    def room(self) -> Callable[[], Sequence[Line]] | None:
        from vmhost.ops.serviceproposals import propose_roll

        if self.faults():
            return None
        host, name, how = self.vmhost.host, self.value("service"), self._how()
        file, to = self.value("file"), self.value("to")
        return lambda: _tried(
            file, (name,), lambda: propose_roll(host, name, how, file=file, to=to, refresh=False).plan
        )

    def change(self) -> Change:
        self.vmhost.site_file = self.value("file") or self.vmhost.site_file
        return servicechanges.roll(self.value("service"), self._how(), file=self.value("file"), to=self.value("to"))

    def _how(self) -> Rolling:
        canary, batch, away = (int(self.value(name)) for name, *_ in _COUNTS)
        return Rolling(canary, batch, away)


def _tried(file: str, only: Sequence[str], plan: Callable[[], ServicePlan]) -> Sequence[Line]:
    """Return whether it can be done. Secrets are not read for that: a program that tells them may ask for a word."""
    from vmhost.ops.serviceproposals import needs_secrets

    try:
        secret = bool(file) and needs_secrets(file, only)
    except VmhostError:
        secret = False  # the plan fails likewise, and its words are told
    return [Line("its secrets are read for the plan only", Tone.DIM)] if secret else outcome_lines(plan)
