"""The form of a new guest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vmhost.ops.forms import NO_NETWORK, USER_NETWORK, NewGuest, bridges_of, bytes_of, faults_of_wish
from vmhost.tui import changes
from vmhost.tui.rows.cells import Line
from vmhost.tui.rows.fits import fits
from vmhost.tui.screens.form import Field, FormScreen

if TYPE_CHECKING:
    from vmhost.model.observed import Observed


class NewGuestScreen(FormScreen):
    """A new guest, as a site of its own."""

    def __init__(self, observed: Observed) -> None:
        super().__init__()
        self._observed = observed
        self._bridges = bridges_of(observed.links)
        self._images = tuple(image.name for image in observed.images)

    def title_of_place(self) -> str:
        return "new guest"

    def fields(self) -> Sequence[Field]:
        ours = [link.name for link in self._observed.links if link.alias.startswith("vmhost:")]
        network = ours[0] if ours else USER_NETWORK
        networks = (*self._bridges, USER_NETWORK, NO_NETWORK)
        images = ", ".join(self._images) or "there is none: vmhost image build debian-12"
        return (
            Field("name", "name", "", "letters, digits, '.', '_', '-'"),
            Field("image", "image", self._images[0] if self._images else "", images, self._images),
            Field("cpus", "vCPUs", "2", "at boot"),
            Field("memory", "memory", "2G", "as 512M, 2G"),
            Field("disk", "disk", "20G", "root disk; it grows as it is written"),
            Field("network", "network", network, ", ".join(networks), networks),
            Field("address", "address", "", "empty: the next free one; or 10.0.0.9, dhcp, none"),
        )

    def _wish(self) -> NewGuest:
        names = ("name", "image", "cpus", "memory", "disk", "network", "address")
        return NewGuest(*(self.value(name) for name in names))

    def faults(self) -> dict[str, str]:
        wish = self._wish()
        found = faults_of_wish(wish, self._bridges)
        if self._observed.domain(wish.name):
            found.setdefault("name", "there is a guest of this name")
        if wish.image not in self._images:
            found["image"] = "this host has no such image"
        if wish.network not in (*self._bridges, USER_NETWORK, NO_NETWORK):
            found["network"] = "this host has no such bridge"
        order = [field.id for field in self.fields()]
        return {name: found[name] for name in order if name in found}

    def verdict(self) -> Line:
        return fits(self._observed, bytes_of(self.value("memory")), self.value("cpus"))

    def change(self) -> changes.Change:
        return changes.create(self._wish())
