"""A service inside guests: what it is made of there, how it is looked at, and what is done when it fails."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from vmhost.model.spec.base import Count, Flag, GuestPath, Identifier, Line, Matches, Model, Name, Seconds, SecretRef
from vmhost.model.spec.cloudinit import FILES_LIMIT, Account, Mode, Owner, Package, Text
from vmhost.model.units import shown

PLACE = "{file}"
"""Stands for the new file in its check."""

_UNIT = r"[A-Za-z0-9_][A-Za-z0-9:_.@\\-]{0,245}\.(service|socket|timer|path|target|mount)"


def _with_suffix(value: Any) -> Any:
    known = r"\.(service|socket|timer|path|target|mount)"
    return f"{value}.service" if isinstance(value, str) and not re.search(f"{known}$", value) else value


def _widen_unit(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _widen_port(value: Any) -> Any:
    return {"port": value} if isinstance(value, int) and not isinstance(value, bool) else value


def _word(text: str) -> str:
    if "\0" in text:
        raise ValueError("an argument cannot hold a NUL character")
    return text


def _program(words: tuple[str, ...]) -> tuple[str, ...]:
    if not words[0] or words[0].startswith("-"):
        raise ValueError(f"{shown(words[0])} is not a program: write a list that begins with one")
    return words


def _statuses(text: str) -> str:
    first, _, last = text.partition("-")
    if not 100 <= int(first) <= int(last or first) <= 599:
        raise ValueError(f"{shown(text)} is not a range of HTTP status codes: write for example 200-399")
    return text


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Port = Annotated[Count, Field(ge=1, le=65535)]
UnitName = Annotated[
    str,
    BeforeValidator(_with_suffix),
    Matches(_UNIT, "the name of a unit: letters, digits, ':', '_', '.', '@' and '-', such as nginx.service"),
]
Argv = Annotated[
    tuple[Annotated[Text, Field(max_length=65536), AfterValidator(_word)], ...],
    Field(min_length=1, max_length=256),
    AfterValidator(_program),
]
"""A program with its arguments, which no shell reads."""
Variable = Annotated[str, Matches(r"[A-Za-z_][A-Za-z0-9_]{0,254}", "the name of an environment variable")]
SysctlKey = Annotated[str, Matches(r"[a-z0-9_]+(\.[A-Za-z0-9_-]+)+", "a kernel parameter such as net.core.somaxconn")]
SysctlValue = Annotated[
    Line, Field(min_length=1), BeforeValidator(_as_text, json_schema_input_type=int | str), WithJsonSchema({})
]
Statuses = Annotated[
    str,
    BeforeValidator(_as_text, json_schema_input_type=int | str),
    Matches(r"[1-5][0-9][0-9](-[1-5][0-9][0-9])?", "an HTTP status code or a range of them, such as 200-399"),
    AfterValidator(_statuses),
]
Version = Annotated[str, Matches(r"[A-Za-z0-9][A-Za-z0-9.+:~_-]{0,62}", "a version such as 1.22"), Field()]


class UnitSpec(Model):
    """The systemd unit of a service; ``unit: nginx`` is one that a package brings."""

    name: UnitName = Field(description="Its name; .service if it has no suffix.")
    content: Text | None = Field(default=None, max_length=FILES_LIMIT, description="Its text, if it is one's own.")
    enabled: Flag = Field(default=True, description="Start with the guest.")
    state: Literal["running", "stopped"] = Field(default="running", description="Whether it is to run.")


Unit = Annotated[UnitSpec, BeforeValidator(_widen_unit, json_schema_input_type=str | UnitSpec)]


class ServiceFileSpec(Model):
    """A file of a service, put in place as a whole: readers see the old one or the new one."""

    path: GuestPath = Field(description="Where it goes.")
    content: Text | None = Field(default=None, max_length=FILES_LIMIT, description="Its text.")
    source: Line | None = Field(default=None, description="Or a file beside the site file that holds its text.")
    secret: SecretRef | None = Field(default=None, description="Or its text by reference, shown nowhere.")
    template: Flag = Field(default=False, description="The text is a Jinja2 template.")
    mode: Mode = Field(default="0644", description="Permissions in octal, in quotes.")
    owner: Owner = Field(default="root:root", description="user or user:group.")
    check: Argv | None = Field(
        default=None, description="Run before it goes live, with {file} for the new one; the old one stays on failure."
    )
    after: Literal["restart", "reload", "nothing"] = Field(
        default="restart", description="What the unit does when it has changed."
    )

    @field_validator("mode")
    @classmethod
    def _four_digits(cls, mode: str) -> str:
        return mode.rjust(4, "0")[-4:]

    @model_validator(mode="after")
    def _consistent(self) -> ServiceFileSpec:
        if (self.content is None) == (self.secret is None):
            raise ValueError("a file needs exactly one of content, source and secret")
        if self.template and self.secret is not None:
            raise ValueError("a secret is no template: it is written as it is")
        if self.check is not None and not any(PLACE in word for word in self.check):
            raise ValueError(f"check has to name the new file: write {PLACE} where it goes")
        return self


class DirectorySpec(Model):
    """A directory of a service."""

    path: GuestPath = Field(description="Where it is; directories above it must be there, or come before it.")
    mode: Mode = Field(default="0755", description="Permissions in octal, in quotes.")
    owner: Owner = Field(default="root:root", description="user or user:group.")

    @field_validator("mode")
    @classmethod
    def _four_digits(cls, mode: str) -> str:
        return mode.rjust(4, "0")[-4:]


class ServiceUserSpec(Model):
    """An account that a service runs as; nobody signs in to it."""

    name: Account = Field(description="Name of the account.")
    group: Account | None = Field(default=None, description="Its group; one of its own name if absent.")
    home: GuestPath = Field(default="/nonexistent", description="Its home, which is not made.")
    shell: GuestPath = Field(default="/usr/sbin/nologin", description="Its login shell.")


class TcpSpec(Model):
    """A TCP port that takes connections; ``tcp: 6379``."""

    port: Port = Field(description="The port.")


class HttpSpec(Model):
    """A request of HTTP that is answered as it should."""

    port: Port = Field(default=80, description="The port.")
    path: Annotated[Line, Field(pattern=r"^/")] = Field(default="/", description="What is asked for.")
    tls: Flag = Field(default=False, description="HTTPS.")
    host: Line | None = Field(default=None, description="The name that is asked for; the guest's address if absent.")
    status: Statuses = Field(default="200-399", description="Status codes that are good.")
    body: Line | None = Field(default=None, description="What the first 64 KiB of the answer must hold.")
    latency: Seconds | None = Field(default=None, description="How long the answer may take.")
    verify: Flag = Field(default=False, description="The certificate must be one that this host trusts.")
    days: Annotated[Count, Field(ge=1, le=3650)] | None = Field(
        default=None, description="How many days the certificate must still hold."
    )


Tcp = Annotated[TcpSpec, BeforeValidator(_widen_port, json_schema_input_type=int | TcpSpec)]
Http = Annotated[HttpSpec, BeforeValidator(_widen_port, json_schema_input_type=int | HttpSpec)]

KINDS = ("systemd", "tcp", "http", "command", "agent")


class ProbeSpec(Model):
    """A look at a service, again and again. Exactly one of systemd, tcp, http, command and agent says how."""

    systemd: Flag = Field(default=False, description="The unit is active.")
    tcp: Tcp | None = Field(default=None, description="A port takes connections.")
    http: Http | None = Field(default=None, description="A request is answered well.")
    command: Argv | None = Field(default=None, description="A command in the guest ends with 0.")
    agent: Flag = Field(default=False, description="The guest agent answers.")
    role: Literal["liveness", "readiness"] = Field(
        default="readiness", description="liveness: the service is healed when it fails; readiness: it is waited for."
    )
    source: Literal["host", "guest"] = Field(default="host", description="Where tcp and http connect from.")
    interval: Seconds = Field(default=10.0, description="Time between two looks.")
    timeout: Seconds = Field(default=5.0, description="How long a look may take.")
    failures: Annotated[Count, Field(ge=1, le=1000)] = Field(default=3, description="Bad looks until it is down.")
    successes: Annotated[Count, Field(ge=1, le=1000)] = Field(default=1, description="Good looks until it is up.")
    start_period: Seconds = Field(default=10.0, description="Time after a start in which bad looks do not count.")

    @property
    def kind(self) -> str:
        """Which of the kinds it is."""
        return next(kind for kind in KINDS if getattr(self, kind))

    @model_validator(mode="after")
    def _one_kind(self) -> ProbeSpec:
        given = [kind for kind in KINDS if getattr(self, kind)]
        if len(given) != 1:
            text = "needs one of" if not given else f"is {' and '.join(given)} at once: write one of"
            raise ValueError(f"a probe {text} {', '.join(KINDS)}")
        return self


class RestartSpec(Model):
    """What vmhost watch does when a liveness probe says that a service is down."""

    policy: Literal["never", "on-failure", "always"] = Field(
        default="never", description="on-failure: not when somebody stopped it; always: then, too."
    )
    backoff: Seconds = Field(default=5.0, description="Time to the second try; it doubles with each.")
    most: Seconds = Field(default=300.0, description="The longest time between two tries.")
    tries: Annotated[Count, Field(ge=1, le=1000)] = Field(default=5, description="Tries until it is given up.")
    quiet: Seconds = Field(default=600.0, description="Health for that long forgets earlier tries.")


class HooksSpec(Model):
    """Commands around a snapshot or a backup of the guest's disks."""

    pre_freeze: Argv | None = Field(default=None, description="Run before the file systems are frozen.")
    post_thaw: Argv | None = Field(default=None, description="Run after they have been thawed, in every case.")
    timeout: Seconds = Field(default=30.0, description="How long each of them may take.")


class ServiceSpec(Model):
    """A service: the same on each of its guests."""

    version: Version = Field(default="0", description="Its version, as people tell it.")
    env: Identifier = Field(default="prod", description="Its environment: prod, test, ...")
    guests: tuple[Name, ...] = Field(default=(), description="Guests that it runs in; of a counted one: all of them.")
    labels: dict[Identifier, Line] = Field(default={}, description="Or: guests that have these labels.")
    packages: tuple[Package, ...] = Field(default=(), description="Packages of Debian: name, or name=version.")
    groups: tuple[Account, ...] = Field(default=(), description="Groups to make.")
    users: tuple[ServiceUserSpec, ...] = Field(default=(), description="Accounts to make.")
    directories: tuple[DirectorySpec, ...] = Field(default=(), description="Directories to make.")
    files: tuple[ServiceFileSpec, ...] = Field(default=(), description="Files to write.")
    vars: dict[Identifier, Line | int | float | bool] = Field(default={}, description="Values for templates.")
    environment: dict[Variable, Text | SecretRef] = Field(
        default={}, description="Environment of the unit: text, or a secret by reference."
    )
    sysctl: dict[SysctlKey, SysctlValue] = Field(default={}, description="Parameters of the guest's kernel.")
    unit: Unit | None = Field(default=None, description="The systemd unit.")
    ports: tuple[Port, ...] = Field(default=(), description="TCP ports that it listens on.")
    probes: dict[Identifier, ProbeSpec] = Field(
        default={}, description="Looks at it; without any the unit and each port are looked at."
    )
    restart: RestartSpec = Field(default=RestartSpec(), description="What is done when it fails.")
    hooks: HooksSpec = Field(default=HooksSpec(), description="Commands around backups.")

    @model_validator(mode="after")
    def _consistent(self) -> ServiceSpec:
        if self.environment and self.unit is None:
            raise ValueError("environment is the unit's: name the unit")
        if self.unit is None and any(probe.systemd for probe in self.probes.values()):
            raise ValueError("a systemd probe looks at the unit: name the unit")
        return self


class FileState(Model):
    """A file as it should be, without its text: its SHA-256, or for a secret the reference."""

    path: GuestPath
    mode: Mode
    owner: Owner
    sha256: str = ""
    secret: str = ""
    check: tuple[str, ...] = ()
    after: Literal["restart", "reload", "nothing"] = "restart"


class ServiceState(Model):
    """All that a service should be in one guest, without any text or secret; kept in the guest and in its metadata."""

    name: Name
    version: str
    env: str
    packages: tuple[Package, ...] = ()
    groups: tuple[Account, ...] = ()
    users: tuple[ServiceUserSpec, ...] = ()
    directories: tuple[DirectorySpec, ...] = ()
    files: tuple[FileState, ...] = ()
    sysctl: dict[str, str] = {}
    unit: UnitSpec | None = None
    ports: tuple[int, ...] = ()
    probes: dict[str, ProbeSpec] = {}
    restart: RestartSpec = RestartSpec()
    hooks: HooksSpec = HooksSpec()
