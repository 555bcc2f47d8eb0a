"""Images as jobs, with the guests that use each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from vmhost.engine.observe import observe_domains, observe_pools
from vmhost.model.errors import Cancelled, NotFound, PermissionDenied, Refused, Unreachable, VmhostError
from vmhost.model.events import Event, Progress
from vmhost.model.image import ImageRecord, Obtainable
from vmhost.ops.jobs import Job
from vmhost.ops.permission import check_may_change
from vmhost.plan.holders import holders

if TYPE_CHECKING:
    from vmhost.drivers.images.store import ImageStore
    from vmhost.ops.host import Host


@dataclass(frozen=True, slots=True)
class ImageUse:
    """An image and the names of the guests whose disks lie on it."""

    image: ImageRecord
    guests: tuple[str, ...]


class Images:
    """The images of one host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    @property
    def _store(self) -> ImageStore:
        """The store on the disk. :raises Refused: the host is a fake one, whose images are made up."""
        from vmhost.drivers.images.store import ImageStore

        images = self._host.ledger.images
        if not isinstance(images, ImageStore):
            raise Refused("the images of a fake host are no files", subject="image", hint="vmhost image list")
        return images

    def list(self) -> tuple[ImageUse, ...]:
        """Return all images, each with the guests that use it."""
        users = self._users()
        images = self._host.ledger.images.list()
        return tuple(ImageUse(image, tuple(sorted(users.get(str(image.path), ())))) for image in images)

    def available(self) -> tuple[Obtainable, ...]:
        """Return what can be built or pulled, by name; other suites of Debian can be built if the mirrors hold them."""
        from vmhost.drivers.images.catalogue import catalogue
        from vmhost.drivers.images.recipe import names

        built = [Obtainable(name, "build", "Debian's archive keys", "ok") for name in names()]
        pulled = [Obtainable(name, "pull", entry.vouched_by, entry.status) for name, entry in catalogue().items()]
        return tuple(sorted((*built, *pulled), key=lambda item: (item.name, item.source)))

    def build(self, name: str, *, fresh: bool = False, on_event: Callable[[Event], None] | None = None) -> ImageRecord:
        """Build a Debian image (``debian-12``) from the machine's own mirrors; an image of the same recipe is kept.

        :param fresh: build with today's packages although there is one; guests stay on the image that they have.
        :raises NotFound: the mirrors do not hold it; :raises DriverError: a tool failed. Nothing half is left.
        """
        self._check_ours()
        return self._job(
            "image build", name, on_event, lambda tell: self._store.build(name, fresh=fresh, on_progress=tell)
        )

    def pull(self, name: str, *, on_event: Callable[[Event], None] | None = None) -> ImageRecord:
        """Download a distribution's cloud image; it is visible only after its checksum held.

        :raises NotFound: the catalogue has no such image; :raises DamagedData: the checksum or its signature is wrong.
        """
        self._check_ours()
        return self._job("image pull", name, on_event, lambda tell: self._store.pull(name, on_progress=tell))

    def verify(self, name: str) -> ImageRecord:
        """Hash an image and inspect its header anew. :raises DamagedData: it is not what it was."""
        return self._store.verify(name)

    def delete(self, name: str) -> ImageRecord:
        """Delete an image. :raises Refused: guests use it; :raises NotFound: there is none."""
        store = self._store
        check_may_change(self._host.hypervisor)  # whose guests may use it
        image = store.find(name)
        if image is None:
            raise NotFound("there is no such image", subject=name, hint="vmhost image list")
        store.delete(name, used_by=self._users().get(str(image.path), ()))
        return image

    def _check_ours(self) -> None:
        """Return when new images are for the guests of this hypervisor, or for none that runs yet. Errors: Refused."""
        with suppress(Unreachable, PermissionDenied):
            check_may_change(self._host.hypervisor)

    def _users(self) -> dict[str, tuple[str, ...]]:
        """Return who lies on each file: also by disks in no storage pool, and an image that is itself a disk."""
        hypervisor = self._host.hypervisor
        return holders(observe_domains(hypervisor), observe_pools(hypervisor), backing=self._backing)

    def _backing(self, path: str) -> str:
        """Return what a file that lies in no storage pool lies on; empty where it cannot be read: then nobody knows."""
        with suppress(VmhostError):
            below = self._host.ports.files.backing(path) if path.startswith("/") else ""
            return str(PurePath(path).parent / below) if below else ""
        return ""

    def _job(
        self,
        kind: str,
        name: str,
        on_event: Callable[[Event], None] | None,
        work: Callable[[Callable[[str, float | None], None]], ImageRecord],
    ) -> ImageRecord:
        """Do it as a job; whoever cancels it is heard with the next sign of progress, and nothing half is left."""
        clock = self._host.ledger.clock
        began = clock.monotonic()
        with Job(self._host.ledger, kind, name, on_event, None) as job:

            def tell(text: str, share: float | None) -> None:
                done, seconds = 100 * (share or 0.0), clock.monotonic() - began
                job.tell(Progress(name, text, done, 100, done / seconds if seconds > 0 else 0.0))
                if job.cancelled():
                    raise Cancelled(f"cancelled while {text}", subject=name, hint=f"vmhost {kind} {name}")

            return work(tell)
