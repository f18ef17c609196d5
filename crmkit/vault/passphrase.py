"""Passphrases: an identity file as ``age -p`` makes it, and which passphrases are good enough."""

from __future__ import annotations

import pyrage

from crmkit.errors import Invalid, Locked

SHORTEST = 10  # signs

_BEGINNINGS = (b"age-encryption.org/v1", b"-----BEGIN AGE ENCRYPTED FILE-----")
_GUESSED_FIRST = frozenset(
    """0123456789 1234567890 12345678910 0987654321 9876543210 1q2w3e4r5t 1qaz2wsx3edc abcdefghij administrator
    basketball changeme123 iloveyou123 letmein123 passphrase password12 password123 password1234 passwordpassword
    qwerty12345 qwerty123456 qwertyuiop qwertzuiop superman123 welcome123""".split()  # noqa: SIM905  # words, not code
)


def is_protected(content: bytes) -> bool:
    """Return whether this is an age file, binary or armored, and not an identity in the clear."""
    return content.startswith(_BEGINNINGS)


def protect(content: bytes, passphrase: str) -> bytes:
    """Return an age file that this passphrase opens; it takes about two seconds, and so does every guess at it."""
    return bytes(pyrage.passphrase.encrypt(content, passphrase))


def open_protected(content: bytes, passphrase: str, place: str) -> bytes:
    """Return what an age file holds.

    Args:
        content: The age file.
        passphrase: What opens it.
        place: What messages call the file.

    Raises:
        Locked: The passphrase is another one, or the file is not whole.
    """
    try:
        return bytes(pyrage.passphrase.decrypt(content, passphrase))
    except pyrage.DecryptError as error:
        if "Decryption failed" in str(error):
            raise Locked(f"this is not the passphrase of {place}") from None
        raise Locked(f"{place} is no whole age file that a passphrase opens") from None


def check_passphrase(passphrase: str) -> None:
    """Refuse a passphrase that would be guessed among the first.

    Raises:
        Invalid: It is; the message says what is allowed.
    """
    plain = "".join(passphrase.split()).casefold()
    if len(passphrase) < SHORTEST or len(set(plain)) < 3 or plain in _GUESSED_FIRST:
        raise Invalid(
            {
                "passphrase": f"must have {SHORTEST} characters or more, not the same ones over and over, and be none "
                "that everybody tries first; four words that have nothing to do with each other are good"
            }
        )
