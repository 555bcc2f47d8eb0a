"""Lists of checksums, and who signed them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from vmhost.drivers.command import run
from vmhost.model.errors import Absent, DamagedData

_LENGTHS: Final = {"sha256": 64, "sha512": 128}
_LINE = re.compile(r"(?P<digest>[0-9a-fA-F]+) [ *](?P<name>.+)")
_BAD: Final = frozenset({"BADSIG", "ERRSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG"})


def digest_of(listing: bytes, file: str, algorithm: str) -> str:
    """Return the digest of a file from a list as sha256sum(1) writes it, in lower case.

    :raises DamagedData: it is not listed, listed twice with different digests, or the digest has not the right length.
    """
    matches = (_LINE.fullmatch(line.rstrip("\r")) for line in listing.decode(errors="replace").splitlines())
    digests = {match["digest"].lower() for match in matches if match and match["name"].removeprefix("./") == file}
    if len(digests) != 1:
        reason = "has different checksums" if digests else "is not"
        raise DamagedData(f"{reason} in the list of checksums", subject=file)
    digest = digests.pop()
    if len(digest) != _LENGTHS[algorithm]:
        raise DamagedData(f"the listed checksum is no {algorithm.upper()}", subject=file)
    return digest


def verify_signature(listing: Path, signature: Path, keyring: Path, package: str) -> str:
    """Verify a detached signature with a packaged keyring, and return the fingerprint of the key that made it.

    Source of the status lines: GnuPG's ``doc/DETAILS``.

    :param package: the Debian package that brings the keyring.
    :raises Absent: the keyring is not installed.
    :raises DamagedData: no key of the keyring made a good, unexpired signature, or one of several is bad.
    """
    if not keyring.exists():
        raise Absent("the keyring is not installed", subject=str(keyring), hint=f"apt-get install {package}")
    argv = ["gpgv", "--keyring", str(keyring), "--status-fd", "1", str(signature), str(listing)]
    done = run(argv, timeout=60, check=False)
    words = [line.split()[1:] for line in done.text.splitlines() if line.startswith("[GNUPG:] ")]
    kinds = {word[0] for word in words if word}
    valid = next((word[1] for word in words if word[:1] == ["VALIDSIG"] and len(word) > 1), "")
    if done.code != 0 or not valid or "GOODSIG" not in kinds or kinds & _BAD:
        why = ", ".join(sorted(kinds & (_BAD | {"NO_PUBKEY", "NODATA"}))) or f"gpgv ended with {done.code}"
        raise DamagedData(f"the signature of the checksums does not hold ({why})", subject=str(signature.name))
    return valid
