"""``image pull``: a distribution's cloud image, visible only after everything that vouches for it held."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from vmhost.drivers.files import checksum, os_errors
from vmhost.drivers.images import manifest
from vmhost.drivers.images.catalogue import CatalogueEntry
from vmhost.drivers.images.checksums import digest_of, verify_signature
from vmhost.drivers.images.download import Partial, fetch_image, fetch_small
from vmhost.drivers.images.inspection import admit
from vmhost.drivers.images.publish import Origin, Progress, publish
from vmhost.model.errors import DamagedData, VmhostError
from vmhost.model.image import ImageRecord


@dataclass(frozen=True, slots=True)
class Promise:
    """What the distribution says that its image is: its digest, and the key that signed this (empty: none did)."""

    url: str
    algorithm: str
    digest: str
    signed_by: str

    @property
    def id(self) -> str:
        """The identity of an image that keeps this promise."""
        return checksum({"url": self.url, "algorithm": self.algorithm, "digest": self.digest})


def expected(entry: CatalogueEntry, on_progress: Progress) -> Promise:
    """Fetch the checksum of an image, and verify who signed it if it is signed.

    :raises DamagedData: the signature does not hold, or the image is not listed.
    """
    on_progress("fetching the checksums", 0.0)
    listing = fetch_small(entry.checksums)
    signed_by = ""
    if entry.signature and entry.keyring is not None:
        signed_by = _verified(entry, entry.keyring, listing)
    return Promise(entry.url, entry.algorithm, digest_of(listing, entry.file, entry.algorithm), signed_by)


def _verified(entry: CatalogueEntry, keyring: Path, listing: bytes) -> str:
    signature = fetch_small(entry.signature)
    with tempfile.TemporaryDirectory(prefix="vmhost-") as name:
        place = Path(name)
        (place / "checksums").write_bytes(listing)
        (place / "signature").write_bytes(signature)
        return verify_signature(place / "checksums", place / "signature", keyring, entry.keyring_package)


def pull(entry: CatalogueEntry, promise: Promise, work: Path, directory: Path, on_progress: Progress) -> ImageRecord:
    """Download an image and publish it if it is what was promised; call it while holding the right to make it.

    The download lies beside the images under a hidden name until then. It is kept when the network or the disk fails,
    so that the next call resumes it, and removed when its digest is wrong or it does not pass inspection.

    :raises DamagedData: the digest differs, or the image is not sound.
    :raises Refused: it would make QEMU open other files.
    """
    partial = Partial(directory / f".{manifest.stem(entry.name, promise.id)}.part", entry.url)
    _forget_others(partial, entry.name)
    digest = fetch_image(partial, entry.algorithm, lambda text, share: on_progress(text, share and share * 0.95))
    try:
        if digest != promise.digest:
            raise DamagedData(f"the download is not what {entry.checksums} lists", subject=entry.url)
        facts = admit(partial.file, expect=entry.format)
    except VmhostError:
        partial.remove()
        raise
    image = work / "image"
    with os_errors(image, "move"):
        partial.file.replace(image)
    partial.remove()
    origin = Origin(entry.name, promise.id, "pull", entry.firmware, entry.status)
    contents = {"url": entry.url, entry.algorithm: promise.digest, "signed_by": promise.signed_by}
    return publish(image, facts, origin, directory, contents, lambda text, _: on_progress(text, 0.97))


def _forget_others(partial: Partial, name: str) -> None:
    """Remove begun downloads of other versions of this image: nothing will ever resume them."""
    for path in partial.file.parent.glob(f".{name}-*.part"):
        if path != partial.file:
            Partial(path, "").remove()
