"""The forms that name a site file: for the host, or for its network alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vmhost.ops.formhelp import site_files, try_site
from vmhost.tui import changes
from vmhost.tui.screens.form import Field, FormScreen

if TYPE_CHECKING:
    from vmhost.model.plan import Plan

_LEAST, _MOST = 5, 3600


class SiteScreen(FormScreen):
    """A site file, and the plan that brings the host to it."""

    network = False

    def __init__(self) -> None:
        super().__init__()
        self._files: tuple[str, ...] | None = None

    def title_of_place(self) -> str:
        return "apply a site"

    def fields(self) -> Sequence[Field]:
        if self._files is None:
            self._files = site_files(self.vmhost.host.ledger.layout.config)
        words = ", ".join(self._files) or "a YAML file, as examples/two-guests.yaml"
        return (Field("file", "site file", self.vmhost.site_file, words, self._files),)

    def faults(self) -> dict[str, str]:
        # What is in the file is the trial's: a large one, or one on a disk that does not answer, must not stop a key.
        return {} if self.value("file") else {"file": "which site file?"}

    def trial(self) -> Callable[[], Plan]:
        host, file, network = self.vmhost.host, self.value("file"), self.network
        return lambda: try_site(host, file, network=network)

    def change(self) -> changes.Change:
        self.vmhost.site_file = self.value("file")
        return changes.apply_site(self.value("file"))


class NetworkSiteScreen(SiteScreen):
    """A site file, and the plan that brings the host's network to it."""

    network = True

    def title_of_place(self) -> str:
        return "apply a site's network"

    def fields(self) -> Sequence[Field]:
        words = "seconds until a change that may cut this host off is taken back, unless you confirm it"
        return (*super().fields(), Field("confirm", "confirm", "60", words))

    def faults(self) -> dict[str, str]:
        found = super().faults()
        text = self.value("confirm")
        if not (text.isascii() and text.isdecimal() and len(text) < 6 and _LEAST <= int(text) <= _MOST):
            found["confirm"] = f"a whole number of seconds is expected, {_LEAST} to {_MOST}"
        return found

    def change(self) -> changes.Change:
        self.vmhost.site_file = self.value("file")
        return changes.apply_network(self.value("file"), int(self.value("confirm")))
