"""vmhost tui: the terminal interface. The other face is started by name; neither imports the other."""

from __future__ import annotations

from importlib import import_module

import click

from vmhost.model.errors import UsageError

THEMES = ("dark", "light", "contrast", "ansi", "ansi-light")
DEMO = "fake:day"


@click.command()
@click.option("--demo", is_flag=True, help="The built-in fake host: a look around without libvirt.")
@click.option("--theme", type=click.Choice(THEMES), default="dark", show_default=True, help="Colours; t changes them.")
@click.option(
    "--interval", type=click.FloatRange(0.2, 60), default=2.0, show_default=True, help="Seconds between two looks."
)
@click.pass_context
def tui(ctx: click.Context, demo: bool, theme: str, interval: float) -> int:
    """Guests, host and jobs on one screen, and every change with its plan. Keys: ? shows them, q leaves."""
    uri = ctx.find_root().obj
    if demo and uri is not None:
        raise UsageError("--demo is a host of its own", subject=uri, hint="vmhost tui --demo")
    code = import_module("vmhost.tui").run(DEMO if demo else uri, theme=theme, interval=interval)
    return int(code)
