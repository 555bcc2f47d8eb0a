"""The command: nouns are loaded when they are used, so that ``--help`` stays quick."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Final

import click

import vmhost
from vmhost.cli import diagnostics
from vmhost.model.errors import VmhostError

COMMANDS: Final = {
    "plan": ("vmhost.cli.site", "plan", "Show what would be done to bring this host to a site."),
    "apply": ("vmhost.cli.site", "apply", "Bring this host to a site, and wait until its guests are ready."),
    "drift": ("vmhost.cli.site", "drift", "Show where this host differs from a site."),
    "schema": ("vmhost.cli.site", "schema", "Print the JSON Schema of site files."),
    "tui": ("vmhost.cli.tui", "tui", "The terminal interface: guests, host, jobs, and plans to say yes to."),
    "guest": ("vmhost.cli.guest", "guest", "List, show, start, stop, enter and delete guests."),
    "snapshot": ("vmhost.cli.snapshot", "snapshot", "Points in a guest's own storage, to go back to."),
    "nightly": ("vmhost.cli.nightly", "nightly", "Points of all guests, night after night."),
    "image": ("vmhost.cli.image", "image", "Build, pull, list, verify and delete images."),
    "backup": ("vmhost.cli.backup", "backup", "Take, list, verify and restore points of guests."),
    "host": ("vmhost.cli.host", "host", "Show and examine this host."),
    "net": ("vmhost.cli.net", "net", "The host's network: bridges, uplinks, VLANs."),
    "service": ("vmhost.cli.service", "service", "Services inside guests: list, deploy, check, restart, logs."),
    "watch": ("vmhost.cli.watch", "watch", "Keep ports of guests in their VLANs, and services well."),
    "job": ("vmhost.cli.job", "job", "List, show and cancel long operations."),
    "recover": ("vmhost.cli.site", "recover", "Settle operations that a crash interrupted."),
    "lab": ("vmhost.cli.lab", "lab", "A throw-away hypervisor to try things in."),
}


class Nouns(click.Group):
    """A group whose commands are imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(import_module(module), attribute)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(cls=Nouns, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("-c", "--connect", "uri", metavar="URI", help="Hypervisor, as for virsh; fake:demo is a built-in one.")
@click.version_option(vmhost.__version__, prog_name="vmhost")
@click.pass_context
def cli(ctx: click.Context, uri: str | None) -> None:
    """Guests, networks and their protection on one libvirt host.

    Begin with: vmhost plan SITE, vmhost apply SITE, vmhost guest list.
    """
    ctx.obj = uri


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; every error of ours is told on stderr."""
    try:
        result = cli.main(arguments, prog_name="vmhost", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return diagnostics.USAGE
    except (click.Abort, KeyboardInterrupt):
        diagnostics.say("vmhost: interrupted")
        return diagnostics.INTERRUPTED
    except VmhostError as error:
        return diagnostics.report(error)
    except BrokenPipeError:
        return _nobody_reads()
    except PermissionError as error:
        return diagnostics.denied(error)
    except Exception as error:  # noqa: BLE001 - the last door: a person sees one sentence, not a trace
        return diagnostics.unexpected(error)
    return result if isinstance(result, int) else 0


def _nobody_reads() -> int:
    """End quietly when the reader of our output has gone (``vmhost guest list | head -1``)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return diagnostics.UNEXPECTED
