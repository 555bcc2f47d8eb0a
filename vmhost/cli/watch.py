"""vmhost watch: keeps true what others may change while guests run."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import click

from vmhost.cli import diagnostics
from vmhost.cli.common import ENDING, open_host, tell

if TYPE_CHECKING:
    from vmhost.ops.heal import Healer
    from vmhost.ops.keep import PortKeeper

UNIT = """\
[Unit]
Description=vmhost keeps ports of guests in their VLANs, and their services well
Documentation=man:vmhost(1)
After=libvirtd.service virtqemud.service
Wants=libvirtd.service

[Service]
Type=exec
ExecStart={command} watch
Restart=on-failure
TimeoutStopSec=5min
RestartSec=5

[Install]
WantedBy=multi-user.target
"""


@click.command()
@click.option("--unit", is_flag=True, help="Print a systemd unit that runs it, and end.")
@click.pass_context
def watch(ctx: click.Context, unit: bool) -> int:
    """Keep the ports of running guests in their VLANs, and their services well.

    What others change at a port is put back at once, and told; a port that was moved to another bridge is told and
    stays there. Services are looked at by their probes, and restarted by their policies; guests that want it by their
    heartbeat. Ends with Ctrl-C or SIGTERM.
    """
    if unit:
        sys.stdout.write(UNIT.format(command=quote(str(Path(sys.argv[0]).resolve()))))
        return 0
    with open_host(ctx) as host:
        keeper, healer = host.keeper(tell), host.services.watch(tell)
        with _ended_by_signals(keeper.stop):
            diagnostics.say("vmhost: watching; Ctrl-C ends it")
            count = _both(keeper, healer)
    diagnostics.say(f"vmhost: ended; {count} port{'' if count == 1 else 's'} put back")
    return 0


def _both(keeper: PortKeeper, healer: Healer) -> int:
    """Run both until the keeper is stopped, and return its count; an error of the healer ends both, and is raised."""
    errors: list[BaseException] = []

    def heal() -> None:
        try:
            healer.run()
        except BaseException as error:  # noqa: BLE001 - raised by the main thread
            errors.append(error)
            keeper.stop()

    services = threading.Thread(target=heal, name="services")
    services.start()
    try:
        count = keeper.run()
    finally:
        healer.stop()
        services.join()
    if errors:
        raise errors[0]
    return count


@contextmanager
def _ended_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the watch in an orderly way; a second one ends at once."""
    before = {}

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop()

    for number in ENDING:
        before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
