"""vmhost host: what this machine is, and what ails it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from vmhost.cli import diagnostics
from vmhost.cli.common import open_host
from vmhost.cli.output import DOCUMENTS, emit, format_option, names
from vmhost.cli.placing import capacity
from vmhost.model.text import sanitize
from vmhost.model.units import format_size

if TYPE_CHECKING:
    from vmhost.model.observed import ObservedHost

SIGNS = {"ok": "ok     ", "info": "info   ", "warning": "WARNING", "error": "ERROR  "}


@click.group()
def host() -> None:
    """Show and examine this host."""


host.add_command(capacity)


@host.command("show")
@format_option
@click.pass_context
def show_(ctx: click.Context, output: str) -> None:
    """Show the hypervisor: versions, CPUs, memory, acceleration, pools, bridges."""
    with open_host(ctx) as opened:
        observed = opened.observe()
    if output in DOCUMENTS:
        emit(output, "Host", {"host": observed.host, "pools": observed.pools, "links": observed.links})
        return
    if output == "name":
        names([observed.host.hostname])
        return
    for key, value in _facts(observed.host):
        sys.stdout.write(f"{key + ':':<14}{sanitize(value)}\n")
    for pool in observed.pools:
        free = f"{format_size(pool.available)} free of {format_size(pool.capacity)}" if pool.active else "inactive"
        sys.stdout.write(f"pool:         {sanitize(pool.name)}  {sanitize(pool.path)}  {free}\n")
    for link in observed.links:
        if link.kind == "bridge":
            line = f"bridge:       {sanitize(link.name)}  {' '.join(link.addresses)}  {sanitize(link.alias)}"
            sys.stdout.write(f"{line.rstrip()}\n")


def _facts(value: ObservedHost) -> tuple[tuple[str, str], ...]:
    return (
        ("uri", value.uri),
        ("name", value.hostname),
        ("libvirt", version_text(value.libvirt_version)),
        (value.driver, version_text(value.hypervisor_version)),
        ("architecture", value.architecture),
        ("cpus", str(value.cpus)),
        ("memory", format_size(value.memory)),
        ("acceleration", "KVM" if value.kvm else "none (TCG: guests are emulated)"),
        ("uefi", "yes" if value.uefi else "no"),
    )


def version_text(number: int) -> str:
    """Return libvirt's version number (major * 1,000,000 + minor * 1,000 + release) as people write it."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


@host.command()
@click.option("--only", metavar="AREA", help="Limit the checks to one area, such as storage.")
@format_option
@click.pass_context
def doctor(ctx: click.Context, only: str | None, output: str) -> int:
    """Examine this host: each finding with its weight, why it matters, and the command that mends it."""
    with open_host(ctx) as opened:
        findings = opened.doctor(only=only)
    if output in DOCUMENTS:
        emit(output, "Findings", findings)
    elif output == "name":
        names(item.id for item in findings if item.severity != "ok")
    else:
        for item in findings:
            sys.stdout.write(f"{SIGNS[item.severity]}  {item.area:<9} {sanitize(item.title)}\n")
            if item.severity != "ok":
                sys.stdout.write(f"{'':19}{sanitize(item.why)}\n")
                sys.stdout.write(f"{'':19}try: {sanitize(item.mend)}\n" if item.mend else "")
    bad = any(item.severity in ("warning", "error") for item in findings)
    return diagnostics.PENDING if bad else 0
