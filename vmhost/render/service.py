"""From a service's spec to what it should be in one guest: its state without texts, and the texts of its files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from jinja2 import StrictUndefined, TemplateSyntaxError
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from vmhost.model.errors import UsageError
from vmhost.model.services import DeployedService
from vmhost.model.spec import SecretRef
from vmhost.model.spec.service import (
    FileState,
    ProbeSpec,
    ServiceFileSpec,
    ServiceSpec,
    ServiceState,
    TcpSpec,
    UnitSpec,
)

FORMAT: Final = 1
MANIFESTS: Final = "/var/lib/vmhost/services"
ENVIRONMENTS: Final = "/etc/vmhost/env"


@dataclass(frozen=True, slots=True)
class Place:
    """What a template may know of the guest that it is rendered for."""

    name: str
    address: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Desired:
    """What a service should be in one guest; ``texts`` holds every file's bytes by its path.

    For a way back: ``versions`` are the very versions of packages that the state does not pin, ``former`` is a state
    that is there in part, whatever the guest's manifest says. ``gone``: nothing should be left of the service, of which
    the state only says what it was called.
    """

    state: ServiceState
    texts: Mapping[str, bytes] = field(repr=False)
    versions: Mapping[str, str] = field(default_factory=dict)
    former: ServiceState | None = None
    gone: bool = False

    @property
    def sha256(self) -> str:
        """What the state is known by."""
        return digest(self.state)


def desired(name: str, spec: ServiceSpec, place: Place, secrets: Mapping[str, str]) -> Desired:
    """Return what a service should be in a guest.

    :param secrets: the values of its references by their keys.
    :raises UsageError: a template is wrong, or uses what does not exist; with its line.
    """
    files: list[FileState] = []
    texts: dict[str, bytes] = {}

    def add(state: FileState, text: bytes) -> None:
        known = "" if state.secret else sha256(text).hexdigest()
        files.append(state.model_copy(update={"sha256": known}))
        texts[state.path] = text

    for state, text in _generated(name, spec, secrets):
        add(state, text)
    for file in spec.files:
        add(_file(file), _text(name, spec, file, place, secrets))
    return Desired(_state(name, spec, tuple(files)), texts)


def _state(name: str, spec: ServiceSpec, files: tuple[FileState, ...]) -> ServiceState:
    unit = spec.unit.model_copy(update={"content": None}) if spec.unit else None
    return ServiceState(
        name=name,
        version=spec.version,
        env=spec.env,
        packages=spec.packages,
        groups=spec.groups,
        users=spec.users,
        directories=spec.directories,
        files=files,
        sysctl=spec.sysctl,
        unit=unit,
        ports=spec.ports,
        probes=spec.probes or dict(_usual_probes(spec.unit, spec.ports)),
        restart=spec.restart,
        hooks=spec.hooks,
    )


def _usual_probes(unit: UnitSpec | None, ports: tuple[int, ...]) -> Iterator[tuple[str, ProbeSpec]]:
    if unit is not None and unit.state == "running":
        yield "unit", ProbeSpec(systemd=True, role="liveness")
    for port in ports if unit is None or unit.state == "running" else ():
        yield f"port-{port}", ProbeSpec(tcp=TcpSpec(port=port))


def _file(file: ServiceFileSpec) -> FileState:
    owner = file.owner if ":" in file.owner else f"{file.owner}:{file.owner}"
    return FileState(
        path=file.path,
        mode=file.mode,
        owner=owner,
        secret=file.secret.key() if file.secret else "",
        check=file.check or (),
        after=file.after,
    )


def _text(name: str, spec: ServiceSpec, file: ServiceFileSpec, place: Place, secrets: Mapping[str, str]) -> bytes:
    if file.secret is not None:
        return secrets[file.secret.key()].encode()
    text = file.content or ""
    if not file.template:
        return text.encode()
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    service = {"name": name, "version": spec.version, "env": spec.env}
    guest = {"name": place.name, "address": place.address, "labels": dict(place.labels)}
    try:
        return environment.from_string(text).render(service=service, guest=guest, vars=spec.vars).encode()
    except TemplateSyntaxError as error:
        raise _wrong(file.path, f"line {error.lineno}: {error.message}") from error
    except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise _wrong(file.path, str(error) or type(error).__name__) from error


def _wrong(path: str, text: str) -> UsageError:
    hint = "known in templates: service.name, .version, .env; guest.name, .address, .labels; vars.NAME"
    return UsageError(f"its template is wrong: {text}", subject=path, hint=hint)


def _generated(name: str, spec: ServiceSpec, secrets: Mapping[str, str]) -> Iterator[tuple[FileState, bytes]]:
    """Yield the files that follow from other keys: kernel parameters, the unit's text, its environment."""
    root = {"mode": "0644", "owner": "root:root"}
    if spec.sysctl:
        lines = "".join(f"{key} = {value}\n" for key, value in spec.sysctl.items())
        yield FileState(path=f"/etc/sysctl.d/60-vmhost-{name}.conf", after="nothing", **root), lines.encode()
    if spec.unit is None:
        return
    if spec.unit.content is not None:
        yield FileState(path=f"/etc/systemd/system/{spec.unit.name}", **root), spec.unit.content.encode()
    if spec.environment:
        references = [value.key() for value in spec.environment.values() if not isinstance(value, str)]
        values = {key: value if isinstance(value, str) else secrets[value.key()] for key, value in _items(spec)}
        text = "".join(f"{key}={_quoted(value)}\n" for key, value in values.items())
        path = f"{ENVIRONMENTS}/{name}.env"
        yield FileState(path=path, mode="0600", owner="root:root", secret=", ".join(references)), text.encode()
        drop_in = f"/etc/systemd/system/{spec.unit.name}.d/50-vmhost-{name}.conf"
        yield FileState(path=drop_in, **root), f"[Service]\nEnvironmentFile={path}\n".encode()


def _items(spec: ServiceSpec) -> Iterator[tuple[str, str | SecretRef]]:
    yield from spec.environment.items()


def _quoted(value: str) -> str:
    """Quote a value for EnvironmentFile= (systemd.exec(5)): in double quotes a backslash keeps what follows."""
    escaped = value
    for char in '\\"$`':
        escaped = escaped.replace(char, f"\\{char}")
    return f'"{escaped}"'


def service_secrets(spec: ServiceSpec) -> Iterator[SecretRef]:
    """Yield the references to secrets of a service."""
    yield from (file.secret for file in spec.files if file.secret is not None)
    yield from (value for value in spec.environment.values() if not isinstance(value, str))


def digest(state: ServiceState) -> str:
    """Return the SHA-256 of a state, the same for equal ones."""
    return sha256(canonical(state).encode()).hexdigest()


def canonical(state: ServiceState) -> str:
    """Return a state as JSON in one form; what has its default is left out, so that new keys change nothing."""
    return _json(state.model_dump(mode="json", exclude_defaults=True))


def read_state(text: str) -> ServiceState | None:
    """Return the state that JSON holds, or None when it is a newer vmhost's."""
    try:
        return ServiceState.model_validate_json(text)
    except ValueError:
        return None


def state_of(deployed: DeployedService) -> ServiceState | None:
    """Return the desired state of a deployed service, or None when a newer vmhost wrote it."""
    return read_state(deployed.state)


def manifest_path(name: str) -> str:
    """Return where a guest keeps what a service in it should be."""
    return f"{MANIFESTS}/{name}.json"


def previous_path(name: str) -> str:
    """Return where a guest keeps what it was before a roll."""
    return f"{MANIFESTS}/{name}.previous.json"


def manifest(wanted: Desired) -> bytes:
    """Return what the guest keeps: the state, its SHA-256, and the checksums of secret files, for root alone."""
    sealed = {file.path: sha256(wanted.texts[file.path]).hexdigest() for file in wanted.state.files if file.secret}
    document = {
        "format": FORMAT,
        "sha256": wanted.sha256,
        "state": json.loads(canonical(wanted.state)),
        "sealed": sealed,
    }
    return f"{_json(document)}\n".encode()


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a guest keeps of a service: its state, and the checksums of its secret files."""

    state: ServiceState
    sha256: str
    sealed: Mapping[str, str]


def read_manifest(text: str) -> Manifest | None:
    """Return what a guest keeps, or None when that is damaged or a newer vmhost's."""
    try:
        data: Any = json.loads(text)
        if data["format"] != FORMAT:
            return None
        state = ServiceState.model_validate_json(_json(data["state"]))
        return Manifest(state, str(data["sha256"]), {str(k): str(v) for k, v in data["sealed"].items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
