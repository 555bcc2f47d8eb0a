"""The terminal interface; Textual is imported when it runs, and only then."""

from __future__ import annotations


def run(uri: str | None, *, theme: str = "dark", interval: float = 2.0) -> int:
    """Run the terminal interface until the person leaves; return the exit code.

    :param uri: as for :class:`vmhost.Host`; ``fake:demo``: the built-in fake host.
    :param interval: seconds between two pictures of the host at least.
    :raises UsageError: there is no terminal.
    """
    import logging

    from vmhost.ops.host import Host
    from vmhost.ops.preferences import own_preferences
    from vmhost.tui.terminal import check_terminal, has_unicode

    check_terminal()
    from vmhost.tui.app import VmhostApp

    logging.getLogger("vmhost").addHandler(logging.NullHandler())  # nothing of ours writes over the screen
    with Host(uri) as host:
        mine = own_preferences()
        app = VmhostApp(host, theme=theme, interval=interval, unicode=has_unicode(), preferences=mine)
        return app.run() or 0
