"""vmhost guest create and resize: one guest, without a site file."""

from __future__ import annotations

import click

from vmhost.cli.common import dry_run_option, open_host, settle, yes_option
from vmhost.cli.output import format_option
from vmhost.model.errors import Fault, SpecError, UsageError
from vmhost.model.permit import Permit
from vmhost.model.units import parse_size


@click.command()
@click.argument("name")
@click.option("--image", required=True, help="Image of its root disk, as in vmhost image list.")
@click.option("--cpus", default="1", show_default=True, help="vCPUs.")
@click.option("--memory", default="1G", show_default=True, help="Memory, as 512M or 4G.")
@click.option("--disk", default="10G", show_default=True, help="Size of its root disk.")
@click.option("--network", default="user", show_default=True, help="A bridge of this host, user (QEMU's own) or none.")
@click.option("--address", default="", help="An address of the bridge's subnet, auto, dhcp or none.")
@dry_run_option
@yes_option
@format_option
@click.pass_context
def create(ctx: click.Context, /, dry_run: bool, yes: bool, output: str, **wish: str) -> int:
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
