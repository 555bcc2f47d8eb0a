"""ISO 9660 images of NoCloud seeds, by pycdlib."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Final

from vmhost.model.errors import DriverError

LABEL: Final = "cidata"
"""The label by which cloud-init finds a seed (NoCloud)."""

GRAIN: Final = 1 << 20
"""Images are whole multiples of this many bytes, so that a seed without secrets covers the one that it replaces."""

_FILE_MODE: Final = 0o100400


class IsoSeedMaker:
    """Makes seeds as ISO 9660 images with Joliet and Rock Ridge, so that any system finds the files by their own names.

    pycdlib stamps the present time into an image, so two images of the same files differ in their dates.
    """

    def make(self, files: Mapping[str, bytes]) -> bytes:
        """Return the image of these files, all in its root and readable by root only.

        :param files: contents by name (``user-data``, ``meta-data``, ``network-config``), at most 9,999 of them.
        :raises DriverError: pycdlib refuses a name or a content.
        """
        from pycdlib import PyCdlib
        from pycdlib.pycdlibexception import PyCdlibException

        iso, image = PyCdlib(), BytesIO()
        try:
            iso.new(interchange_level=3, vol_ident=LABEL, joliet=3, rock_ridge="1.09", sys_ident="LINUX")
            for number, (name, data) in enumerate(files.items()):
                iso.add_fp(
                    BytesIO(data),
                    len(data),
                    f"/FILE{number:04}.;1",
                    rr_name=name,
                    joliet_path=f"/{name}",
                    file_mode=_FILE_MODE,
                )
            iso.write_fp(image)
            iso.close()
        except PyCdlibException as error:
            raise DriverError(f"cannot make the seed image: {error}", subject=LABEL) from error
        return image.getvalue().ljust(-(-image.tell() // GRAIN) * GRAIN, b"\0")
