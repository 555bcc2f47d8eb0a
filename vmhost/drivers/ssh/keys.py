"""Key pairs of our own: one per site to log in with, one per guest as its host key."""

from __future__ import annotations


def generate_keypair(comment: str) -> tuple[str, str]:
    """Make an ed25519 key pair in OpenSSH's formats.

    :param comment: goes to the end of the public line; one line without control characters.
    :return: the private key without a passphrase (PEM, to be kept with mode 0600) and the public line.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    safe = "".join(character for character in comment if character.isprintable())
    return private, f"{public} {safe}".rstrip()
