"""Secrets where people keep them: files, the environment, programs, systemd credentials.

No message here contains a secret, nor what a program said while it was asked for one.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol, assert_never

from vmhost.drivers import command
from vmhost.model.errors import Absent, DriverError, PermissionDenied
from vmhost.model.spec import CommandRef, CredentialRef, EnvRef, FileRef, SecretRef

LARGEST: Final = 1 << 20
TIMEOUT: Final = 30.0
SHORTER: Final = "keep it as one short text in UTF-8, then try again"
"""Seconds that a program may take to print a secret."""


class Run(Protocol):
    """What is needed of :func:`vmhost.drivers.command.run`."""

    def __call__(self, argv: tuple[str, ...], /, *, timeout: float, cap: int) -> command.Completed: ...


class SecretReader:
    """Reads secrets by reference.

    :param run: starts programs; :func:`vmhost.drivers.command.run` unless a test has its own.
    :param environment: where variables are looked up; the process's own if None.
    """

    def __init__(self, run: Run | None = None, environment: Mapping[str, str] | None = None) -> None:
        self._run: Run = run or command.run
        self._environment = os.environ if environment is None else environment

    def read(self, reference: SecretRef) -> str:
        """Return a secret; one line break at its end, which editors and programs add, is not part of it.

        :raises Absent: the file, variable, program or credential is not there.
        :raises PermissionDenied: the file can be read by others, belongs to somebody else, or may not be read by us.
        :raises DriverError: the program failed, or the secret is empty, too long or not UTF-8 text.
        """
        match reference:
            case FileRef():
                data = _read_file(Path(reference.file), private=True)
            case EnvRef():
                data = self._variable(reference.env)
            case CommandRef():
                data = self._output(reference.command)
            case CredentialRef():
                data = self._credential(reference.credential)
            case _:
                assert_never(reference)
        return _text(data, reference.key())

    def _variable(self, name: str) -> bytes:
        value = self._environment.get(name)
        if value is None:
            raise Absent("this environment variable is not set", subject=name, hint=f"read -rs {name} && export {name}")
        return os.fsencode(value)

    def _output(self, argv: tuple[str, ...]) -> bytes:
        try:
            return self._run(argv, timeout=TIMEOUT, cap=LARGEST).stdout
        except command.CommandFailed as error:
            what = "took too long or said too much" if error.code is None else command.in_words(error.code)
            raise DriverError(f"gave no secret: {what}", subject=argv[0], hint=shlex.join(argv)) from None

    def _credential(self, name: str) -> bytes:
        directory = self._environment.get("CREDENTIALS_DIRECTORY")
        if not directory:
            hint = f"systemd-run --pty -p LoadCredential={name}:/path/to/{name} vmhost ..."
            raise Absent("there are no systemd credentials here", subject=name, hint=hint)
        return _read_file(Path(directory) / name, private=False)


def _read_file(path: Path, *, private: bool) -> bytes:
    """Return a file's content; the file that is checked is the one that is read, whatever happens to its name."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        raise Absent(
            "there is no such file", subject=str(path), hint=f"install -m 0600 /dev/stdin {_quoted(path)}"
        ) from None
    except PermissionError:
        raise PermissionDenied("this file may not be read", subject=str(path), hint=f"ls -l {_quoted(path)}") from None
    except OSError as error:
        raise DriverError(
            f"cannot be read: {error.strerror}", subject=str(path), hint=f"ls -l {_quoted(path)}"
        ) from None
    try:
        _check(os.fstat(descriptor), path, private=private)
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(LARGEST + 1)
    finally:
        os.close(descriptor)


def _check(status: os.stat_result, path: Path, *, private: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise DriverError("is not a regular file", subject=str(path), hint=f"ls -ld {_quoted(path)}")
    if not private:
        return
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o177:
        text = f"has mode {mode:04o}: only its owner may have access to a secret"
        raise PermissionDenied(text, subject=str(path), hint=f"chmod 0600 {_quoted(path)}")
    if status.st_uid not in (0, os.geteuid()):
        text = "belongs to somebody else, who may change the secret"
        raise PermissionDenied(text, subject=str(path), hint=f"chown {os.geteuid()} {_quoted(path)}")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _text(data: bytes, subject: str) -> str:
    if len(data) > LARGEST:
        raise DriverError("is larger than 1 MiB", subject=subject, hint=SHORTER)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise DriverError("is not UTF-8 text", subject=subject, hint=SHORTER) from None
    text = text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")
    if not text or "\0" in text:
        raise DriverError("is empty" if not text else "holds a NUL character", subject=subject, hint=SHORTER)
    return text
