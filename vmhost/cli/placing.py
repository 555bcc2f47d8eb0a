"""vmhost guest pin and vmhost host capacity: who has which pCPUs and how much memory."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from vmhost.cli.common import dry_run_option, open_host, settle, yes_option
from vmhost.cli.output import DOCUMENTS, emit, format_option, names, table
from vmhost.model.errors import UsageError
from vmhost.model.permit import Permit
from vmhost.model.text import sanitize
from vmhost.model.units import format_cpuset, format_size, parse_cpuset, parse_duration

if TYPE_CHECKING:
    from vmhost.model.capacity import Capacity, CpuRow


@click.command()
@click.argument("name")
@click.option(
    "--policy",
    type=click.Choice(("shared", "dedicated", "isolated", "mixed")),
    help="How it gets pCPUs: floating, each vCPU its own, whole cores of its own, or some of each.",
)
@click.option("--vcpu", "pins", multiple=True, metavar="VCPU=PCPU", help="A pCPU of your choice; may be repeated.")
@click.option("--dedicated", metavar="VCPUS", help="Which vCPUs of a mixed guest have pCPUs of their own, as 0-1.")
@click.option("--threads", type=click.Choice(("prefer", "isolate", "require")), help="The other threads of its cores.")
@click.option("--emulator", type=click.Choice(("shared", "own")), help="Where the rest of QEMU runs.")
@click.option("--limit", type=float, help="pCPUs that the whole guest may use at most, as 1.5.")
@click.option("--request", type=float, help="pCPUs that it is sure to get.")
@click.option("--shares", type=int, help="Its weight among guests that want more than there is.")
@click.option("--allow-stop", is_flag=True, help="Restart it now if it runs and that is needed.")
@dry_run_option
@yes_option
@format_option
@click.pass_context
def pin(
    ctx: click.Context,
    /,
    name: str,
    pins: tuple[str, ...],
    allow_stop: bool,
    dry_run: bool,
    yes: bool,
    output: str,
    **cpus: Any,
) -> int:
    """Give a guest other pCPUs while it runs, past its site file: write the same there afterwards."""
    from vmhost.cli.site import carry_out

    change = {key: value for key, value in cpus.items() if value is not None}
    if pins:
        change["pins"] = dict(_pair(text) for text in pins)
    if not change:
        raise UsageError("nothing to change was given", subject=name, hint="vmhost guest pin --help")
    with open_host(ctx) as host:
        if not dry_run:
            settle(host)
        proposal = host.plan_pin(name, permit=Permit(stop=allow_stop), **change)
        return carry_out(host, proposal, output, yes=yes, dry_run=dry_run)


def _pair(text: str) -> tuple[int, int]:
    vcpu, sign, pcpu = text.partition("=")
    if not (sign and vcpu.isascii() and vcpu.isdecimal() and pcpu.isascii() and pcpu.isdecimal()) or len(text) > 12:
        raise UsageError(f"{sanitize(text)[:40]!r} is no vCPU and pCPU", subject="--vcpu", hint="--vcpu 0=4 --vcpu 1=6")
    return int(vcpu), int(pcpu)


@click.command()
@click.option("--fits", metavar="KIND,...", default="", help="How many more: small, large, 2x4G, 4x8G:dedicated.")
@click.option("--site", "file", metavar="SITE", help="A site file: its reserve counts, its guests are kinds too.")
@click.option("--measure", metavar="TIME", help="Watch so long who waits for pCPUs, as 5s.")
@format_option
@click.pass_context
def capacity(ctx: click.Context, fits: str, file: str | None, measure: str | None, output: str) -> None:
    """Show who has which pCPUs, hugepages and memory, and what still fits."""
    kinds = [word for word in fits.split(",") if word]
    watched = 0.0
    if measure is not None:
        try:
            watched = parse_duration(measure)
        except ValueError as error:
            raise UsageError(str(error), subject="--measure", hint="--measure 5s") from error
    with open_host(ctx) as host:
        from vmhost.ops.sites import load_site

        found = host.capacity(fits=kinds, site=load_site(file) if file else None, measure=watched)
    if output in DOCUMENTS:
        emit(output, "Capacity", found)
    elif output == "name":
        names(row.name for row in found.guests)
    else:
        _show(found)


def _show(found: Capacity) -> None:
    table(("PCPUS", "CELL", "SOCKET", "CACHE", "THREADS", "USE", "GUESTS"), _cpus(found.cpus))
    _line("")
    columns = ("GUEST", "POLICY", "OWN", "SHARED", "MEMORY", "COUNTS")
    rows = [
        (
            row.name,
            row.policy,
            row.own or "-",
            str(row.shared),
            format_size(row.memory),
            "yes" if row.promised else "no",
        )
        for row in found.guests
    ]
    table(columns, rows)
    _line("")
    for cell in found.cells:
        pages = "".join(f"; {row.free} of {row.total} pages of {format_size(row.size)} free" for row in cell.pages)
        _line(f"cell {cell.id}: {format_size(cell.memory)}, {format_size(cell.unbound)} bound to no guest{pages}")
    reserve = f", {format_size(found.reserve)} in reserve" if found.reserve else ""
    _line(f"memory: {format_size(found.promised)} of {format_size(found.memory)} promised{reserve}")
    _line(f"free: {format_size(found.free)}; {found.sharing} vCPUs share pCPUs {found.pool or 'none'}")
    for fit in found.fits:
        _line(f"fits: {fit.count} more of {fit.kind}" + (f"; then: {fit.then}" if fit.then else ""))
    for text in found.after_reboot:
        _line(f"after a reboot: {text}")
    for text in found.short:
        _line(f"short: {text}")
    for one in found.starved:
        _line(
            f"starved: {one.name}: vCPU {one.vcpu} waits {100 * one.share:.0f} percent of the time; {one.by} runs there"
        )
    if found.pressure:
        _line("pressure: " + ", ".join(f"{what} {percent:g} percent" for what, percent in found.pressure))
    if found.loose:
        _line(f"foreign guests that may run on every pCPU: {', '.join(found.loose)}")


def _cpus(rows: tuple[CpuRow, ...]) -> list[tuple[str, ...]]:
    """Return the pCPUs of which the same is to be said as one line each."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for row in rows:
        cache = str(row.cache) if row.cache >= 0 else "-"
        threads = str(len(parse_cpuset(row.siblings))) if row.siblings else "-"
        shown = ", ".join(row.guests) or "-"
        alike.setdefault((str(row.cell), str(row.socket), cache, threads, row.use, shown), []).append(row.id)
    return [(format_cpuset(cpus), *words) for words, cpus in alike.items()]


def _line(text: str) -> None:
    sys.stdout.write(f"{sanitize(text)}\n")
