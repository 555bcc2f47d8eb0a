"""Seeds that a fake guest can read back: cloud-init's part of the fake host."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from email import message_from_bytes
from typing import Any, Final

from vmhost.testing.world import System

MAGIC: Final = b"fake cidata\n"
_SECTOR: Final = 2048


class FakeSeedMaker:
    """Makes seeds as JSON behind a mark; they are as long as a multiple of an ISO 9660 sector."""

    def make(self, files: Mapping[str, bytes]) -> bytes:
        encoded = {name: base64.b64encode(data).decode("ascii") for name, data in files.items()}
        image = MAGIC + json.dumps(encoded, sort_keys=True).encode("ascii")
        return image + bytes(-len(image) % _SECTOR)


def read_seed(image: bytes) -> dict[str, bytes] | None:
    """Return the files of a seed by name, or None when the volume holds none."""
    if not image.startswith(MAGIC):
        return None
    files = json.loads(image.removeprefix(MAGIC).rstrip(b"\0"))
    return {name: base64.b64decode(text) for name, text in files.items()}


def instance_id(files: Mapping[str, bytes]) -> str:
    """Return the seed's instance-id."""
    return str(json.loads(files["meta-data"]).get("instance-id", ""))


def configured(files: Mapping[str, bytes]) -> System:
    """Return the system that a first boot with this seed makes."""
    configs = tuple(_configs(files.get("user-data", b"")))
    meta = json.loads(files["meta-data"])
    keys = [config["ssh_keys"]["ed25519_public"] for config in configs if "ssh_keys" in config]
    return System(
        instance_id=str(meta.get("instance-id", "")),
        hostname=str(meta.get("local-hostname") or meta.get("hostname") or "localhost"),
        host_key=str(keys[-1]) if keys else "",
        accounts=_accounts(configs),
        addresses=_addresses(json.loads(files.get("network-config") or b"{}")),
        files=_files(configs),
        last_words=next((str(config["final_message"]) for config in configs if "final_message" in config), ""),
    )


def _configs(user_data: bytes) -> Iterator[dict[str, Any]]:
    """Yield the cloud-configs of user-data that are JSON: our own; a person's YAML is nothing to a fake guest."""
    if user_data.startswith((b"Content-Type:", b"MIME-Version:")):
        for part in message_from_bytes(user_data).walk():
            payload = part.get_payload(decode=True)
            if isinstance(payload, bytes):
                yield from _configs(payload)
        return
    head, _, body = user_data.partition(b"\n")
    if head.strip() == b"#cloud-config":
        try:
            config = json.loads(body)
        except ValueError:
            return
        if isinstance(config, dict):
            yield config


def _accounts(configs: tuple[dict[str, Any], ...]) -> dict[str, list[str]]:
    users = (user for config in configs for user in config.get("users", ()) if isinstance(user, dict))
    return {str(user["name"]): list(user.get("ssh_authorized_keys", ())) for user in users}


def _addresses(network: dict[str, Any]) -> dict[str, list[str]]:
    ethernets = network.get("network", network).get("ethernets", {}).values()
    found: dict[str, list[str]] = {}
    for nic in ethernets:
        mac = str(nic.get("match", {}).get("macaddress", "")).lower()
        found[mac] = list(nic.get("addresses", ())) or (["dhcp"] if nic.get("dhcp4") or nic.get("dhcp6") else [])
    return found


def _files(configs: tuple[dict[str, Any], ...]) -> dict[str, bytes]:
    entries = (entry for config in configs for entry in config.get("write_files", ()))
    return {str(entry["path"]): str(entry.get("content", "")).encode() for entry in entries}
