"""The form of a new guest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from textual.widgets import Input

from vmhost.ops.flavours import sizes
from vmhost.ops.formhelp import room_for
from vmhost.ops.forms import NO_NETWORK, USER_NETWORK, NewGuest, bridges_of, faults_of_size, faults_of_wish
from vmhost.tui import changes, errands
from vmhost.tui.rows.cells import Line
from vmhost.tui.rows.cores import room_lines
from vmhost.tui.screens.form import Field, FormScreen

if TYPE_CHECKING:
    from vmhost.model.observed import Observed
    from vmhost.model.plan import Plan
    from vmhost.ops.flavours import Size


_SIZES: Final = ("cpus", "memory", "disk")
"""What a profile fills in."""


class NewGuestScreen(FormScreen):
    """A new guest, as a site of its own."""

    def __init__(self, observed: Observed) -> None:
        super().__init__()
        self._observed = observed
        self._bridges = bridges_of(observed.links)
        self._sizes: Mapping[str, Size] | None = None
        self._images = tuple(image.name for image in observed.images)

    def title_of_place(self) -> str:
        return "new guest"

    def on_mount(self) -> None:
        super().on_mount()
        ports = self.vmhost.host.ports
        errands.send(self, lambda: sizes(ports), self._know_sizes, self.vmhost.tell_error, "profiles")

    def _know_sizes(self, found: Mapping[str, Size]) -> None:
        self._sizes = found
        self._fill(self.value("profile"))
        self.tell_anew("profile")

    def fields(self) -> Sequence[Field]:
        ours = [link.name for link in self._observed.links if link.alias.startswith("vmhost:")]
        network = ours[0] if ours else USER_NETWORK
        networks = (*self._bridges, USER_NETWORK, NO_NETWORK)
        profiles = tuple(self._sizes or ())
        known = f"fills in what follows: {', '.join(profiles)}" if profiles else "reading the profiles"
        images = ", ".join(self._images) or "there is none: vmhost image build debian-12"
        return (
            Field("name", "name", "", "letters, digits, '.', '_', '-'"),
            Field("image", "image", self._images[0] if self._images else "", images, self._images),
            Field("profile", "profile", "", known, profiles),
            Field("cpus", "vCPUs", "2", "at boot"),
            Field("memory", "memory", "2G", "as 512M, 2G"),
            Field("disk", "disk", "20G", "root disk; it grows as it is written"),
            Field("network", "network", network, ", ".join(networks), networks),
            Field("address", "address", "", "empty: the next free one; or 10.0.0.9, dhcp, none"),
        )

    def on_input_changed(self, event: Input.Changed) -> None:  # type: ignore[override]
        if event.input.id == "profile":
            self._fill(event.value.strip())
        super().on_input_changed()

    def _fill(self, profile: str) -> None:
        """Fill in what a profile says; what the person writes afterwards stays."""
        size = (self._sizes or {}).get(profile)
        for name in _SIZES if size is not None else ():
            if getattr(size, name):
                self.query_one(f"#{name}", Input).value = getattr(size, name)

    def trial(self) -> Callable[[], Plan]:
        host, wish = self.vmhost.host, self._wish()
        return lambda: host.plan_create(wish).plan

    def _written(self) -> NewGuest:
        names = ("name", "image", *_SIZES, "network", "address")
        return NewGuest(*(self.value(name) for name in names))

    def _wish(self) -> NewGuest:
        """Return what is wanted; sizes that are as the profile fills them in are left to it, as all that it says."""
        profile = self.value("profile")
        size = (self._sizes or {}).get(profile)
        written = self._written()
        if size is None:
            return written
        return replace(
            written,
            profile=profile,
            cpus=None if written.cpus == size.cpus else written.cpus,
            memory=None if written.memory == size.memory else written.memory,
            disk=None if written.disk == size.disk else written.disk,
        )

    def faults(self) -> dict[str, str]:
        wish = self._written()
        found = faults_of_wish(wish, self._bridges)
        if self._observed.domain(wish.name):
            found.setdefault("name", "there is a guest of this name")
        if wish.image not in self._images:
            found["image"] = "this host has no such image"
        if wish.network not in (*self._bridges, USER_NETWORK, NO_NETWORK):
            found["network"] = "this host has no such bridge"
        if self._sizes is not None and self.value("profile") not in ("", *self._sizes):
            found["profile"] = "there is no such profile; empty is fine"
        order = [field.id for field in self.fields()]
        return {name: found[name] for name in order if name in found}

    def room(self) -> Callable[[], Sequence[Line]] | None:
        cpus, memory = self.value("cpus"), self.value("memory")
        if faults_of_size(cpus, memory):
            return None
        host = self.vmhost.host
        return lambda: room_lines(room_for(host, cpus, memory))

    def change(self) -> changes.Change:
        return changes.create(self._wish())
