"""NoCloud seeds: what a guest learns at its first boot (cloudinit.readthedocs.io, "NoCloud").

The documents are JSON. Where a secret belongs stands a token, so that documents can be planned, shown, stored and
compared; :func:`seed_files` fills the tokens while the image is made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from email.encoders import encode_base64
from email.mime.multipart import MIMEMultipart
from email.mime.nonmultipart import MIMENonMultipart
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from vmhost.model.errors import Fault, SpecError, UsageError, VmhostError
from vmhost.model.identity import GuestIdentity
from vmhost.model.spec import FileSpec, GuestSpec, NetworkSpec, SecretRef, UserSpec
from vmhost.model.units import hostname_of, shown
from vmhost.render.cloudconfig import CLOUD_CONFIG
from vmhost.render.jsontext import to_json
from vmhost.render.netconfig import ethernets

if TYPE_CHECKING:
    from vmhost.render.templates import Templates

FINISHED: Final = "vmhost: cloud-init finished"
"""What a guest says on its console when cloud-init has ended, whether well or not."""

_TOKEN = re.compile(r"<vmhost-secret (.+)>", re.DOTALL)
_HOST_KEY: Final = "host-key:"
_LASTING: Final = ("hostname", "fqdn", "manage_etc_hosts", "growpart", "resize_rootfs", "output", "final_message")
_MERGE: Final = "dict(no_replace,recurse_list)+list(append)+str()"


@dataclass(frozen=True, slots=True)
class SeedDocuments:
    """The documents of a seed as JSON with tokens, and the person's own user-data as it is, or empty."""

    meta_data: str
    user_data: str
    network_config: str
    extra_user_data: str = ""


def secret_token(key: str) -> str:
    """Return what stands in a document for the secret of that key."""
    return f"<vmhost-secret {key}>"


def host_key_secret(uuid: str) -> str:
    """Return the key of the secret that is a guest's private SSH host key."""
    return f"{_HOST_KEY}{uuid}"


def secret_references(spec: GuestSpec) -> tuple[tuple[str, SecretRef], ...]:
    """Return the references to all secrets that a guest's seed needs, each with its place in words."""
    seed = spec.cloud_init
    found = [(f"password_hash of user {user.name}", user.password_hash) for user in seed.users]
    found += [(f"secret of file {file.path}", file.secret) for file in seed.files]
    return tuple((place, reference) for place, reference in found if reference is not None)


def render_seed(
    spec: GuestSpec,
    identity: GuestIdentity,
    networks: Mapping[str, NetworkSpec],
    *,
    login_key: str,
    templates: Templates,
) -> SeedDocuments:
    """Return the documents of a guest's first seed.

    :param networks: the site's networks; every network of the spec's NICs is among them.
    :param login_key: the public line of the key that vmhost signs in with.
    :param templates: ``meta-data.j2``, ``user-data.j2`` and ``network-config.j2``.
    :raises SpecError: a text of the spec is a token of ours.
    :raises UsageError: a template is wrong, or what it makes is not JSON.
    """
    _refuse_tokens(spec)
    hostname, seed = hostname_of(spec.name), spec.cloud_init
    search = next((networks[nic.network].search for nic in spec.nics if networks[nic.network].search), ())
    user_data = _document(
        templates,
        "user-data.j2",
        hostname=hostname,
        fqdn=f"{hostname}.{search[0]}" if search else hostname,
        users=[_login(spec, login_key), *map(_user, seed.users)],
        host_key_private=secret_token(host_key_secret(identity.uuid)),
        host_key_public=identity.host_key,
        files=[_file(file) for file in seed.files],
        packages=seed.packages,
        package_update=seed.package_update,
        commands=["set -e", *seed.commands] if seed.commands else [],
        timezone=seed.timezone or "",
        finished=FINISHED,
    )
    return SeedDocuments(
        meta_data=_document(templates, "meta-data.j2", instance_id=identity.instance_id, hostname=hostname),
        user_data=user_data,
        network_config=_document(templates, "network-config.j2", ethernets=ethernets(spec, identity, networks)),
        extra_user_data=(seed.user_data and seed.user_data.content) or "",
    )


def scrubbed(documents: SeedDocuments) -> SeedDocuments:
    """Return documents with the same instance-id and without secrets, for every boot after the first.

    Kept is what cloud-init does at every boot: the host name, growing the root file system, its last word on the
    console, and the person's own user-data (its ``bootcmd``, for one), which holds no secrets by the site file's rules.
    """
    first = json.loads(documents.user_data)
    lasting = {key: first[key] for key in _LASTING if key in first}
    return replace(documents, user_data=to_json(lasting))


def fill_secrets(document: str, secrets: Mapping[str, str]) -> str:
    """Return a JSON document with every text that is a token, as a whole, replaced by its secret.

    A secret cannot change the document's structure, and what looks like a token inside a longer text or in a key stays.

    :raises VmhostError: a secret is not among ``secrets``; the message names its key only.
    """
    return to_json(_filled(json.loads(document), secrets))


def seed_files(documents: SeedDocuments, secrets: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files of a seed by name.

    A person's own user-data comes first in a MIME message, ours second with a merge type that lets the first win and
    joins lists (cloudinit.readthedocs.io, "Merging user-data sections").

    :raises VmhostError: as :func:`fill_secrets`.
    """
    config = f"{CLOUD_CONFIG}\n{fill_secrets(documents.user_data, secrets)}"
    user_data = config.encode()
    if documents.extra_user_data:
        user_data = _message(documents.extra_user_data.encode(), config.encode())
    return {
        "meta-data": documents.meta_data.encode(),
        "user-data": user_data,
        "network-config": documents.network_config.encode(),
    }


def _document(templates: Templates, name: str, **values: Any) -> str:
    text = templates.render(name, **values)
    try:
        return to_json(json.loads(text))
    except ValueError as error:
        raise UsageError(
            f"this template does not make JSON: {error}", subject=name, hint=f"mv {name} {name}.off"
        ) from None


def _login(spec: GuestSpec, login_key: str) -> dict[str, Any]:
    own = UserSpec(name=spec.cloud_init.user, ssh_keys=spec.cloud_init.ssh_keys, sudo=True)
    return _user(own) | {"ssh_authorized_keys": list(dict.fromkeys([login_key, *own.ssh_keys]))}


def _user(user: UserSpec) -> dict[str, Any]:
    account: dict[str, Any] = {"name": user.name, "shell": user.shell, "lock_passwd": user.password_hash is None}
    if user.ssh_keys:
        account["ssh_authorized_keys"] = list(dict.fromkeys(user.ssh_keys))
    if user.groups:
        account["groups"] = list(user.groups)
    if user.sudo:
        account["sudo"] = "ALL=(ALL:ALL) ALL" if user.password_hash else "ALL=(ALL) NOPASSWD:ALL"
    if user.password_hash:
        account["passwd"] = secret_token(user.password_hash.key())
    return account


def _file(file: FileSpec) -> dict[str, Any]:
    """A file of another owner is written late: cloud-init makes accounts after it has written files."""
    content = secret_token(file.secret.key()) if file.secret else file.content or ""
    entry: dict[str, Any] = {"path": file.path, "content": content, "permissions": file.mode, "owner": file.owner}
    if file.owner.partition(":")[0] != "root":
        entry["defer"] = True
    return entry


def known_seed(instance_id: str, name: str) -> dict[str, bytes]:
    """Return the files of a guest's seed that says nothing new: of the same instance and host, and without secrets.

    cloud-init configures nothing by it. Without any seed it would take the machine for a new one: with other host keys
    and without the guest's network.
    """
    meta = {"instance-id": instance_id, "local-hostname": name}
    with suppress(ValueError):  # it was renamed by other means to what no host can be called
        meta["local-hostname"] = hostname_of(name)
    return {"meta-data": json.dumps(meta).encode(), "user-data": b"#cloud-config\n{}\n"}


def _filled(value: Any, secrets: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, secrets) for item in value]
    match = _TOKEN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    key = match.group(1)
    if key not in secrets:
        raise VmhostError("this secret is not at hand", subject=key)
    return f"{secrets[key].rstrip()}\n" if key.startswith(_HOST_KEY) else secrets[key]


def _refuse_tokens(spec: GuestSpec) -> None:
    """A text that looks like a token would be replaced by a secret."""
    for text in _texts(spec.model_dump(mode="json")):
        if _TOKEN.fullmatch(text):
            raise SpecError([Fault(f"guests.{spec.name}", f"{shown(text)} is not possible as a text")])


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _message(own: bytes, ours: bytes) -> bytes:
    """Return two parts of user-data as one MIME message, the same for the same parts."""
    message = MIMEMultipart(boundary=f"=={sha256(own + ours).hexdigest()[:48]}==")
    for name, kind, data in (("own", "plain", own), ("vmhost", "cloud-config", ours)):
        part = MIMENonMultipart("text", kind, charset="utf-8")
        part.set_payload(data)
        encode_base64(part)
        part.add_header("Content-Disposition", "attachment", filename=name)
        if name == "vmhost":
            part.add_header("Merge-Type", _MERGE)
        message.attach(part)
    return message.as_bytes()
