"""vmhost guest create and resize: one guest, without a site file."""

from __future__ import annotations

from typing import Any

import click

from vmhost.cli.common import dry_run_option, open_host, settle, yes_option
from vmhost.cli.output import format_option
from vmhost.model.errors import Fault, SpecError, UsageError
from vmhost.model.permit import Permit
from vmhost.model.units import parse_size


@click.command()
@click.argument("name")
@click.option("--profile", default="", help="A profile of the file, or small, medium, large; the rest goes before it.")
@click.option("--site", default="", help="File with the profiles and networks.  [default: host.yaml, if there is one]")
@click.option("--image", help="Image of its root disk, as in vmhost image list.")
@click.option("--cpus", help="vCPUs.  [default: as the profile, or 1]")
@click.option("--memory", help="Memory, as 512M or 4G.  [default: as the profile, or 1G]")
@click.option("--disk", help="Size of its root disk.  [default: as the profile, or 10G]")
@click.option(
    "--network",
    help="A network of the file, a bridge of this host, user (QEMU's own) or none.  [default: as the profile, or user]",
)
@click.option("--address", default="", help="An address of its subnet, auto, dhcp or none.")
@dry_run_option
@yes_option
@format_option
@click.pass_context
def create(ctx: click.Context, /, dry_run: bool, yes: bool, output: str, **wish: Any) -> int:
    """Make a guest, as a site of its own name with nothing else in it."""
    from vmhost.cli.site import carry_out
    from vmhost.ops.forms import NewGuest

    with open_host(ctx) as host:
        if not dry_run:
            settle(host)
        try:
            proposal = host.plan_create(NewGuest(**wish))
        except SpecError as error:
            faults = [Fault(fault.path, fault.message) for fault in error.faults]
            raise SpecError(faults, subject=wish["name"], hint="vmhost guest create --help") from error
        return carry_out(host, proposal, output, yes=yes, dry_run=dry_run)


@click.command()
@click.argument("name")
@click.option("--cpus", type=click.IntRange(1, 710), help="vCPUs.")
@click.option("--memory", help="Memory, as 512M or 4G.")
@click.option("--allow-stop", is_flag=True, help="Restart it now if it runs; otherwise it has them at its next boot.")
@dry_run_option
@yes_option
@format_option
@click.pass_context
def resize(
    ctx: click.Context,
    /,
    name: str,
    cpus: int | None,
    memory: str | None,
    allow_stop: bool,
    dry_run: bool,
    yes: bool,
    output: str,
) -> int:
    """Give a guest other vCPUs and memory, past its site file: write the same there afterwards."""
    from vmhost.cli.site import carry_out

    if cpus is None and memory is None:
        raise UsageError("neither --cpus nor --memory was given", subject=name, hint="vmhost guest resize --help")
    with open_host(ctx) as host:
        if not dry_run:
            settle(host)
        size = None if memory is None else _size(memory)
        proposal = host.plan_resize(name, cpus=cpus, memory=size, permit=Permit(stop=allow_stop))
        return carry_out(host, proposal, output, yes=yes, dry_run=dry_run)


def _size(text: str) -> int:
    from vmhost.ops.forms import faults_of_size

    fault = faults_of_size("1", text).get("memory")
    if fault:
        raise UsageError(fault, subject="--memory", hint="--memory 2G")
    return parse_size(text)
