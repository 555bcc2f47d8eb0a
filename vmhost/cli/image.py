"""vmhost image: build, pull, list, verify, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vmhost.cli import diagnostics
from vmhost.cli.common import consent, open_host, tell, yes_option
from vmhost.cli.output import DOCUMENTS, emit, format_option, names, show
from vmhost.model.units import format_size

if TYPE_CHECKING:
    from vmhost.model.image import ImageRecord, Obtainable
    from vmhost.ops.images import ImageUse

COLUMNS = ("NAME", "ID", "SIZE", "VIRTUAL", "BOOTS BY", "SOURCE", "CREATED", "USED BY")
OBTAINABLE = ("NAME", "BY", "VOUCHED FOR BY", "STATUS")


@click.group()
def image() -> None:
    """Build, pull, list, verify and delete the images that guests' root disks lie on."""


@image.command("list")
@click.option("--available", is_flag=True, help="List what can be built or pulled instead.")
@format_option
@click.pass_context
def list_(ctx: click.Context, available: bool, output: str) -> None:
    """List images, each with the guests that use it."""
    with open_host(ctx) as host:
        if available:
            show(output, "ObtainableList", host.images.available(), OBTAINABLE, _obtainable, lambda item: item.name)
            return
        show(output, "ImageList", host.images.list(), COLUMNS, _cells, lambda use: use.image.name)


def _cells(use: ImageUse) -> tuple[str, ...]:
    image = use.image
    return (
        image.name,
        image.id[:12],
        format_size(image.size),
        format_size(image.virtual_size),
        ",".join(sorted(image.firmware)),
        image.source if image.status == "ok" else f"{image.source}, {image.status}",
        image.created,
        ",".join(use.guests) or "-",
    )


def _obtainable(item: Obtainable) -> tuple[str, ...]:
    return item.name, item.source, item.vouched_by, item.status


def _told(image: ImageRecord, output: str, what: str) -> None:
    if output in DOCUMENTS:
        emit(output, "Image", image)
    elif output == "name":
        names([image.name])
    else:
        said = what if image.status == "ok" else f"{what}, {image.status}"
        diagnostics.say(f"{image.name} {image.id[:12]}: {said} ({image.path})")


@image.command()
@click.argument("name")
@click.option("--fresh", is_flag=True, help="Build with today's packages, even if an image of the recipe is there.")
@format_option
@click.pass_context
def build(ctx: click.Context, name: str, fresh: bool, output: str) -> None:
    """Build a Debian image (debian-12, debian-13) from this machine's own Debian mirrors."""
    with open_host(ctx) as host:
        _told(host.images.build(name, fresh=fresh, on_event=tell), output, "ready")


@image.command()
@click.argument("name")
@format_option
@click.pass_context
def pull(ctx: click.Context, name: str, output: str) -> None:
    """Download a distribution's cloud image; it is usable only after its checksum held."""
    with open_host(ctx) as host:
        _told(host.images.pull(name, on_event=tell), output, "ready")


@image.command()
@click.argument("name")
@format_option
@click.pass_context
def verify(ctx: click.Context, name: str, output: str) -> None:
    """Hash an image anew and inspect its header. Exits with 12 when it is not what it was."""
    with open_host(ctx) as host:
        _told(host.images.verify(name), output, "verified")


@image.command()
@click.argument("name")
@yes_option
@format_option
@click.pass_context
def delete(ctx: click.Context, name: str, yes: bool, output: str) -> int:
    """Delete an image that no guest uses."""
    if not consent(yes, f"Delete image {name}?"):
        return diagnostics.REFUSED
    with open_host(ctx) as host:
        _told(host.images.delete(name), output, "deleted")
    return 0
