"""The age identity of a member: a file of the user, with or without a passphrase, the environment, or a plugin."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import platformdirs
import pyrage
from pyrage.x25519 import Identity

from crmkit.durable import make_folder, replace_file, sync_folder
from crmkit.errors import Locked
from crmkit.vault import unlocking
from crmkit.vault.guarded import Guarded
from crmkit.vault.passphrase import check_passphrase, is_protected, open_protected, protect

IDENTITY_VARIABLE = "CRMKIT_IDENTITY"
CONFIG_VARIABLE = "CRMKIT_CONFIG"
PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700

_IDENTITY_PREFIX = "AGE-SECRET-KEY-1"
_URI = re.compile(r"[a-z][a-z0-9+.-]+:.")

OpenUri = Callable[[str], str]
"""Given a URI, returns the text of an identity; raises `Locked` where it cannot."""

_open_uri: OpenUri | None = None


def open_uris_with(open_uri: OpenUri | None) -> None:
    """Say what opens identities that are named by a URI, in this process and from now on: plugins do."""
    global _open_uri  # noqa: PLW0603  # an identity belongs to the user of the process, not to one vault
    _open_uri = open_uri


def config_folder() -> Path:
    """Return the user's own folder of crmkit: ``$CRMKIT_CONFIG``, or where the system keeps settings.

    Raises:
        Locked: It is missing and cannot be made.
    """
    path = Path(os.environ.get(CONFIG_VARIABLE) or platformdirs.user_config_dir("crmkit"))
    if not path.is_dir():  # a folder that was there keeps the mode that its owner gave it
        try:
            make_folder(path, PRIVATE_FOLDER)
        except OSError as error:
            raise unusable(path, error) from None
    return path


def unusable(path: Path, error: OSError) -> Locked:
    """Return the error for a config folder, or a file in it, that cannot be written."""
    return Locked(f"{path} cannot be written: {error.strerror}; name a folder of your own in ${CONFIG_VARIABLE}")


@dataclass(frozen=True, slots=True, repr=False)
class Found(Guarded):
    """An identity as it was found.

    Attributes:
        content: Its text, or the age file that a passphrase opens.
        place: Where it is, for people.
        path: The file; None where it is not in one.
    """

    content: bytes
    place: str
    path: Path | None = None

    @property
    def is_protected(self) -> bool:
        """Whether a passphrase is needed to open it."""
        return is_protected(self.content)


def find_identity() -> Found:
    """Return the user's identity as it is kept: from ``$CRMKIT_IDENTITY`` or the config folder.

    The variable holds the key itself, a path, or a URI (``keyring:crmkit/ada``) that a plugin opens.

    Raises:
        Locked: There is no identity, or it cannot be read.
    """
    given = os.environ.get(IDENTITY_VARIABLE, "").strip()
    if given.startswith(_IDENTITY_PREFIX):
        return Found(given.encode(), f"${IDENTITY_VARIABLE}")
    if _URI.match(given) and not Path(given).exists():
        scheme = given.partition(":")[0]  # the rest is not repeated: it may say more than others should know
        if _open_uri is None:
            raise Locked(f"${IDENTITY_VARIABLE} is a {scheme}: address, and no plugin is there to open it")
        return Found(_open_uri(given).encode(), f"${IDENTITY_VARIABLE} ({scheme}:)")
    path = Path(given) if given else _default_path()
    try:
        return Found(path.read_bytes(), str(path), path)
    except FileNotFoundError:
        if given and os.sep not in given:  # not repeated: it may be a key with a slip in it
            raise Locked(f"${IDENTITY_VARIABLE} is neither an age secret key nor a file that is there") from None
        raise Locked(
            f"you have no identity: {path} is missing; copy yours there, or name it in ${IDENTITY_VARIABLE}"
        ) from None
    except OSError as error:
        raise Locked(f"your identity {path} cannot be read: {error.strerror}") from None


def load_identity() -> Identity:
    """Return the user's identity, opened; one that is protected has to be unlocked. Never prompts.

    Raises:
        Locked: There is no identity, it cannot be read, or its passphrase is asked for first.
    """
    found = find_identity()
    if not found.is_protected:
        return parse_identity(found.content, f"your identity {found.place}")
    opened = unlocking.kept(found.content)
    if opened is None:
        raise Locked(f"your identity {found.place} is protected with a passphrase; open it with: crmkit unlock")
    return parse_identity(opened.encode(), f"your identity {found.place}")


def identity_place() -> str:
    """Return where the user's identity is, for people: a path, or the name of the variable that holds it."""
    given = os.environ.get(IDENTITY_VARIABLE, "").strip()
    if given.startswith(_IDENTITY_PREFIX) or (_URI.match(given) and not Path(given).exists()):
        return f"${IDENTITY_VARIABLE}"
    return given or str(_default_path())


def has_identity() -> bool:
    """Return whether the user has an identity, or says where one is."""
    return bool(os.environ.get(IDENTITY_VARIABLE)) or _default_path().exists()


def ensure_identity(passphrase: str | None = None) -> Identity:
    """Return the user's identity; make one in the config folder where there is none at all. Never prompts.

    Args:
        passphrase: Protects one that is made, which then stays unlocked for some hours; None for no protection.

    Raises:
        Locked: There is one, but it cannot be read or has to be unlocked.
        Invalid: The passphrase would be guessed among the first.
    """
    if not has_identity():
        _create(_default_path(), passphrase)
    return load_identity()


def unlock_identity(found: Found, passphrase: str, lasts: timedelta = unlocking.LASTS) -> datetime:
    """Open a protected identity and keep it open for a while, for kernels and commands alike.

    Returns:
        Its end, UTC.

    Raises:
        Locked: The passphrase is another one, or the file holds no identity.
        Invalid: It would be kept open for too long.
    """
    opened = parse_identity(open_protected(found.content, passphrase, found.place), f"your identity {found.place}")
    return unlocking.keep(found.content, str(opened), lasts)


def change_passphrase(old: str | None, new: str | None) -> Path:
    """Protect the user's identity file with another passphrase; the old file stays until the new one is on disk.

    What was unlocked is locked.

    Args:
        old: The passphrase that it has; None where it has none.
        new: The new one; None to leave the identity unprotected.

    Returns:
        The file.

    Raises:
        Locked: There is no identity file, or `old` does not open it.
        Invalid: `new` would be guessed among the first.
    """
    found = find_identity()
    if found.path is None:
        raise Locked(f"your identity is in ${IDENTITY_VARIABLE}, not in a file; its passphrase cannot be changed")
    content = found.content
    if found.is_protected:
        content = open_protected(content, old or "", found.place)
    parse_identity(content, f"your identity {found.place}")
    path = found.path.resolve()  # a link stays one
    _save(path, content, new)
    unlocking.forget()
    return path


def put_aside() -> Path:
    """Give the user's identity file another name, so that a new one can be made; its passphrase may be remembered yet.

    Returns:
        Where it is now.

    Raises:
        Locked: The identity is not in the config folder, or cannot be moved.
    """
    found = find_identity()
    if found.path != _default_path():
        raise Locked(f"your identity {found.place} was put there by you; put a new one there, or take it away")
    aside = found.path.with_name(f"identity.lost-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.txt")
    try:
        os.link(found.path, aside)  # unlike a rename, this replaces nothing
        found.path.unlink()
        sync_folder(aside.parent)
    except OSError as error:
        raise unusable(aside, error) from None
    return aside


def _default_path() -> Path:
    return config_folder() / "identity.txt"


def _create(path: Path, passphrase: str | None) -> None:
    identity = Identity.generate()
    temporary = path.with_name(f".identity.{os.getpid()}.new")
    content = _save(temporary, f"# public key: {identity.to_public()}\n{identity}\n".encode(), passphrase)
    try:
        os.link(temporary, path)  # unlike a rename, this never replaces what another process made meanwhile
    except FileExistsError:
        pass
    else:
        if passphrase:
            unlocking.keep(content, str(identity))
    finally:
        temporary.unlink()
    sync_folder(path.parent)


def _save(path: Path, content: bytes, passphrase: str | None) -> bytes:
    """Write an identity, all or nothing, and return what was written."""
    if passphrase:
        check_passphrase(passphrase)
        content = protect(content, passphrase)
    try:
        replace_file(path, content, PRIVATE_FILE)
    except OSError as error:
        raise unusable(path, error) from None
    return content


def parse_identity(content: bytes, what: str) -> Identity:
    """Return the identity in a file that is not protected; `what` names the file in the error.

    Raises:
        Locked: There is none in it.
    """
    for line in content.decode("utf-8", errors="replace").splitlines():
        if line.strip().startswith(_IDENTITY_PREFIX):
            try:
                return Identity.from_str(line.strip())
            except pyrage.IdentityError:
                break
    raise Locked(f"{what} holds no age secret key")


def user_name() -> str:
    """Return the name of the system user."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without an account, as in some containers
        return f"user {os.getuid()}"
