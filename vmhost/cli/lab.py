"""A throw-away hypervisor: up, exec, shell, list, down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from vmhost.cli import diagnostics
from vmhost.cli.output import format_option, show

if TYPE_CHECKING:
    from vmhost.ops.lab import Lab

NAME = "lab"
"""The lab that is meant when none is named."""


@dataclass(frozen=True, slots=True)
class Row:
    """A lab in a listing."""

    name: str
    status: str
    kernel: str
    pid: int
    created: str
    directory: str


@click.group()
def lab() -> None:
    """A throw-away hypervisor: a libvirt of its own, with its own guests, disks, network and settings.

    Nothing in it touches this machine's libvirt, and nothing of it stays. Labs share this machine's programs, home
    directories and images; they have no way to its network.
    """


@lab.command()
@click.argument("name", default=NAME)
@click.option("--bridge", is_flag=True, help="Begin with a bridge br-lab, 10.99.0.1/24, for guests.")
@click.option(
    "--kernel",
    type=click.Choice(["host", "uml"]),
    default="host",
    show_default=True,
    help="uml: User-Mode Linux, slower, but with VLANs on any machine and without root.",
)
def up(name: str, bridge: bool, kernel: str) -> None:
    """Bring up a lab called NAME ("lab" by default)."""
    from vmhost.ops.lab import BRIDGE, BRIDGE_ADDRESS, Kernel
    from vmhost.ops.lab import up as bring_up

    bring_up(name, bridge=bridge, kernel=Kernel(kernel))
    diagnostics.say(_usage(name, f"{BRIDGE}, {BRIDGE_ADDRESS}" if bridge else ""))


@lab.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str, command: tuple[str, ...]) -> None:
    """Run COMMAND in the lab NAME and end with its exit code: vmhost lab exec NAME -- COMMAND."""
    from vmhost.ops.lab import replace_by

    words = command[1:] if command[0] == "--" else command
    if not words:
        raise click.UsageError("no command: vmhost lab exec NAME -- COMMAND")
    replace_by(name, words)


@lab.command()
@click.argument("name", default=NAME)
def shell(name: str) -> None:
    """Open a shell in the lab NAME."""
    from vmhost.ops.lab import enter_shell

    enter_shell(name)


@lab.command("list")
@format_option
def list_(output: str) -> None:
    """List labs, also those whose start was interrupted."""
    from vmhost.ops.lab import labs

    show(
        output,
        "LabList",
        [_row(found) for found in labs()],
        ("NAME", "STATUS", "KERNEL", "PID", "CREATED"),
        lambda row: (row.name, row.status, row.kernel, str(row.pid or "-"), row.created),
        lambda row: row.name,
    )


@lab.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
def down(names: tuple[str, ...]) -> None:
    """End labs, with everything that runs in them, and remove what is theirs."""
    from vmhost.ops.lab import down as end

    for name in names or (NAME,):
        end(name)


def _row(found: Lab) -> Row:
    status = found.status
    alive = status != "dead"
    return Row(found.name, status, found.kernel, found.pid if alive else 0, found.created, str(found.directory))


def _usage(name: str, bridge: str) -> str:
    return f"""\
lab {name} is up{f", with the bridge {bridge}" if bridge else ""}
  vmhost lab exec {name} -- vmhost guest list     a command in it
  vmhost lab shell {name}                         a shell in it
  vmhost lab down {name}                          the end of it, with all that is in it"""
