"""vmhost guest attach and detach: one NIC more or less for a guest of a site."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vmhost.cli.common import dry_run_option, open_host, settle, yes_option
from vmhost.cli.output import format_option
from vmhost.model.permit import Permit

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmhost.model.spec import Site
    from vmhost.ops.host import Host
    from vmhost.ops.proposals import Proposal

SITE = click.option("--site", "file", required=True, metavar="SITE", help="The file of the site that it belongs to.")
ALLOW_STOP = click.option("--allow-stop", is_flag=True, help="Restart it now if it runs and that is needed.")


@click.command()
@click.argument("name")
@SITE
@click.option("--network", required=True, help="Network of the site.")
@click.option("--id", "nic_id", help="Stable name of the NIC; the network's name without it.")
@click.option("--address", help="An address of the subnet, auto, dhcp or none.")
@click.option("--mac", help="Hardware address; drawn without it.")
@click.option("--tagged", help="VLANs that it sees tagged, as 100,200-299.")
@click.option("--isolated", is_flag=True, help="Let it exchange nothing with other isolated NICs.")
@click.option("--spoofing", type=click.Choice(("allowed", "refused")), help="What it says in the name of others.")
@ALLOW_STOP
@dry_run_option
@yes_option
@format_option
@click.pass_context
def attach(
    ctx: click.Context,
    /,
    name: str,
    file: str,
    nic_id: str | None,
    allow_stop: bool,
    dry_run: bool,
    yes: bool,
    output: str,
    **nic: Any,
) -> int:
    """Plug a NIC into a guest, running or not, past its site file: write the same there afterwards."""

    def plan(host: Host, site: Site) -> Proposal:
        return host.nics.plan_attach(site, name, permit=Permit(stop=allow_stop), id=nic_id, **nic)

    return _carry_out(ctx, file, plan, output, yes=yes, dry_run=dry_run)


@click.command()
@click.argument("name")
@click.argument("nic")
@SITE
@ALLOW_STOP
@dry_run_option
@yes_option
@format_option
@click.pass_context
def detach(
    ctx: click.Context,
    /,
    name: str,
    nic: str,
    file: str,
    allow_stop: bool,
    dry_run: bool,
    yes: bool,
    output: str,
) -> int:
    """Take NIC out of a guest, running or not, past its site file: write the same there afterwards."""

    def plan(host: Host, site: Site) -> Proposal:
        return host.nics.plan_detach(site, name, nic, permit=Permit(stop=allow_stop))

    return _carry_out(ctx, file, plan, output, yes=yes, dry_run=dry_run)


def _carry_out(
    ctx: click.Context, file: str, plan: Callable[[Host, Site], Proposal], output: str, *, yes: bool, dry_run: bool
) -> int:
    from vmhost.cli.site import carry_out
    from vmhost.ops.sites import load_site

    site = load_site(file)
    with open_host(ctx) as host:
        if not dry_run:
            settle(host)
        return carry_out(host, plan(host, site), output, yes=yes, dry_run=dry_run)
