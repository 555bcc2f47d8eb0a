"""The scripts that run in guests, run here by the shell: when they fail, what was there stays, and nothing else."""

from __future__ import annotations

import getpass
import grp
import os
import signal
import subprocess
import time
from hashlib import sha256
from pathlib import Path

import pytest

from vmhost.drivers.command import Completed, run
from vmhost.model.guestops import (
    GuestCommand,
    InstallPackages,
    MakeLink,
    PutFile,
    RemoveDirectory,
    RemoveFile,
    RemoveGroup,
    RemovePackages,
    RemoveUser,
    SetOwnership,
)
from vmhost.render.guestcommands import CHECK_FAILED, command_of
from vmhost.render.guestfacts import ask_links, read_links

ME = f"{getpass.getuser()}:{grp.getgrgid(os.getgid()).gr_name}"
NASTY = ("plain", "two words", "'quo\"tes", "$(touch x)", "a;b", "-n", "new\nline", "*", "{file}x", "ü")


def put(path: Path, data: bytes = b"new\n", *, check: tuple[str, ...] = (), secret: bool = False) -> PutFile:
    return PutFile(str(path), "0640", ME, data, "" if secret else sha256(data).hexdigest(), check)


def sent(command: GuestCommand, data: bytes | None = None) -> Completed:
    return run(command.argv, input=command.input if data is None else data, timeout=20, check=False)


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("old", [None, b"old\n"])
def test_a_file_is_put_in_place_as_a_whole(tmp_path: Path, name: str, old: bytes | None) -> None:
    path = tmp_path / name
    if old is not None:
        path.write_bytes(old)
    assert sent(command_of(put(path, b"\0\xff" * 5000))).code == 0
    assert path.read_bytes() == b"\0\xff" * 5000
    assert path.stat().st_mode & 0o7777 == 0o640
    assert [item.name for item in tmp_path.iterdir()] == [name]


def test_a_check_sees_the_new_file_with_its_mode_and_the_old_one_still_there(tmp_path: Path) -> None:
    path, seen = tmp_path / "conf", tmp_path / "seen"
    path.write_bytes(b"old\n")
    check = ("sh", "-c", f'cat "$1" {path} > {seen}; stat -c %a "$1" >> {seen}', "check", "{file}")
    assert sent(command_of(put(path, check=check))).code == 0
    assert seen.read_text() == "new\nold\n640\n"
    assert path.read_bytes() == b"new\n"


def test_the_place_of_the_file_may_be_inside_a_word(tmp_path: Path) -> None:
    check = ("sh", "-c", 'test "${1#--conf=/}" != "$1" && test -f "${1#--conf=}"', "check", "--conf={file}")
    assert sent(command_of(put(tmp_path / "conf", check=check))).code == 0


@pytest.mark.parametrize("check", [("false", "{file}"), ("no-such-program", "{file}")])
def test_a_check_that_fails_leaves_the_old_file(tmp_path: Path, check: tuple[str, ...]) -> None:
    path = tmp_path / "conf"
    path.write_bytes(b"old\n")
    assert sent(command_of(put(path, check=check))).code == CHECK_FAILED
    assert path.read_bytes() == b"old\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("arrived", [b"", b"ne", b"new\nmore"])
@pytest.mark.parametrize("secret", [True, False])
def test_what_did_not_arrive_as_it_was_sent_never_goes_live(tmp_path: Path, arrived: bytes, secret: bool) -> None:
    """A connection that ends in the middle looks like the end of the input."""
    path = tmp_path / "conf"
    path.write_bytes(b"old\n")
    assert sent(command_of(put(path, secret=secret)), arrived).code != 0
    assert path.read_bytes() == b"old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_directory_and_a_strange_owner_change_nothing(tmp_path: Path) -> None:
    assert sent(command_of(put(tmp_path / "gone" / "conf"))).code != 0
    strange = PutFile(str(tmp_path / "conf"), "0640", "nobody-here:x", b"new\n")
    assert sent(command_of(strange)).code != 0
    assert list(tmp_path.iterdir()) == []


def test_a_symbolic_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"precious\n")
    link.symlink_to(target)
    assert sent(command_of(put(link))).code == 0
    assert not link.is_symlink()
    assert target.read_bytes() == b"precious\n"


def test_ended_by_a_signal_it_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "conf"
    path.write_bytes(b"old\n")
    command = command_of(put(path))
    with subprocess.Popen(command.argv, stdin=subprocess.PIPE) as process:
        until = time.monotonic() + 20
        while len(list(tmp_path.iterdir())) < 2:
            assert time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) != 0
    assert list(tmp_path.iterdir()) == [path]


def test_nobody_else_can_read_a_secret_for_a_moment(tmp_path: Path) -> None:
    """While the content comes, the file is its owner's alone."""
    command = command_of(put(tmp_path / "key", b"secret\n", secret=True))
    assert sha256(b"secret\n").hexdigest() not in command.argv
    with subprocess.Popen(command.argv, stdin=subprocess.PIPE) as process:
        until = time.monotonic() + 20
        while not (found := list(tmp_path.iterdir())):
            assert time.monotonic() < until
            time.sleep(0.01)
        assert found[0].stat().st_mode & 0o777 == 0o600
        process.communicate(b"secret\n", timeout=20)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o640


def test_a_symbolic_link_is_made_in_place_of_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "it's"
    path.write_bytes(b"x")
    for target in ("../a b", "-n"):
        assert sent(command_of(MakeLink(str(path), target))).code == 0
        assert str(path.readlink()) == target
    asked = run(ask_links([str(path)]).argv, timeout=20)
    assert read_links(asked.stdout, [str(path)]) == {str(path): "-n"}


def test_undoing_what_was_not_done_is_no_failure(tmp_path: Path) -> None:
    path = tmp_path / "it's"
    assert sent(command_of(RemoveDirectory(str(path)))).code == 0
    path.mkdir()
    (path / "x").touch()
    assert sent(command_of(RemoveDirectory(str(path)))).code != 0
    (path / "x").unlink()
    assert sent(command_of(RemoveDirectory(str(path)))).code == 0
    assert not path.exists()
    assert sent(command_of(RemoveFile(str(path)))).code == 0
    for absent in (RemoveGroup("vmhost-none"), RemoveUser("vmhost-none")):
        command = command_of(absent)
        assert sent(command).code in command.good


@pytest.mark.parametrize(
    ("verb", "known", "apt", "code"),
    [
        ("purge", "", 100, 0),
        ("purge", "not-installed", 100, 0),
        ("purge", "installed", 100, 100),
        ("purge", "config-files", 100, 100),
        ("remove", "config-files", 100, 0),
        ("remove", "installed", 0, 0),
    ],
)
def test_packages_that_nobody_knows_are_removed_already(
    tmp_path: Path, verb: str, known: str, apt: int, code: int
) -> None:
    for name, text in (("apt-get", f'echo "$@" >>"$0.log"; exit {apt}'), ("dpkg-query", f"echo {known}")):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    command = command_of(RemovePackages(("one", "two"), purge=verb == "purge"))
    path = f"PATH={tmp_path}:{os.environ['PATH']}"
    assert run(["env", path, *command.argv], timeout=20, check=False).code == code
    assert (tmp_path / "apt-get.log").read_text().endswith(f"{verb} -- one two\n")


def test_owner_and_mode_alone(tmp_path: Path) -> None:
    path = tmp_path / "it's"
    path.write_bytes(b"x")
    assert sent(command_of(SetOwnership(str(path), "0604", ME))).code == 0
    assert path.stat().st_mode & 0o777 == 0o604


def test_commands_are_printed_without_scripts_and_input() -> None:
    secret = command_of(PutFile("/etc/a b", "0600", "root:root", b"canary"))
    assert str(secret) == "vmhost-put '/etc/a b' 0600 root:root 6 '' < 6 bytes"
    assert "canary" not in repr(secret)
    assert "'nginx=1;x'" in str(command_of(InstallPackages(("nginx=1;x",))))
