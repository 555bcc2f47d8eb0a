"""Which hypervisor is meant, and whose errors are whose, decided without any hypervisor."""

from __future__ import annotations

import errno
from pathlib import Path

import libvirt
import pytest

from vmhost.drivers.libvirt import connection, errors, host
from vmhost.model.errors import Absent, AlreadyThere, DriverError, PermissionDenied, Silent, Unreachable


def libvirt_error(code: int, domain: int = libvirt.VIR_FROM_QEMU, number: int = -1) -> libvirt.libvirtError:
    error = libvirt.libvirtError("a call failed")
    error.args = ("libvirt's own words",)
    error.err = (code, domain, "libvirt's own words", 2, None, None, None, number, -1)
    return error


class Opened:
    """What libvirt.open was asked for; answers for some URIs only."""

    def __init__(self, *answering: str | None) -> None:
        self.answering = answering
        self.asked: list[str | None] = []

    def __call__(self, uri: str | None = None) -> str:
        self.asked.append(uri)
        if uri not in self.answering:
            raise libvirt_error(libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, errno.ECONNREFUSED)
        return f"connection to {uri}"


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An ordinary user without any choice of a hypervisor; gives the directory of the user's libvirt.conf."""
    monkeypatch.delenv("LIBVIRT_DEFAULT_URI", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(connection.os, "geteuid", lambda: 1000)
    (tmp_path / "libvirt").mkdir()
    return tmp_path / "libvirt"


def opened(monkeypatch: pytest.MonkeyPatch, uri: str | None, *answering: str | None) -> tuple[object, list[str | None]]:
    fake = Opened(*answering)
    monkeypatch.setattr(connection.libvirt, "open", fake)
    return connection.open_by_rule(uri), fake.asked


@pytest.mark.usefixtures("user")
def test_a_given_uri_goes_to_libvirt_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "qemu+ssh://someone@host:2222/system?keyfile=/x&no_verify=1#%20"
    assert opened(monkeypatch, uri, uri) == ((f"connection to {uri}", uri), [uri])


@pytest.mark.usefixtures("user")
def test_the_environment_is_libvirts_own_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "whatever")
    assert opened(monkeypatch, None, None) == (("connection to None", None), [None])


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ('uri_default = "qemu:///session"\n', True),
        ('# a comment\n\turi_default="x"\n', True),
        ('#uri_default = "qemu:///system"\n', False),
        ('uri_aliases = [ "a=qemu:///system" ]\n', False),
        ("", False),
    ],
)
def test_so_is_libvirt_conf(monkeypatch: pytest.MonkeyPatch, user: Path, text: str, chosen: bool) -> None:
    (user / "libvirt.conf").write_text(text)
    _, asked = opened(monkeypatch, None, None, "qemu:///system")
    assert asked == ([None] if chosen else ["qemu:///system"])


@pytest.mark.usefixtures("user")
def test_else_the_system_then_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened(monkeypatch, None, "qemu:///session") == (
        ("connection to qemu:///session", "qemu:///session"),
        ["qemu:///system", "qemu:///session"],
    )


@pytest.mark.usefixtures("user")
def test_when_neither_answers_the_system_is_what_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unreachable) as caught:
        opened(monkeypatch, None)
    assert caught.value.subject == "qemu:///system"
    assert caught.value.hint.startswith("systemctl start ")


def test_root_is_never_given_another_hypervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIBVIRT_DEFAULT_URI", raising=False)
    monkeypatch.setattr(connection.os, "geteuid", lambda: 0)
    monkeypatch.setattr(connection, "_libvirt_has_a_default", lambda: False)
    with pytest.raises(Unreachable):
        opened(monkeypatch, None, "qemu:///session")


def test_a_uri_in_a_hint_can_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unreachable) as caught:
        opened(monkeypatch, "test:///x;touch y&z")
    assert caught.value.hint == "virsh --connect 'test:///x;touch y&z' version"


@pytest.mark.parametrize(
    ("code", "domain", "number", "kind", "retryable"),
    [
        (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_FROM_QEMU, -1, Absent, False),
        (libvirt.VIR_ERR_NO_STORAGE_POOL, libvirt.VIR_FROM_STORAGE, -1, Absent, False),
        (libvirt.VIR_ERR_NO_STORAGE_VOL, libvirt.VIR_FROM_STORAGE, -1, Absent, False),
        (libvirt.VIR_ERR_STORAGE_VOL_EXIST, libvirt.VIR_FROM_STORAGE, -1, AlreadyThere, False),
        (libvirt.VIR_ERR_DOM_EXIST, libvirt.VIR_FROM_QEMU, -1, AlreadyThere, False),
        (libvirt.VIR_ERR_AUTH_UNAVAILABLE, libvirt.VIR_FROM_POLKIT, -1, PermissionDenied, False),
        (libvirt.VIR_ERR_OPERATION_DENIED, libvirt.VIR_FROM_DOM, -1, PermissionDenied, False),
        (libvirt.VIR_ERR_ACCESS_DENIED, libvirt.VIR_FROM_ACCESS, -1, PermissionDenied, False),
        (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, errno.EACCES, PermissionDenied, False),
        (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, errno.EPIPE, Unreachable, True),
        (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC, -1, Unreachable, True),
        (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_FROM_QEMU, -1, Silent, True),
        (libvirt.VIR_ERR_OPERATION_TIMEOUT, libvirt.VIR_FROM_QEMU, -1, DriverError, True),
        # A file that QEMU may not open is the guest's trouble, not ours with libvirt.
        (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_QEMU, errno.EACCES, DriverError, False),
        (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_QEMU, -1, DriverError, False),
    ],
)
def test_errors_by_kind(code: int, domain: int, number: int, kind: type, retryable: bool) -> None:
    found = errors.translate(libvirt_error(code, domain, number), "web-01")
    assert type(found) is kind
    assert (found.message, found.subject, found.retryable) == ("libvirt's own words", "web-01", retryable)


def test_words_that_a_guest_may_have_chosen_are_cut() -> None:
    error = libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR)
    error.args = ("a" * 3_000_000,)
    assert len(errors.translate(error, "web-01").message) < 3000


class Here:
    """A connection that says where it leads."""

    def __init__(self, hostname: str) -> None:
        self.getHostname = lambda: hostname


@pytest.mark.parametrize(
    ("uri", "hostname", "local"),
    [
        ("qemu:///system", "this", True),
        ("qemu:///session", "this.example.org", True),
        ("qemu+unix:///system?socket=/tmp/forwarded", "another", False),
        ("qemu+ext:///system?command=/bin/x", "another", False),
        ("qemu+ssh://other/system", "another", False),
        ("qemu+ssh://user@localhost/system", "this", False),
        ("qemu://this/system", "this", False),
        ("test:///default", "this", True),
    ],
)
def test_local_is_what_has_no_server_and_our_name(
    monkeypatch: pytest.MonkeyPatch, uri: str, hostname: str, local: bool
) -> None:
    monkeypatch.setattr(host.socket, "gethostname", lambda: "this")
    monkeypatch.setattr(host, "_own_hostname", lambda: "this.example.org")
    assert host._is_local(Here(hostname), uri) is local


class Counted:
    """A connection that counts how often it is asked whether it works; a broken one answers nothing."""

    def __init__(self, *, broken: bool = False) -> None:
        self.pings = 0
        self.alive = True
        self._broken = broken

    def isAlive(self) -> int:  # noqa: N802 - libvirt's word
        return int(self.alive)

    def getLibVersion(self) -> int:  # noqa: N802 - libvirt's word
        self.pings += 1
        if self._broken:
            raise libvirt_error(libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, errno.EPIPE)
        return 9_000_000


@pytest.mark.parametrize(("since", "pings"), [(0.9, 0), (1.1, 1)])
def test_who_answered_just_before_is_not_asked_again_before_a_change(
    monkeypatch: pytest.MonkeyPatch, since: float, pings: int
) -> None:
    handle, now = Counted(), 100.0
    monkeypatch.setattr(connection, "open_by_rule", lambda uri: (handle, uri))
    monkeypatch.setattr(connection, "monotonic", lambda: now)
    found = connection.Connection("qemu:///system")
    now += 60
    found.read(lambda _: "an answer")
    now += since * connection.JUST_BEFORE
    assert found.change(lambda asked: asked is handle)
    assert handle.pings == pings


@pytest.mark.parametrize("known", [True, False])
def test_a_change_goes_over_a_connection_that_works(monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    old, new, now = Counted(broken=True), Counted(), 100.0
    monkeypatch.setattr(connection, "open_by_rule", lambda uri: (old, uri))
    monkeypatch.setattr(connection, "open_uri", lambda _: new)
    monkeypatch.setattr(connection, "monotonic", lambda: now)
    found = connection.Connection("qemu:///system")
    now += 60
    if known:
        found.read(lambda _: "what libvirt knows without its daemon", asks=False)
    assert found.change(lambda asked: asked is new), "who was silent for long is asked first, and replaced"
    assert (old.pings, new.pings) == (1, 1)


def test_who_is_known_to_be_gone_is_replaced_before_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = Counted(broken=True), Counted()
    monkeypatch.setattr(connection, "open_by_rule", lambda uri: (old, uri))
    monkeypatch.setattr(connection, "open_uri", lambda _: new)
    monkeypatch.setattr(connection, "monotonic", lambda: 100.0)
    found = connection.Connection("qemu:///system")
    found.read(lambda _: "an answer")
    old.alive = False
    assert found.change(lambda asked: asked is new)
