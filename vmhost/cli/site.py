"""plan, apply, drift, recover, schema: a site against this host."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from vmhost.cli import diagnostics
from vmhost.cli.common import consent, dry_run_option, interruptible, open_host, settle, tell, yes_option
from vmhost.cli.output import DOCUMENTS, emit, format_option, names
from vmhost.model.permit import Permit
from vmhost.model.text import sanitize

if TYPE_CHECKING:
    from vmhost.model.outcome import Outcome
    from vmhost.model.plan import Note
    from vmhost.model.spec import Site
    from vmhost.ops.host import Host
    from vmhost.ops.proposals import Proposal


def permit_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags that permit harm."""
    for option in reversed(
        (
            click.option("--allow-stop", is_flag=True, help="Running guests may be shut down or restarted."),
            click.option(
                "--allow-replace", multiple=True, metavar="NAME", help="Make this guest anew; its disks are deleted."
            ),
            click.option("--prune", multiple=True, metavar="NAME", help="Remove this guest, which left the site."),
            click.option(
                "--overwrite",
                multiple=True,
                metavar="NAME",
                help="Undo what others changed past the site; see the manual.",
            ),
            click.option("--power-off", is_flag=True, help="Guests that are removed may be powered off."),
            click.option("--disks", is_flag=True, help="Disks of guests that are removed are deleted."),
            click.option("--discard-saved", is_flag=True, help="Saved memory may be lost."),
        )
    ):
        function = option(function)
    return function


def permit_of(flags: dict[str, Any]) -> Permit:
    """Return what the flags permit."""
    return Permit(
        stop=flags["allow_stop"],
        power_off=flags["power_off"],
        disks=flags["disks"],
        discard_saved=flags["discard_saved"],
        replace=frozenset(flags["allow_replace"]),
        prune=frozenset(flags["prune"]),
        overwrite=frozenset(flags["overwrite"]),
    )


def show_plans(output: str, proposals: Sequence[Proposal]) -> None:
    """Write the plans of several operations to stdout; as one document where it is one."""
    if output in DOCUMENTS:
        emit(output, "PlanList", [proposal.as_json() for proposal in proposals])
        return
    for proposal in proposals:
        show_plan(output, proposal)


@click.command()
@click.argument("site", type=click.Path())
@permit_options
@format_option
@click.option("--exit-code", is_flag=True, help="Exit with 7 when there is something to do.")
@click.pass_context
def plan(ctx: click.Context, /, site: str, output: str, exit_code: bool, **flags: Any) -> int:
    """Show what would be done to bring this host to SITE: every step, why, and what it means for running guests."""
    from vmhost.ops.sites import load_site

    with open_host(ctx) as host:
        proposal = host.plan(load_site(site), permit_of(flags))
        show_plan(output, proposal)
        return diagnostics.PENDING if exit_code and not proposal.empty else 0


def show_plan(output: str, proposal: Proposal) -> None:
    """Write a proposal's plan to stdout."""
    if output in DOCUMENTS:
        emit(output, "Plan", proposal.as_json())
        return
    if output == "name":
        names(proposal.plan.guests)
        return
    for line in str(proposal).splitlines():
        sys.stdout.write(sanitize(line) + "\n")


@click.command()
@click.argument("site", type=click.Path())
@permit_options
@yes_option
@dry_run_option
@format_option
@click.pass_context
def apply(ctx: click.Context, /, site: str, output: str, yes: bool, dry_run: bool, **flags: Any) -> int:
    """Bring this host to SITE; ends when its guests answer and cloud-init has spoken. Failing steps are undone."""
    from vmhost.ops.sites import load_site

    with open_host(ctx) as host:
        if not dry_run:
            settle(host)
        wish, permit = load_site(site), permit_of(flags)
        if yes and not dry_run:
            return _at_once(host, wish, permit, output)
        return carry_out(host, host.plan(wish, permit), output, yes=yes, dry_run=dry_run)


def _at_once(host: Host, site: Site, permit: Permit, output: str) -> int:
    """Do what :func:`carry_out` does where nobody is to be asked."""
    shown = output not in DOCUMENTS
    with interruptible() as cancelled:
        outcome = host.apply_site(
            site,
            permit,
            on_plan=(lambda proposal: show_plan(output, proposal)) if shown else None,
            on_event=tell,
            cancelled=cancelled,
        )
    if not (shown and outcome.plan.empty):
        _show_outcome(output, outcome)
    return 0


def carry_out(host: Host, proposal: Proposal, output: str, *, yes: bool, dry_run: bool) -> int:
    """Show a proposal, ask, apply it, and write the outcome; as JSON or YAML stdout holds one document only."""
    if dry_run or (proposal.empty and output not in DOCUMENTS):
        show_plan(output, proposal)
        return 0
    if output not in DOCUMENTS:
        show_plan(output, proposal)
    if not proposal.empty and not consent(yes, "Apply this?"):
        diagnostics.say("vmhost: nothing was done")
        return diagnostics.REFUSED
    with interruptible() as cancelled:
        outcome = host.apply(proposal, on_event=tell, cancelled=cancelled)
    _show_outcome(output, outcome)
    return 0


def _show_outcome(output: str, outcome: Outcome) -> None:
    if output in DOCUMENTS:
        emit(output, "Outcome", {"site": outcome.plan.site, "done": outcome.done, "seconds": outcome.total_seconds})
    else:
        diagnostics.say(str(outcome))


@click.command()
@click.argument("site", type=click.Path())
@format_option
@click.pass_context
def drift(ctx: click.Context, site: str, output: str) -> int:
    """Show where this host differs from SITE, on the fields that vmhost owns. Exits with 7 when it does."""
    from vmhost.ops.sites import load_site

    with open_host(ctx) as host:
        differences = host.drift(load_site(site), on_note=_tell_note)
    if output in DOCUMENTS:
        emit(output, "Drift", differences)
    elif output == "name":
        names(difference.guest for difference in differences)
    else:
        for difference in differences:
            sys.stdout.write(sanitize(str(difference)) + "\n")
        if not differences:
            diagnostics.say("no drift")
    return diagnostics.PENDING if differences else 0


def _tell_note(note: Note) -> None:
    diagnostics.say(sanitize(f"note: {note.subject}: {note.text}"))


@click.command()
@click.pass_context
def recover(ctx: click.Context) -> int:
    """Settle operations that a crash interrupted: undo what had not reached its commit point, finish what had."""
    with open_host(ctx) as host:
        settled = host.recover(on_event=tell)
    for item in settled:
        sys.stdout.write(sanitize(str(item)) + "\n")
        for text in item.leftovers:
            diagnostics.say(f"  left over: {sanitize(text)}")
    if not settled:
        diagnostics.say("nothing was interrupted")
    return diagnostics.LEFTOVERS if any(item.leftovers for item in settled) else 0


@click.command()
def schema() -> None:
    """Print the JSON Schema of site files, for editors."""
    from vmhost.ops.sites import site_schema

    sys.stdout.write(json.dumps(site_schema(), indent=2) + "\n")
