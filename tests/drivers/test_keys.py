"""The sites' SSH keys on the disk, and who may look without them."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.scenes import WEB, site
from vmhost.drivers.keys import FileKeys
from vmhost.model.errors import AlreadyThere, PermissionDenied
from vmhost.model.layout import Layout
from vmhost.ops.host import Host
from vmhost.ports import KeyPair
from vmhost.testing import FakeHost

PAIR = KeyPair(private="-----BEGIN OPENSSH PRIVATE KEY-----\n", public="ssh-ed25519 AAAA vmhost:shop")


@pytest.fixture
def keys(tmp_path: Path) -> FileKeys:
    return FileKeys(Layout(*(tmp_path,) * 6))


def test_a_key_is_kept_for_its_owner_alone(keys: FileKeys, tmp_path: Path) -> None:
    assert keys.public("shop") is None
    keys.store("shop", PAIR)
    assert keys.public("shop") == PAIR.public
    assert keys.private_file("shop").read_text(encoding="ascii") == PAIR.private
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys", keys.private_file("shop"))]
    assert modes == [0o700, 0o600]
    with pytest.raises(AlreadyThere):
        keys.store("shop", PAIR)


def test_who_may_not_read_it_is_told(keys: FileKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    keys.store("shop", PAIR)

    def refused(path: Path, *_arguments: object, **_more: object) -> bool:
        raise PermissionError(13, os.strerror(13), str(path))

    monkeypatch.setattr(Path, "exists", refused)
    with pytest.raises(PermissionDenied, match=r"shop\.key\.pub"):
        keys.public("shop")


class _Closed:
    """Keys of somebody else."""

    def public(self, site: str) -> str | None:
        raise PermissionDenied("may not be read", subject=site)


def test_who_may_only_look_sees_plans_and_drift_all_the_same() -> None:
    fake = FakeHost(seed=6)
    fake.add_image("debian-12")
    host = Host(ports=fake.ports)
    shown = str(host.plan(site(WEB)))
    looking = Host(ports=replace(fake.ports, keys=_Closed()))  # type: ignore[arg-type]
    assert str(looking.plan(site(WEB))) == shown
    host.apply(host.plan(site(WEB)))
    assert looking.drift(site(WEB)) == ()
    assert looking.plan(site(WEB)).empty
