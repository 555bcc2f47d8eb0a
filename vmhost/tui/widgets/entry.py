"""A line to type into, where keys act in the order in which they were pressed."""

from __future__ import annotations

from textual import events
from textual.widgets import Input


class Entry(Input):
    """The toolkit's own line hears of letters at once and of all other keys later.

    What was typed in one go, as over a slow line, would first be written, and then taken away by the key before it.
    """

    async def _on_key(self, event: events.Key) -> None:
        for binding in self._bindings.key_to_bindings.get(event.key, ()):
            event.stop()
            event.prevent_default()
            await self.app.run_action(binding.action, self)
