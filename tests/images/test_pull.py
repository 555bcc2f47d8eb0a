"""``image pull`` against a server on loopback, signed by a key of its own: whole, interrupted, lied to."""

from __future__ import annotations

import hashlib
import itertools
import os
import resource
import signal
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
import stamina
from stamina.instrumentation import set_on_retry_hooks

from tests.images.headers import Header
from tests.images.mirror import IMAGE, SIGNATURE, SUMS, Mirror, Signer, serving, signer
from vmhost.drivers.command import run
from vmhost.drivers.images import catalogue, download
from vmhost.drivers.images.checksums import digest_of
from vmhost.drivers.images.store import ImageStore
from vmhost.model.errors import Absent, Cancelled, DamagedData, DriverError, NoCapacity, NotFound, Refused, Unreachable
from vmhost.model.events import Event, Progress
from vmhost.ops import jobs
from vmhost.ops.host import Host
from vmhost.testing import FakeHost

NAME = "distro-1"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signer]:
    # The path of gpg-agent's socket may not be longer than 108 bytes.
    with signer(tmp_path_factory.mktemp("k") / "h") as made:
        yield made


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A sound image of 4 MiB."""
    file = tmp_path_factory.mktemp("image") / "disk.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", str(file), "64M"], timeout=60)
    run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 4M", str(file)], timeout=60)
    return file.read_bytes()


@pytest.fixture
def mirror(image: bytes, key: Signer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A server that signs, and the catalogue that knows it."""
    with serving(Mirror()) as served:
        served.offer(image, key.sign)
        monkeypatch.setattr(catalogue, "entry", lambda name: served.entry(keyring=key.keyring, name=name))
        yield served


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    """Attempts follow each other at once."""
    with stamina.set_testing(True, attempts=download.ATTEMPTS):
        yield


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def left(store: ImageStore) -> list[str]:
    """What lies in the directory beside locks."""
    return sorted(path.name for path in store.directory.iterdir() if not path.name.endswith(".lock"))


def parts(store: ImageStore) -> list[Path]:
    return sorted(store.directory.glob(".*.part"))


# --- all is well ------------------------------------------------------------------------------------------------------


def test_a_signed_image_becomes_visible_whole(mirror: Mirror, store: ImageStore, image: bytes) -> None:
    seen: list[tuple[str, float | None]] = []

    def watch(text: str, share: float | None) -> None:
        seen.append((text, share))
        assert store.list() == (), "it is visible before everything held"

    record = store.pull(NAME, on_progress=watch)

    assert store.list() == (record,)
    assert record.path.read_bytes() == image
    assert (record.sha256, record.size) == (hashlib.sha256(image).hexdigest(), len(image))
    assert (record.source, record.status, record.virtual_size) == ("pull", "unproven", 64 << 20)
    assert left(store) == [f"{NAME}-{record.id[:12]}.json", f"{NAME}-{record.id[:12]}.qcow2"]
    shares = [share for _, share in seen if share is not None]
    assert all(before <= after for before, after in itertools.pairwise(shares))
    assert any(text == "downloading" for text, _ in seen)
    assert store.verify(NAME) == record


def test_an_image_that_is_here_is_not_downloaded_again(mirror: Mirror, store: ImageStore) -> None:
    first = store.pull(NAME)
    assert store.pull(NAME) == first
    assert len(mirror.asked_for(IMAGE)) == 1


def test_a_new_version_lies_beside_the_old_one(mirror: Mirror, store: ImageStore, image: bytes, key: Signer) -> None:
    old = store.pull(NAME)
    mirror.offer(image + bytes(65536), key.sign)
    mirror.tag = '"v2"'
    new = store.pull(NAME)
    assert {record.id for record in store.list()} == {old.id, new.id}


def test_without_a_signature_the_checksum_holds_alone(image: bytes, store: ImageStore, monkeypatch) -> None:
    with serving(Mirror()) as served:
        served.offer(image)
        monkeypatch.setattr(catalogue, "entry", lambda name: served.entry(name=name))
        record = store.pull(NAME)
    assert record.status == "unproven"
    assert SIGNATURE not in [path.lstrip("/") for path, _ in served.asked]


# --- interruptions ----------------------------------------------------------------------------------------------------


def test_a_lost_connection_is_resumed_where_it_was(mirror: Mirror, store: ImageStore, image: bytes) -> None:
    mirror.cut = len(image) // 3
    record = store.pull(NAME)
    assert record.path.read_bytes() == image
    first, *others = mirror.asked_for(IMAGE)
    starts = [int(wanted.removeprefix("bytes=").removesuffix("-")) for wanted in others]
    assert first == ""
    assert 2 <= len(starts) <= 4
    assert all(before < after for before, after in itertools.pairwise([0, *starts]))
    assert mirror.sent < len(image) + 1_000_000


def test_the_next_pull_resumes_what_the_last_one_left(mirror: Mirror, store: ImageStore, image: bytes) -> None:
    mirror.cut = 200_000
    with pytest.raises(Unreachable) as lost:
        store.pull(NAME)
    assert lost.value.retryable
    assert store.list() == ()
    (part,) = parts(store)
    have = part.stat().st_size
    assert (download.ATTEMPTS - 1) * mirror.cut < have <= download.ATTEMPTS * mirror.cut

    mirror.cut = 0
    mirror.asked.clear()
    assert store.pull(NAME).path.read_bytes() == image
    assert mirror.asked_for(IMAGE) == [f"bytes={have}-"]
    assert parts(store) == []


def test_a_complete_download_that_was_never_published_is_used(mirror: Mirror, store: ImageStore, image: bytes) -> None:
    mirror.cut = 200_000
    with pytest.raises(Unreachable):
        store.pull(NAME)
    (part,) = parts(store)
    part.write_bytes(image)
    mirror.cut = 0
    mirror.sent = 0
    assert store.pull(NAME).path.read_bytes() == image
    assert mirror.sent < 10_000


def test_a_server_that_serves_no_parts_is_read_from_the_start(mirror: Mirror, store: ImageStore, image: bytes) -> None:
    mirror.cut = 200_000
    with pytest.raises(Unreachable):
        store.pull(NAME)
    mirror.cut, mirror.ranges = 0, False
    assert store.pull(NAME).path.read_bytes() == image


def test_a_part_of_another_version_is_never_continued(mirror: Mirror, store: ImageStore, image: bytes) -> None:
    mirror.cut = 200_000
    with pytest.raises(Unreachable):
        store.pull(NAME)
    mirror.cut, mirror.tag = 0, '"v2"'
    assert store.pull(NAME).path.read_bytes() == image


def test_a_longer_part_than_the_file_is_thrown_away(mirror: Mirror, store: ImageStore, image: bytes) -> None:
    mirror.cut = 200_000
    with pytest.raises(Unreachable):
        store.pull(NAME)
    (part,) = parts(store)
    part.write_bytes(image + b"more")
    mirror.cut = 0
    assert store.pull(NAME).path.read_bytes() == image


def test_parts_of_withdrawn_versions_are_removed(mirror: Mirror, store: ImageStore, image: bytes, key: Signer) -> None:
    mirror.cut = 200_000
    with pytest.raises(Unreachable):
        store.pull(NAME)
    mirror.offer(image + bytes(65536), key.sign)
    mirror.cut, mirror.tag = 0, '"v2"'
    store.pull(NAME)
    assert parts(store) == []


def test_a_weak_tag_promises_nothing(mirror: Mirror, store: ImageStore, image: bytes) -> None:
    mirror.tag, mirror.cut = 'W/"v1"', 200_000
    with pytest.raises(Unreachable):
        store.pull(NAME)
    assert set(mirror.asked_for(IMAGE)) == {""}
    mirror.cut = 0
    assert store.pull(NAME).path.read_bytes() == image


def test_a_server_that_is_busy_is_asked_again(mirror: Mirror, store: ImageStore, image: bytes) -> None:
    mirror.answers = [503, 429, 500]
    assert store.pull(NAME).path.read_bytes() == image


def test_a_silent_server_is_not_waited_for_without_end(
    mirror: Mirror, store: ImageStore, image: bytes, monkeypatch
) -> None:
    monkeypatch.setattr(download, "SILENCE", 0.3)
    mirror.silent = True
    assert store.pull(NAME).path.read_bytes() == image


def test_nobody_there_is_unreachable(
    mirror: Mirror, store: ImageStore, monkeypatch, key: Signer, capfd: pytest.CaptureFixture[str]
) -> None:
    """And nothing of the attempts is written anywhere: stdout is for data."""
    set_on_retry_hooks(None)  # as at the start of a process
    entry = mirror.entry(keyring=key.keyring)
    mirror.address = ("127.0.0.1", 1)
    monkeypatch.setattr(catalogue, "entry", lambda name: mirror.entry(keyring=key.keyring, name=name))
    with pytest.raises(Unreachable) as caught:
        store.pull(entry.name)
    assert caught.value.message == "the server does not answer: connection refused"
    assert caught.value.hint == f"curl -sSI {caught.value.subject}"
    assert capfd.readouterr() == ("", "")


def test_a_name_that_nobody_knows(mirror: Mirror, store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Unreachable) as caught:
        store.pull(NAME)
    assert caught.value.message == "the server does not answer: its name is not known here"
    assert caught.value.hint == f"getent hosts {urlsplit(caught.value.subject).hostname}"


def test_a_certificate_that_nobody_vouches_for(monkeypatch: pytest.MonkeyPatch) -> None:
    origin = ssl.SSLCertVerificationError()
    origin.verify_message = "self-signed certificate"

    def distrust(*_: object, **__: object) -> None:
        raise requests.exceptions.SSLError("HTTPSConnectionPool(...)") from origin

    monkeypatch.setattr(requests.Session, "get", distrust)
    with pytest.raises(DriverError) as caught:
        download.fetch_small("https://mirror.example/SHA256SUMS")
    assert caught.value.message == "the server's certificate is not to be trusted: self-signed certificate"


def test_an_interrupted_pull_can_be_resumed(mirror: Mirror, store: ImageStore, image: bytes) -> None:
    """Ctrl-C in the middle: what was downloaded stays, nothing is visible."""

    def interrupt(text: str, share: float | None) -> None:
        if text == "downloading" and (share or 0) > 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.pull(NAME, on_progress=interrupt)
    assert store.list() == ()
    assert store.pull(NAME).path.read_bytes() == image
    assert mirror.asked_for(IMAGE)[-1].startswith("bytes=")


def test_a_pull_that_is_cancelled_as_a_job_can_be_resumed(
    mirror: Mirror, store: ImageStore, image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "CHECK_EVERY", 0.0)
    ports = replace(FakeHost().ports, images=store)
    host = Host(ports=ports)

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.text == "downloading":
            jobs.cancel_job(ports.history, host.jobs()[0].id)

    with pytest.raises(Cancelled, match="cancelled while downloading") as cancelled:
        host.images.pull(NAME, on_event=listen)
    assert cancelled.value.hint == f"vmhost image pull {NAME}"
    assert [job.state for job in host.jobs()] == ["cancelled"]
    assert store.list() == ()
    assert host.images.pull(NAME).path.read_bytes() == image


# --- lies -------------------------------------------------------------------------------------------------------------


def test_a_wrong_digest_is_never_visible_and_leaves_nothing(mirror: Mirror, store: ImageStore, image: bytes) -> None:
    changed = bytearray(image)
    changed[-1] ^= 1
    mirror.files[IMAGE] = bytes(changed)
    with pytest.raises(DamagedData, match=r"not what .* lists"):
        store.pull(NAME)
    assert store.list() == ()
    assert left(store) == []


def test_a_changed_list_of_checksums_is_noticed_before_the_download(mirror: Mirror, store: ImageStore) -> None:
    mirror.files[SUMS] += b"\n"
    with pytest.raises(DamagedData, match=r"signature .* does not hold"):
        store.pull(NAME)
    assert mirror.asked_for(IMAGE) == []


def test_a_stranger_s_signature_does_not_hold(mirror: Mirror, store: ImageStore, tmp_path: Path) -> None:
    with signer(tmp_path / "s") as stranger:
        mirror.files[SIGNATURE] = stranger.sign(mirror.files[SUMS])
    with pytest.raises(DamagedData, match="NO_PUBKEY"):
        store.pull(NAME)


def test_a_signature_of_an_expired_key_does_not_hold(
    image: bytes, store: ImageStore, tmp_path: Path, monkeypatch
) -> None:
    past = ("--faked-system-time", "20200101T000000")
    with signer(tmp_path / "e", *past, expires="1d") as old, serving(Mirror()) as served:
        served.offer(image, lambda data: old.sign(data, *past))
        monkeypatch.setattr(catalogue, "entry", lambda name: served.entry(keyring=old.keyring, name=name))
        with pytest.raises(DamagedData, match="EXPKEYSIG"):
            store.pull(NAME)


@pytest.mark.parametrize("junk", [b"", b"not a signature", bytes(100_000)])
def test_what_is_no_signature_does_not_hold(mirror: Mirror, store: ImageStore, junk: bytes) -> None:
    mirror.files[SIGNATURE] = junk
    with pytest.raises(DamagedData, match="signature"):
        store.pull(NAME)


def test_a_missing_signature_is_not_taken_for_none(mirror: Mirror, store: ImageStore) -> None:
    del mirror.files[SIGNATURE]
    with pytest.raises(Absent):
        store.pull(NAME)


def test_a_missing_keyring_says_which_package_brings_it(
    mirror: Mirror, store: ImageStore, tmp_path, monkeypatch
) -> None:
    nowhere = mirror.entry(keyring=tmp_path / "none.gpg")
    monkeypatch.setattr(catalogue, "entry", lambda name: nowhere)
    with pytest.raises(Absent) as error:
        store.pull(NAME)
    assert error.value.hint == "apt-get install distro-keyring"


def test_an_image_that_names_another_file_is_refused_although_it_is_signed(
    mirror: Mirror, store: ImageStore, key: Signer, tmp_path: Path
) -> None:
    evil = Header(backing_offset=0x200, backing_length=11, backing_name=b"/etc/shadow").write(tmp_path / "evil")
    mirror.offer(evil.read_bytes(), key.sign)
    with pytest.raises(Refused, match="backing file"):
        store.pull(NAME)
    assert left(store) == []


def test_a_page_instead_of_an_image_is_damaged(mirror: Mirror, store: ImageStore, key: Signer) -> None:
    mirror.offer(b"<html>log in</html>" * 1000, key.sign)
    with pytest.raises(DamagedData, match="should be qcow2"):
        store.pull(NAME)


def test_an_endless_list_of_checksums_is_not_read_to_its_end(mirror: Mirror, store: ImageStore) -> None:
    mirror.files[SUMS] = bytes(download.LARGEST_LIST + 1)
    with pytest.raises(DamagedData, match="longer than"):
        store.pull(NAME)


def test_an_endless_image_is_not_written_to_its_end(mirror: Mirror, store: ImageStore, image, monkeypatch) -> None:
    monkeypatch.setattr(download, "LARGEST_IMAGE", 100_000)
    with pytest.raises(DamagedData, match="longer than"):
        store.pull(NAME)
    assert store.list() == ()


@pytest.mark.parametrize(("code", "error"), [(404, Absent), (403, DriverError), (410, Absent), (418, DriverError)])
def test_a_refusal_is_final(mirror: Mirror, store: ImageStore, code: int, error: type[DriverError]) -> None:
    mirror.answers = [code]
    with pytest.raises(error):
        store.pull(NAME)
    assert len(mirror.asked_for(IMAGE)) == 1


def test_an_image_that_nobody_lists_is_not_found(store: ImageStore) -> None:
    with pytest.raises(NotFound, match=r"ubuntu-24\.04"):
        store.pull("windows-95")


@pytest.mark.parametrize(
    ("listing", "words"),
    [
        (b"", "is not in"),
        (b"abc *cloud.img\n", "no SHA256"),
        (b"0" * 64 + b" *cloud.img\n" + b"1" * 64 + b" *cloud.img\n", "different checksums"),
        (b"0" * 64 + b" *xcloud.img\n", "is not in"),
        (b"\xff\xfe" * 100, "is not in"),
        (b"0" * 128 + b" *cloud.img\n", "no SHA256"),
    ],
)
def test_lists_that_do_not_answer_are_refused(listing: bytes, words: str) -> None:
    with pytest.raises(DamagedData, match=words):
        digest_of(listing, "cloud.img", "sha256")


def test_both_spellings_of_lists_are_read() -> None:
    digest = "ab" * 64
    for line in (f"{digest}  cloud.img", f"{digest.upper()} *cloud.img", f"{digest}  ./cloud.img\r"):
        assert digest_of(f"{line}\n".encode(), "cloud.img", "sha512") == digest


# --- the disk and the way ---------------------------------------------------------------------------------------------


def test_a_disk_without_room_is_noticed_before_writing(mirror: Mirror, store: ImageStore, monkeypatch) -> None:
    usage = os.statvfs("/")
    free = type("Usage", (), {"total": usage.f_blocks, "used": 0, "free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: free)
    with pytest.raises(NoCapacity):
        store.pull(NAME)


def test_a_disk_that_becomes_full_keeps_what_it_has(mirror: Mirror, store: ImageStore, image: bytes) -> None:
    """The kernel's limit on the size of files stands for a full disk; the error is handled alike."""
    mirror.length = False  # otherwise it would be noticed before

    def pull_in_child() -> int:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            store.pull(NAME)
        except DriverError as error:
            return 42 if "no space left" in error.message and error.hint.startswith("df -h") else 1
        return 2

    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = pull_in_child()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
    assert store.list() == ()
    (part,) = parts(store)
    assert part.stat().st_size == 1 << 20
    assert store.pull(NAME).path.read_bytes() == image
    assert mirror.asked_for(IMAGE)[-1] == f"bytes={1 << 20}-"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    place, key = tmp_path_factory.mktemp("tls"), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (place / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    kind, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (place / "key.pem").write_bytes(key.private_bytes(kind, form, plain))
    return place / "cert.pem", place / "key.pem"


def test_tls_is_verified(image: bytes, store: ImageStore, certificate: tuple[Path, Path], monkeypatch) -> None:
    with serving(Mirror(), tls=certificate) as served:
        served.offer(image)
        monkeypatch.setattr(catalogue, "entry", lambda name: served.entry(name=name))
        with pytest.raises(DriverError, match="certificate"):
            store.pull(NAME)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
        assert store.pull(NAME).path.read_bytes() == image


def test_nobody_leads_from_tls_to_plain_text(
    image, store: ImageStore, certificate: tuple[Path, Path], monkeypatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    with serving(Mirror()) as plain, serving(Mirror(), tls=certificate) as served:
        plain.offer(image)
        served.leads_to = plain.url(SUMS)
        monkeypatch.setattr(catalogue, "entry", lambda name: served.entry(name=name))
        with pytest.raises(DriverError, match="anybody can change"):
            store.pull(NAME)


# --- the catalogue ----------------------------------------------------------------------------------------------------


def test_the_catalogue_knows_what_it_promises() -> None:
    known = catalogue.catalogue()
    assert {"debian-12", "debian-13", "ubuntu-22.04", "ubuntu-24.04"} <= set(known)
    for entry in known.values():
        assert all(url.startswith("https://") for url in (entry.url, entry.checksums, entry.signature) if url)
        assert bool(entry.signature) == bool(entry.keyring) == bool(entry.keyring_package)
        assert not entry.proven, "no test of this project has fetched it"
        assert entry.file in entry.url
