"""The store: a directory of images, each with its manifest."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from vmhost.drivers.files import os_errors
from vmhost.drivers.images import manifest
from vmhost.drivers.images.inspection import ImageFacts, admit
from vmhost.drivers.images.publish import Origin, Progress, hash_file, locked, making, publish
from vmhost.model.errors import DamagedData, NotFound, Refused, UsageError, VmhostError
from vmhost.model.image import ImageRecord
from vmhost.model.units import check_name, shown


def silent(_text: str, _share: float | None) -> None:
    """Tell nobody how far a work is."""


class ImageStore:
    """The images in one directory, which need not exist yet.

    An image is named by its name (``debian-12``: the newest of that name) or by name and identity
    (``debian-12-3fa91c4b77d0``).
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def list(self) -> tuple[ImageRecord, ...]:
        """Return all images that QEMU may be given: whole by their size, and with sound headers; by name, newest first.

        Their content is not read; :meth:`verify` does that.
        """
        sound = [record for record in self._records() if _fault(record) is None]
        newest_first = sorted(sound, key=lambda record: record.created, reverse=True)
        return tuple(sorted(newest_first, key=lambda record: record.name))

    def damaged(self) -> tuple[tuple[str, str], ...]:
        """Return the names of images that :meth:`list` leaves out, each with the reason."""
        faults = ((record, _fault(record)) for record in self._records())
        return tuple((name, fault.message) for record, fault in faults if fault for name in _names(record))

    def find(self, name: str) -> ImageRecord | None:
        """Return the newest image of that name, or None."""
        return next((record for record in self.list() if name in _names(record)), None)

    def path(self, name: str) -> Path:
        """Return the file of the newest image of that name. :raises NotFound: there is none."""
        record = self.find(name)
        if record is None:
            raise NotFound("there is no such image", subject=shown(name), hint="vmhost image list")
        return record.path

    def verify(self, name: str, *, on_progress: Progress = silent) -> ImageRecord:
        """Hash the newest image of that name and inspect its headers.

        :raises NotFound: there is none; :raises DamagedData: it is not what was published.
        """
        record = self._known(name)
        fault = _fault(record)
        if fault is None and hash_file(record.path, on_progress) != record.sha256:
            fault = DamagedData("is not what was published: its SHA-256 differs", subject=str(record.path))
        if fault is not None:
            fault.hint = fault.hint or f"vmhost image delete {manifest.stem(record.name, record.id)}"
            raise fault
        return record

    def delete(self, name: str, *, used_by: Sequence[str] = ()) -> ImageRecord:
        """Delete the newest image of that name, also a damaged one.

        :param used_by: the guests whose disks lie on it.
        :raises Refused: there are such; :raises NotFound: there is no such image.
        """
        record = self._known(name)
        if used_by:
            guests = ", ".join(sorted(used_by))
            raise Refused(f"is used by {guests}", subject=record.name, hint="vmhost image list")
        with locked(self.directory, record.name, silent, patience=5), os_errors(record.path, "delete"):
            # The manifest first: what is left after a crash in between is invisible and removed by the next maker.
            record.path.with_suffix(".json").unlink()
            record.path.unlink(missing_ok=True)
        return record

    def build(self, name: str, *, fresh: bool = False, on_progress: Progress = silent) -> ImageRecord:
        """Build an image of Debian from this machine's own mirrors; one of the same recipe is kept.

        :param fresh: build again with today's packages, beside the older image.
        :raises NotFound: there is no such recipe, or the mirrors do not hold its suite.
        :raises DriverError: a tool is missing or failed; nothing is left of it, or the next build removes it.
        """
        from vmhost.drivers.images.build import build
        from vmhost.drivers.images.recipe import load

        recipe = load(name, date=datetime.now(UTC).strftime("%Y-%m-%d") if fresh else "")
        here = self._of(recipe.id)
        if here is not None:
            return here
        with making(self.directory, name, on_progress) as work:
            return self._of(recipe.id) or build(recipe, work, self.directory, on_progress)

    def pull(self, name: str, *, on_progress: Progress = silent) -> ImageRecord:
        """Download a distribution's cloud image; it is visible only after its checksum held. A download is resumed.

        :raises NotFound: the catalogue has no such image.
        :raises DamagedData: a checksum or the signature of the checksums is wrong; what was downloaded is removed.
        :raises DriverError: the server or the disk said no; what was downloaded is kept for the next pull.
        """
        from vmhost.drivers.images.catalogue import entry
        from vmhost.drivers.images.pull import expected, pull

        wanted = entry(name)
        promise = expected(wanted, on_progress)
        here = self._of(promise.id)
        if here is not None:
            return here
        with making(self.directory, name, on_progress) as work:
            return self._of(promise.id) or pull(wanted, promise, work, self.directory, on_progress)

    def add(self, name: str, file: Path, *, firmware: frozenset[str], on_progress: Progress = silent) -> ImageRecord:
        """Copy a file that is here already into the store, once it passed inspection.

        :param firmware: what it boots by, since no header says so.
        :raises UsageError: ``name`` is no name.
        :raises Refused: it would make QEMU open other files, or is of a format that is not taken.
        :raises DamagedData: it is not sound.
        """
        from vmhost.drivers.images.adopt import copy_in

        _check_name(name)
        admit(file)
        with making(self.directory, name, on_progress) as work:
            copy, digest = copy_in(file, work, on_progress)
            here = self._of(digest)
            if here is not None:
                return here
            facts: ImageFacts = admit(copy)  # the copy, which nobody else can change any more
            origin = Origin(name, digest, "import", firmware, "unproven")
            return publish(copy, facts, origin, self.directory, {"file": file.name}, on_progress)

    def _records(self) -> Iterator[ImageRecord]:
        with os_errors(self.directory, "list"):
            entries = sorted(self.directory.iterdir()) if self.directory.is_dir() else []
        paths = [path for path in entries if path.suffix == ".json"]
        for path in paths:
            try:
                yield manifest.read(path)
            except VmhostError:
                continue  # not an image of ours, or damaged: such an image does not exist, and build makes it anew

    def _known(self, name: str) -> ImageRecord:
        """Return the newest image of that name, whether it is sound or not."""
        named = [record for record in self._records() if name in _names(record)]
        if not named:
            raise NotFound("there is no such image", subject=shown(name), hint="vmhost image list")
        return max(named, key=lambda record: record.created)

    def _of(self, identity: str) -> ImageRecord | None:
        return next((record for record in self.list() if record.id == identity), None)


def _check_name(name: str) -> None:
    try:
        check_name(name)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _names(record: ImageRecord) -> tuple[str, str]:
    return record.name, manifest.stem(record.name, record.id)


def _fault(record: ImageRecord) -> VmhostError | None:
    """Return why QEMU may not be given an image, or None; from its size and headers alone."""
    try:
        facts = admit(record.path, expect="qcow2" if record.format == "qcow2" else "raw")
    except VmhostError as error:
        return DamagedData(error.message, subject=str(record.path))
    if (facts.file_size, facts.virtual_size) != (record.size, record.virtual_size):
        text = f"is not what was published: {facts.file_size} bytes instead of {record.size}"
        return DamagedData(text, subject=shlex.quote(str(record.path)))
    return None
