"""What may be done to guests, from their list and from a guest's own screen; everything opens the plan first.

What plans is imported when it is asked for: the first screen is to be there at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from vmhost.tui.screens.frame import Frame

if TYPE_CHECKING:
    from vmhost.model.observed import ObservedDomain
    from vmhost.ops.power import Action


class Power(Frame):
    """The actions on guests."""

    def subjects(self) -> tuple[ObservedDomain, ...]:
        """Return the guests that are meant."""
        return ()

    def action_power(self, action: str) -> None:
        """Plan to start, shut down, restart or power off."""
        from vmhost.tui import changes
        from vmhost.tui.screens.plan import PlanScreen

        names = tuple(domain.name for domain in self.subjects())
        if names:
            self.app.push_screen(PlanScreen(changes.power(names, cast("Action", action))))

    def action_delete(self) -> None:
        """Plan to delete."""
        from vmhost.tui import changes
        from vmhost.tui.screens.plan import PlanScreen

        names = tuple(domain.name for domain in self.subjects())
        if names:
            self.app.push_screen(PlanScreen(changes.delete(names)))

    def action_resize(self) -> None:
        """Open the form for other vCPUs and memory, of one guest."""
        from vmhost.tui.screens.resize import ResizeScreen

        found = self.subjects()
        picture = self.vmhost.picture
        if len(found) == 1 and picture is not None:
            self.app.push_screen(ResizeScreen(found[0], picture.observed))
        elif found:
            self.app.notify("resize takes one guest at a time", severity="warning", markup=False)

    def action_pin(self) -> None:
        """Open the form for other pCPUs, of one guest."""
        from vmhost.tui.screens.pin import PinScreen

        found = self.subjects()
        if len(found) == 1:
            self.app.push_screen(PinScreen(found[0]))
        elif found:
            self.app.notify("pin takes one guest at a time", severity="warning", markup=False)

    def action_console(self) -> None:
        """Give the terminal to the guest's console."""
        from vmhost.ops.terminal import visit_console

        for domain in self.subjects()[:1]:
            self.vmhost.visit(lambda name=domain.name: visit_console(self.vmhost.host, name))  # type: ignore[misc]

    def action_ssh(self) -> None:
        """Give the terminal to ssh."""
        from vmhost.ops.terminal import visit_ssh

        for domain in self.subjects()[:1]:
            self.vmhost.visit(lambda name=domain.name: visit_ssh(self.vmhost.host, name))  # type: ignore[misc]
