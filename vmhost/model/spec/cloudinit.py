"""What cloud-init does in a guest at its first boot."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from vmhost.model.spec.base import Flag, GuestPath, Line, Matches, Model, SecretRef
from vmhost.model.units import shown

USER_DATA_LIMIT = 64 << 10
FILES_LIMIT = 1 << 20

_KEY = re.compile(r"((?:ssh|ecdsa|sk)-[A-Za-z0-9@.-]+) ([A-Za-z0-9+/]+={0,2})( [^\x00-\x1f\x7f-\x9f]*)?")


def _fields(blob: str) -> list[bytes]:
    """Return the fields of a public key, which are strings with their lengths (RFC 4253, 6.6); none when it is cut."""
    try:
        rest = base64.b64decode(blob, validate=True)
    except binascii.Error:
        return []
    fields = []
    while rest:
        length = int.from_bytes(rest[:4], "big")
        if len(rest) < 4 + length:
            return []
        fields.append(rest[4 : 4 + length])
        rest = rest[4 + length :]
    return fields


def _public_key(text: str) -> str:
    match = _KEY.fullmatch(text)
    fields = _fields(match.group(2)) if match else []
    if match is None or len(fields) < 2 or fields[0] != match.group(1).encode():
        raise ValueError(
            f"{shown(text)} is not an OpenSSH public key: write a line such as ssh-ed25519 AAAA... comment"
        )
    return text


def _command(value: Any) -> str | tuple[str, ...]:
    words = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, (list, tuple)) else ()
    if not words or not all(isinstance(word, str) and "\0" not in word for word in words) or not words[0].strip():
        raise ValueError(f"{shown(value)} is not a command: write a line for the shell, or a list of words")
    return value if isinstance(value, str) else words


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds halves of surrogate pairs, which are no text") from None
    return text


def _widen_user_data(value: Any) -> Any:
    return {"file": value} if isinstance(value, str) else value


_COMMAND_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
_ACCOUNT = r"[a-z_][a-z0-9_-]{0,31}"

Account = Annotated[str, Matches(_ACCOUNT, "a user name: up to 32 lower case letters, digits, '_' and '-'")]
Owner = Annotated[str, Matches(rf"{_ACCOUNT}(:{_ACCOUNT})?", "an owner: write user or user:group")]
PublicKey = Annotated[str, AfterValidator(_public_key)]
Mode = Annotated[str, Matches(r"0?[0-7]{3,4}", 'a mode: write for example "0644"')]
Text = Annotated[str, AfterValidator(_text)]
Command = Annotated[str | tuple[str, ...], BeforeValidator(_command), WithJsonSchema(_COMMAND_SCHEMA)]
Package = Annotated[str, Matches(r"[a-z0-9][a-z0-9+.:~=_-]{0,254}", "the name of a package")]
TimeZone = Annotated[str, Matches(r"[A-Za-z0-9_+/-]{1,64}", "a time zone such as Europe/Berlin")]


class UserSpec(Model):
    """An account in the guest. Over SSH it signs in by key, on the console by its ``password_hash``."""

    name: Account = Field(description="Name of the account.")
    ssh_keys: tuple[PublicKey, ...] = Field(default=(), description="Public keys that may sign in.")
    groups: tuple[Account, ...] = Field(default=(), description="Further groups; missing ones are made.")
    sudo: Flag = Field(default=False, description="May become root: without a password unless password_hash is given.")
    shell: GuestPath = Field(default="/bin/bash", description="Login shell.")
    password_hash: SecretRef | None = Field(
        default=None, description="Hash of the console's password (crypt(5)), by reference."
    )


class FileSpec(Model):
    """A file that is written at the first boot; its text is given here, or by reference when it is secret."""

    path: GuestPath = Field(description="Where it goes.")
    content: Text | None = Field(default=None, max_length=FILES_LIMIT, description="Its text.")
    secret: SecretRef | None = Field(
        default=None, description="Its text, by reference; never in a plan, log or journal."
    )
    mode: Mode = Field(default="0644", description="Permissions in octal, in quotes.")
    owner: Owner = Field(default="root:root", description="user or user:group.")

    @model_validator(mode="after")
    def _one_source(self) -> FileSpec:
        if (self.content is None) == (self.secret is None):
            raise ValueError("a file needs either content or secret, and not both")
        return self


class UserDataSpec(Model):
    """User-data of one's own, in any of cloud-init's formats, without secrets. ``user_data: PATH`` is short for a file.

    Where it and the rest say different things, it wins; lists (packages, files, commands) are joined, its own first.
    """

    file: Line | None = Field(default=None, description="A file beside the site file.")
    content: Text | None = Field(default=None, max_length=USER_DATA_LIMIT, description="Or the text itself.")

    @model_validator(mode="after")
    def _some_source(self) -> UserDataSpec:
        if self.file is None and self.content is None:
            raise ValueError("user_data needs file or content")
        return self


UserData = Annotated[UserDataSpec, BeforeValidator(_widen_user_data, json_schema_input_type=str | UserDataSpec)]


class CloudInitSpec(Model):
    """What cloud-init does at the first boot (cloudinit.readthedocs.io)."""

    user: Account = Field(default="vmhost", description="Account that vmhost itself signs in with; it has sudo.")
    ssh_keys: tuple[PublicKey, ...] = Field(default=(), description="Further public keys that may sign in to it.")
    users: tuple[UserSpec, ...] = Field(default=(), description="Further accounts.")
    packages: tuple[Package, ...] = Field(default=(), description="Packages to install; the guest needs its mirror.")
    package_update: Flag = Field(default=False, description="Fetch the lists of packages first.")
    files: tuple[FileSpec, ...] = Field(default=(), description="Files to write.")
    commands: tuple[Command, ...] = Field(
        default=(), description="Run in order as root, once; the first that fails ends them and is reported."
    )
    timezone: TimeZone | None = Field(default=None, description="Such as Europe/Berlin.")
    user_data: UserData | None = Field(default=None, description="User-data of one's own beside all this.")
