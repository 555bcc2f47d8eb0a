"""Operations in a guest as commands: data that can be printed; every value is an argument, none part of a script."""

from __future__ import annotations

import shlex
from typing import Final, assert_never

from vmhost.model.guestops import (
    ActOnUnit,
    GuestCommand,
    GuestOp,
    InstallPackages,
    MakeDirectory,
    MakeGroup,
    MakeLink,
    MakeUser,
    PutFile,
    RefreshPackages,
    ReloadUnits,
    RemoveDirectory,
    RemoveFile,
    RemoveGroup,
    RemovePackages,
    RemoveUser,
    SetOwnership,
    SetSysctl,
)

CHECK_FAILED: Final = 65
"""Exit code of ``vmhost-put`` when the file's own check did not like it."""

_APT: Final = (
    "env",
    "DEBIAN_FRONTEND=noninteractive",
    "apt-get",
    "-q",
    "-y",
    "-o",
    "DPkg::Lock::Timeout=120",
    "-o",
    "Dpkg::Options::=--force-confold",
    "-o",
    "APT::Install-Recommends=false",
)
_PACKAGES_TIMEOUT: Final = 900.0
_GONE: Final = (0, 6)
"""What userdel(8) and groupdel(8) end with where there is no such account or group."""

PUT: Final = r"""set -eu
path=$1 mode=$2 owner=$3 size=$4 sum=$5
shift 5
umask 077
new=
trap '[ -z "$new" ] || rm -f -- "$new"' EXIT
trap 'exit 130' HUP INT TERM
new=$(mktemp "$(dirname -- "$path")/.vmhost.XXXXXXXXXX")
cat >"$new"
[ "$(stat -c %s -- "$new")" = "$size" ] || { echo "the connection ended in the middle of it" >&2; exit 1; }
[ -z "$sum" ] || printf '%s  %s\n' "$sum" "$new" | sha256sum --check --status
chown -- "$owner" "$new"
chmod -- "$mode" "$new"
if [ $# -gt 0 ]; then
    left=$#
    while [ "$left" -gt 0 ]; do
        word=$1
        shift
        case $word in *"{file}"*) word=${word%%"{file}"*}$new${word#*"{file}"} ;; esac
        set -- "$@" "$word"
        left=$((left - 1))
    done
    "$@" >&2 </dev/null || exit 65
fi
sync -- "$new"
mv -fT -- "$new" "$path"
"""
"""Puts standard input in place as a file; arguments: path, mode, owner, size, SHA-256 or nothing, and its check."""

REMOVE: Final = f"""{shlex.join(_APT)} "$@" && exit 0
failed=$? verb=$1
shift 2
for name do
    case $verb:$(dpkg-query -W -f '${{db:Status-Status}}' -- "$name" 2>/dev/null) in
        *: | *:not-installed | remove:config-files) ;;
        *) exit "$failed" ;;
    esac
done
"""
"""Removes packages; arguments: ``remove`` or ``purge``, ``--`` and their names. APT does not know what is on no mirror:
where none of them is there any more, all is well."""

_NO_DIRECTORY: Final = 'if [ -e "$1" ] || [ -L "$1" ]; then rmdir -- "$1"; fi'
_OWN: Final = 'chown -- "$3" "$1" && chmod -- "$2" "$1"'
_SYSCTL: Final = 'printf "%s\\n" "$2" >"$1"'


def command_of(op: GuestOp) -> GuestCommand:  # noqa: C901 - one match over the closed union of operations
    """Return the command that does an operation."""
    match op:
        case RefreshPackages():
            return GuestCommand((*_APT, "update"), timeout=_PACKAGES_TIMEOUT)
        case InstallPackages(packages):
            words = ("--allow-downgrades", "--allow-change-held-packages", "install", "--", *packages)
            return GuestCommand((*_APT, *words), timeout=_PACKAGES_TIMEOUT)
        case RemovePackages(packages, purge):
            verb = "purge" if purge else "remove"
            return GuestCommand(("sh", "-c", REMOVE, "vmhost-remove", verb, "--", *packages), timeout=_PACKAGES_TIMEOUT)
        case MakeGroup(name):
            return GuestCommand(("groupadd", "--system", "--", name))
        case RemoveGroup(name):
            return GuestCommand(("groupdel", "--", name), good=_GONE)
        case MakeUser():
            return _make_user(op)
        case RemoveUser(name):
            return GuestCommand(("userdel", "--", name), good=_GONE)
        case MakeDirectory(path, mode, owner):
            user, _, group = owner.partition(":")
            words = ("-d", "-m", mode, "-o", user, "-g", group or user, "--", path)
            return GuestCommand(("install", *words))
        case RemoveDirectory(path):
            return GuestCommand(("sh", "-c", _NO_DIRECTORY, "vmhost-rmdir", path))
        case PutFile(path, mode, owner, data, sha256, check):
            arguments = (path, mode, owner, str(len(data)), sha256, *check)
            return GuestCommand(("sh", "-c", PUT, "vmhost-put", *arguments), data)
        case MakeLink(path, target):
            return GuestCommand(("ln", "-sfnT", "--", target, path))
        case SetOwnership(path, mode, owner):
            return GuestCommand(("sh", "-c", _OWN, "vmhost-own", path, mode, owner))
        case RemoveFile(path):
            return GuestCommand(("rm", "-f", "--", path))
        case SetSysctl(key, value):
            return GuestCommand(("sh", "-c", _SYSCTL, "vmhost-sysctl", sysctl_path(key), value))
        case ActOnUnit(unit, verb):
            return GuestCommand(("systemctl", "--no-ask-password", verb, "--", unit), timeout=180.0)
        case ReloadUnits():
            return GuestCommand(("systemctl", "daemon-reload"), timeout=120.0)
        case _:
            assert_never(op)


def _make_user(op: MakeUser) -> GuestCommand:
    group = ("--gid", op.group) if op.group else ("--user-group",)
    words = ("--system", *group, "--home-dir", op.home, "--no-create-home", "--shell", op.shell, "--", op.name)
    return GuestCommand(("useradd", *words))


def sysctl_path(key: str) -> str:
    """Return the file of a kernel parameter (sysctl(8): dots stand for slashes)."""
    return "/proc/sys/" + key.replace(".", "/")
