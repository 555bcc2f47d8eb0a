"""Recipes: what an image is made from, and that its identity follows from all of it and nothing else."""

from __future__ import annotations

import io
import os
import tarfile
from dataclasses import fields, replace
from pathlib import Path

import pytest

from vmhost.drivers.command import run
from vmhost.drivers.images.mirrors import AptSource, parse_targets, sources_file, sources_for
from vmhost.drivers.images.recipe import Recipe, RecipeFile, load, names
from vmhost.drivers.images.rootfs import archive_of
from vmhost.model.errors import NotFound

# --- recipes ----------------------------------------------------------------------------------------------------------


def test_releases_and_any_suite_have_recipes() -> None:
    assert names() == ("debian-11", "debian-12", "debian-13")
    assert load("debian-12").suite == "bookworm"
    assert load("debian-13").suite == "trixie"
    assert load("debian-sid").suite == "sid"
    assert load("debian-bookworm").suite == "bookworm"


@pytest.mark.parametrize(
    "name", ["", "debian", "debian-", "debian-99", "ubuntu-24.04", "debian-../x", "debian-Sid", "debian-a b", "x\x1b"]
)
def test_other_names_are_not_found_and_shown_safely(name: str) -> None:
    with pytest.raises(NotFound) as error:
        load(name)
    assert str(error.value).isprintable()


def test_the_recipe_holds_what_a_guest_needs() -> None:
    recipe = load("debian-12")
    needed = {"cloud-init", "openssh-server", "qemu-guest-agent", "cloud-guest-utils", "linux-image-cloud-amd64"}
    assert needed <= set(recipe.packages)
    early = {file.path for file in recipe.early}
    assert {"etc/fstab", "etc/qemu/qemu-ga.conf", "usr/lib/vmhost/thaw"} <= early
    assert {file.path for file in recipe.late} == {"boot/grub/grub.cfg", "boot/efi/EFI/debian/grub.cfg"}


def test_a_suite_without_a_package_gets_none() -> None:
    assert "systemd-resolved" in load("debian-12").packages
    assert "systemd-resolved" not in load("debian-11").packages


def test_the_identity_is_stable_and_of_the_recipe_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = load("debian-12").id
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    os.umask(os.umask(0o077))
    assert load("debian-12").id == first
    assert len(first) == 64


def _changed(recipe: Recipe, name: str) -> Recipe:
    value = getattr(recipe, name)
    match value:
        case str():
            return replace(recipe, **{name: value + "x"})
        case bytes():
            return replace(recipe, **{name: value + b"\n"})
        case int():
            return replace(recipe, **{name: value + 1})
        case tuple():
            extra = "less" if name == "packages" else RecipeFile("etc/motd", b"hello\n")
            return replace(recipe, **{name: (*value, extra)})
    raise AssertionError(name)


@pytest.mark.parametrize("name", [field.name for field in fields(Recipe)])
def test_every_part_of_a_recipe_changes_its_identity(name: str) -> None:
    recipe = load("debian-12")
    assert _changed(recipe, name).id != recipe.id


def test_one_byte_or_one_mode_of_a_file_changes_the_identity() -> None:
    recipe = load("debian-12")
    first, *others = recipe.early
    assert replace(recipe, early=(RecipeFile(first.path, first.data + b"#"), *others)).id != recipe.id
    assert replace(recipe, early=(RecipeFile(first.path + "2", first.data), *others)).id != recipe.id


def test_the_order_of_packages_does_not_matter() -> None:
    recipe = load("debian-12")
    assert replace(recipe, packages=recipe.packages[::-1]).id == recipe.id


def test_scripts_are_executable_and_nothing_else_is() -> None:
    modes = {file.path: file.mode for file in load("debian-12").early}
    assert modes["usr/lib/vmhost/thaw"] == 0o755
    assert modes["etc/fstab"] == 0o644


@pytest.mark.parametrize("file", [file for file in load("debian-12").early if file.mode == 0o755], ids=lambda f: f.path)
def test_scripts_are_sound_for_the_shell_that_runs_them(file: RecipeFile, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_bytes(file.data)
    run(["sh", "-n", str(script)], timeout=10)


def test_customize_is_sound_for_sh(tmp_path: Path) -> None:
    script = tmp_path / "customize.sh"
    script.write_bytes(load("debian-12").customize)
    run(["sh", "-n", str(script)], timeout=10)


def test_files_travel_as_roots_with_plain_permissions() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive_of(load("debian-12").early))) as archive:
        entries = {entry.name: entry for entry in archive}
    thaw = entries["usr/lib/vmhost/thaw"]
    assert (thaw.uid, thaw.gid, thaw.mode, thaw.mtime) == (0, 0, 0o755, 0)
    assert all(entry.isfile() for entry in entries.values())
    assert archive_of(load("debian-12").early) == archive_of(load("debian-12").early)


# --- mirrors ----------------------------------------------------------------------------------------------------------

HOST = """\
http://mirror.example/debian/|bookworm|Debian
http://mirror.example/debian/|bookworm-updates|Debian
http://mirror.example/debian-security/|bookworm-security|Debian
http://mirror.example/debian/|bookworm-backports|Debian
https://apt.example/node/|nodistro|Node
https://mirror.example/private/debian/|bookworm|$(ORIGIN)
"""


def test_sources_are_taken_from_what_apt_says_of_debian() -> None:
    found = parse_targets(HOST.splitlines())
    assert AptSource("https://apt.example/node", "nodistro") not in found
    assert AptSource("https://mirror.example/private/debian", "bookworm") in found
    assert len(found) == 5


def test_another_suite_comes_from_the_same_mirrors() -> None:
    host = parse_targets(HOST.splitlines()[:4])
    assert sources_for("trixie", host) == (
        AptSource("http://mirror.example/debian", "trixie"),
        AptSource("http://mirror.example/debian", "trixie-updates"),
        AptSource("http://mirror.example/debian-security", "trixie-security"),
    )
    assert sources_for("sid", host) == (AptSource("http://mirror.example/debian", "sid"),)
    assert sources_for("trixie", ()) == ()


def test_hosts_that_name_their_release_by_its_role_are_understood() -> None:
    host = (AptSource("http://mirror.example/debian", "stable"), AptSource("http://s.example/d", "stable-security"))
    assert [source.suite for source in sources_for("bookworm", host)] == ["bookworm", "bookworm-security"]


def test_the_sources_name_the_packaged_keyring() -> None:
    text = sources_file([AptSource("http://mirror.example/debian", "bookworm")])
    assert "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n" in text
    assert "URIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n" in text


# --- the catalogue of what goes into cloud-init -----------------------------------------------------------------------


def test_the_settings_of_cloud_init_have_a_datasource_list_that_ds_identify_reads() -> None:
    """ds-identify is a shell script and reads the list only if it stands on one line."""
    text = next(file for file in load("debian-12").early if file.path.endswith("95_vmhost.cfg")).data.decode()
    assert "datasource_list: [NoCloud, None]" in text.splitlines()
