"""The base of all models, the scalar types, and references to secrets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    Tag,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from vmhost.model import units


class Model(BaseModel):
    """Frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Matches:
    """An annotation of texts: what they must match as a whole, and the same rule in words for the message."""

    pattern: str
    words: str

    def check(self, text: str) -> str:
        """Return ``text`` when it matches. :raises ValueError: with the rule in words."""
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"{units.shown(text)} is not {self.words}")
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(core), "pattern": f"^({self.pattern})$"}


def empty_if_absent(value: Any) -> Any:
    """Return an empty mapping for null: ``web-01:`` alone is a guest that has everything from the defaults."""
    return {} if value is None else value


def _as_size(value: Any) -> int:
    if not isinstance(value, (int, str)) or isinstance(value, bool):
        raise ValueError(f"{units.shown(value)} is not a size: write for example 512M, 4G or 4GB (decimal)")
    return units.parse_size(value)


def _as_seconds(value: Any) -> float:
    if not isinstance(value, (int, float, str)) or isinstance(value, bool):
        raise ValueError(f"{units.shown(value)} is not a duration: write for example 90s, 5m or 1h")
    return units.parse_duration(value)


def _as_age(value: Any) -> float:
    if not isinstance(value, (int, float, str)) or isinstance(value, bool):
        raise ValueError(f"{units.shown(value)} is not an age: write for example 90m, 26h, 7d or 4w")
    return units.parse_age(value)


def _between(low: int, high: int) -> Callable[[int], int]:
    """Return a check of a size in bytes, which rounds it up to whole MiB: libvirt and qcow2 would do so anyway."""

    def check(size: int) -> int:
        if size < low:
            bare = " (a bare number is bytes)" if size < units.MIB else ""
            raise ValueError(f"{units.format_size(size)} is too small{bare}: at least {units.format_size(low)}")
        if size > high:
            raise ValueError(f"{units.format_size(size)} is too large: at most {units.format_size(high)}")
        return -(-size // units.MIB) * units.MIB

    return check


def no_control(text: str) -> str:
    """Return ``text`` when it holds no control characters.

    :raises ValueError: otherwise.
    """
    if any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text):
        raise ValueError(f"{units.shown(text)} holds control characters, which are not allowed here")
    return text


def _absolute(path: str) -> str:
    if not path.startswith("/") or path.endswith("/") or {".", "..", ""} & set(path.split("/")[1:]):
        raise ValueError(f"{units.shown(path)} is not a plain absolute path such as /etc/motd")
    return no_control(path)


def _as_rate(value: Any) -> int:
    if not isinstance(value, str):
        raise ValueError(
            f"{units.shown(value)} is not a rate: write for example 10Mbit, 2.5Gbit or 500kbit (per second)"
        )
    return units.parse_rate(value)


_RATE_SCHEMA = {"type": "string", "examples": ["10Mbit", "2.5Gbit", "500kbit"]}
_SIZE_SCHEMA = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "examples": ["512M", "4G"]}]}
_TIME_SCHEMA = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "examples": ["90s", "5m"]}]}
_AGE_SCHEMA = {"anyOf": [{"type": "number", "minimum": 60}, {"type": "string", "examples": ["26h", "7d", "4w"]}]}

Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True)]
Name = Annotated[str, Matches(units.NAME_PATTERN, f"a name: {units.NAME_RULE}")]
LinkName = Annotated[str, Matches(units.LINK_PATTERN, f"a link name: {units.LINK_RULE}")]
Identifier = Annotated[
    str,
    Matches(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", "an id: up to 32 letters, digits, '_' and '-', a letter or digit first"),
]
Mac = Annotated[str, AfterValidator(units.parse_mac)]
Size = Annotated[int, BeforeValidator(_as_size), WithJsonSchema(_SIZE_SCHEMA)]
HostMemory = Annotated[Size, AfterValidator(_between(units.MIB, 16 << 40))]
GuestMemory = Annotated[Size, AfterValidator(_between(64 * units.MIB, 16 << 40))]
ByteRate = Annotated[Size, AfterValidator(_between(4096, 1 << 40))]
DiskSize = Annotated[Size, AfterValidator(_between(units.MIB, 1 << 50))]
Age = Annotated[float, BeforeValidator(_as_age), WithJsonSchema(_AGE_SCHEMA)]
Seconds = Annotated[float, BeforeValidator(_as_seconds), WithJsonSchema(_TIME_SCHEMA)]
Rate = Annotated[
    int, BeforeValidator(_as_rate), PlainSerializer(units.format_rate, return_type=str), WithJsonSchema(_RATE_SCHEMA)
]
"""Bits a second; written, and written back, with its unit."""
Line = Annotated[str, Field(max_length=4096), AfterValidator(no_control)]
GuestPath = Annotated[str, Field(max_length=4096), AfterValidator(_absolute)]


class FileRef(Model):
    """A secret in a file of the host that only its owner may read (mode 0600 or 0400); relative to the site file."""

    file: Annotated[Line, Field(min_length=1, description="Path on the host.")]

    def key(self) -> str:
        """Return the name under which the value travels; it says where the secret is, never what."""
        return f"file:{self.file}"


class EnvRef(Model):
    """A secret in an environment variable of whoever runs vmhost."""

    env: Annotated[str, Matches(r"[A-Za-z_][A-Za-z0-9_]{0,254}", "the name of an environment variable")] = Field(
        description="Name of the variable."
    )

    def key(self) -> str:
        """Return the name under which the value travels."""
        return f"env:{self.env}"


class CommandRef(Model):
    """A secret that a program prints on its standard output; run without a shell."""

    command: Annotated[tuple[Line, ...], Field(min_length=1, description="The program and its arguments.")]

    def key(self) -> str:
        """Return the name under which the value travels; quoted, so that different commands have different names."""
        return f"command:{shlex.join(self.command)}"


class CredentialRef(Model):
    """A systemd credential: a file in ``$CREDENTIALS_DIRECTORY`` (systemd.exec(5), LoadCredential=)."""

    credential: Annotated[Name, Field(description="Name of the credential.")]

    def key(self) -> str:
        """Return the name under which the value travels."""
        return f"credential:{self.credential}"


_KINDS = ("file", "env", "command", "credential")


def _kind(value: Any) -> str | None:
    """Return which kind of reference a value is, so that only that kind's faults are reported."""
    keys = value.keys() if isinstance(value, dict) else type(value).model_fields if isinstance(value, Model) else ()
    return next((kind for kind in _KINDS if kind in keys), None)


SecretRef = Annotated[
    Annotated[FileRef, Tag("file")]
    | Annotated[EnvRef, Tag("env")]
    | Annotated[CommandRef, Tag("command")]
    | Annotated[CredentialRef, Tag("credential")],
    Discriminator(
        _kind,
        custom_error_type="secret_kind",
        custom_error_message="a secret is given by reference: file, env, command or credential",
    ),
]
