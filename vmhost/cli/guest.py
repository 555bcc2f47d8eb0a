"""vmhost guest: list, show, start, stop, restart, autostart, ssh, exec, console, delete."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from vmhost.cli import diagnostics
from vmhost.cli.common import consent, dry_run_option, interruptible, open_host, settle, tell, yes_option
from vmhost.cli.guestform import create, resize
from vmhost.cli.nics import attach, detach
from vmhost.cli.output import DOCUMENTS, emit, format_option, show, table
from vmhost.cli.output import names as names_of
from vmhost.cli.placing import pin
from vmhost.model.errors import UsageError, VmhostError
from vmhost.model.permit import Permit
from vmhost.model.text import sanitize
from vmhost.model.units import format_size, parse_duration

if TYPE_CHECKING:
    from vmhost.model.shell import CommandResult
    from vmhost.ops.guests import GuestDetails, GuestRow

OWN_FAILURE = 255
COLUMNS = ("NAME", "STATE", "VCPUS", "MEMORY", "ADDRESS", "SITE", "AUTOSTART", "FLAGS")


@click.group()
def guest() -> None:
    """List, show, make, start, stop, enter, resize and delete guests. A guest is named by name or UUID."""


guest.add_command(create)
guest.add_command(resize)
guest.add_command(pin)
guest.add_command(attach)
guest.add_command(detach)


@guest.command("list")
@format_option
@click.pass_context
def list_(ctx: click.Context, output: str) -> None:
    """List all guests of this host, foreign ones too."""
    with open_host(ctx) as host:
        show(output, "GuestList", host.guests(), COLUMNS, _cells, lambda row: row.name)


def _cells(row: GuestRow) -> tuple[str, ...]:
    return (
        row.name,
        row.state,
        str(row.vcpus),
        format_size(row.memory),
        ",".join(row.addresses) or "-",
        row.site or "-",
        "yes" if row.autostart else "no",
        ",".join(row.flags) or "-",
    )


@guest.command("show")
@click.argument("name")
@format_option
@click.pass_context
def show_(ctx: click.Context, name: str, output: str) -> None:
    """Show everything about one guest."""
    with open_host(ctx) as host:
        details = host.guest(name)
    if output in DOCUMENTS:
        emit(output, "Guest", details)
    elif output == "name":
        names_of([details.row.name])
    else:
        _describe(details)


def _describe(details: GuestDetails) -> None:
    row, facts, metadata = details.row, details.domain.facts, details.domain.metadata
    lines = [
        ("name", row.name),
        ("uuid", row.uuid),
        ("state", row.state),
        ("site", row.site or ("drill" if details.domain.drill else "foreign")),
        ("vcpus", f"{facts.vcpus} of {facts.max_vcpus}"),
        ("memory", f"{format_size(facts.memory)} of {format_size(facts.max_memory)}"),
        ("firmware", facts.firmware),
        ("autostart", "yes" if row.autostart else "no"),
        ("flags", ", ".join(row.flags) or "-"),
    ]
    if details.stolen is not None:
        lines.append(("stolen", f"{100 * details.stolen:.1f} percent of its time since its boot, by its own count"))
    if metadata:
        lines += [("applied", f"{metadata.applied} by {metadata.user}"), ("host key", metadata.identity.host_key)]
    sizes = {volume.path: format_size(volume.capacity) for volume in details.volumes}
    lines += [
        ("disk", f"{disk.target}  {sizes.get(disk.source, '?')}  {disk.format}  {disk.source}") for disk in facts.disks
    ]
    addresses = {nic.mac: nic.address for nic in metadata.identity.nics} if metadata else {}
    lines += [
        ("nic", f"{nic.tap or '-'}  {nic.source}  {nic.mac}  {addresses.get(nic.mac, '')}".rstrip())
        for nic in facts.nics
    ]
    lines += [("console log", facts.serial_log or "-")]
    for key, value in lines:
        sys.stdout.write(f"{key + ':':<13}{sanitize(value)}\n")
    for line in details.console:
        sys.stdout.write(f"  | {sanitize(line)}\n")


def _power(
    ctx: click.Context, names: tuple[str, ...], action: str, timeout: str = "3m", *, discard: bool = False
) -> int:
    from vmhost.ops.power import raise_failures

    seconds = _seconds(timeout)
    with open_host(ctx) as host, interruptible() as cancelled:
        settle(host)
        results = host.power(
            names,
            action,  # type: ignore[arg-type]
            timeout=seconds,
            discard_saved=discard,
            on_event=tell,
            cancelled=cancelled,
        )
    table(("NAME", "RESULT"), [(result.name, result.text) for result in results])
    raise_failures(results)
    return 0


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(str(error), subject="--timeout", hint="--timeout 90s") from error


NAMES = click.argument("names", nargs=-1, required=True)


@guest.command()
@NAMES
@click.option("--discard-saved", is_flag=True, help="Lose the memory that managed save keeps, as a power cut would.")
@click.pass_context
def start(ctx: click.Context, names: tuple[str, ...], discard_saved: bool) -> int:
    """Start guests."""
    return _power(ctx, names, "start", discard=discard_saved)


@guest.command()
@NAMES
@click.option(
    "--timeout",
    default="3m",
    show_default=True,
    help="How long a guest may take; then it runs on and the command fails.",
)
@click.option("--power-off", is_flag=True, help="Take the power away at once instead of asking.")
@yes_option
@click.pass_context
def stop(ctx: click.Context, names: tuple[str, ...], timeout: str, power_off: bool, yes: bool) -> int:
    """Shut guests down: through their agent, else by ACPI. They are never powered off without --power-off."""
    if power_off and not consent(yes, f"Take the power from {', '.join(names)}?"):
        return diagnostics.REFUSED
    return _power(ctx, names, "power-off" if power_off else "stop", timeout)


@guest.command()
@NAMES
@click.option("--timeout", default="3m", show_default=True, help="How long the shut-down may take.")
@click.pass_context
def restart(ctx: click.Context, names: tuple[str, ...], timeout: str) -> int:
    """Shut guests down and start them again, with what was redefined meanwhile."""
    return _power(ctx, names, "restart", timeout)


@guest.command()
@NAMES
@click.option("--off", is_flag=True, help="No longer start with the host.")
@click.pass_context
def autostart(ctx: click.Context, names: tuple[str, ...], off: bool) -> int:
    """Start guests with the host."""
    return _power(ctx, names, "no-autostart" if off else "autostart")


@guest.command()
@NAMES
@click.option("--power-off", is_flag=True, help="A running guest may be powered off.")
@click.option("--disks", is_flag=True, help="Delete its disks too, for good.")
@dry_run_option
@yes_option
@format_option
@click.pass_context
def delete(
    ctx: click.Context, names: tuple[str, ...], power_off: bool, disks: bool, dry_run: bool, yes: bool, output: str
) -> int:
    """Remove guests. Their disks stay unless --disks is given."""
    from vmhost.cli.site import carry_out

    with open_host(ctx) as host:
        if not dry_run:
            settle(host)
        proposal = host.plan_delete(names, Permit(power_off=power_off, disks=disks))
        return carry_out(host, proposal, output, yes=yes, dry_run=dry_run)


@guest.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def ssh(ctx: click.Context, name: str, command: tuple[str, ...]) -> None:
    """Enter a guest with the system's ssh; its host key is the one that was pinned when it was made."""
    from vmhost.ops.terminal import run_ssh

    with open_host(ctx) as host:
        run_ssh(host, name, command)


@guest.command()
@click.argument("name")
@click.pass_context
def console(ctx: click.Context, name: str) -> None:
    """Attach to a guest's serial console; Ctrl-] leaves."""
    from vmhost.ops.terminal import run_console

    with open_host(ctx) as host:
        run_console(host, name)


@guest.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--timeout", default="60s", show_default=True, help="How long the command may take.")
@click.option("--sudo", is_flag=True, help="Run it as root.")
@click.pass_context
def exec_(ctx: click.Context, name: str, command: tuple[str, ...], timeout: str, sudo: bool) -> int:
    """Run a command in a guest and return its exit code; failures of ours are 255. Use -- before the command."""
    seconds = _seconds(timeout)
    data = b"" if sys.stdin.isatty() else _stdin()
    try:
        with open_host(ctx) as host:
            result = host.exec([name], command, timeout=seconds, sudo=sudo, input=data)[name]
    except VmhostError as error:
        diagnostics.report(error)
        return OWN_FAILURE
    return _write(result)


def _stdin() -> bytes:
    return sys.stdin.buffer.read() if not sys.stdin.closed else b""


def _write(result: CommandResult | VmhostError) -> int:
    """Pass a command's output on as it is when it goes to a file or pipe, made safe when it goes to a terminal."""
    if isinstance(result, VmhostError):
        diagnostics.report(result)
        return OWN_FAILURE
    for stream, data in ((sys.stdout, result.stdout), (sys.stderr, result.stderr)):
        if stream.isatty():
            lines = data.decode("utf-8", "replace").splitlines()
            stream.write("".join(f"{sanitize(line)}\n" for line in lines))
        else:
            stream.buffer.write(data)
        stream.flush()
    if result.signal:
        diagnostics.say(f"vmhost: the command was ended by signal {sanitize(result.signal)}")
    return OWN_FAILURE if result.exit_code is None else result.exit_code
