"""The age identity of a member: a file in the user's config folder, or the environment."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

import platformdirs
import pyrage
from pyrage.x25519 import Identity

from crmkit.durable import make_folder, replace_file, sync_folder
from crmkit.errors import Locked

IDENTITY_VARIABLE = "CRMKIT_IDENTITY"
CONFIG_VARIABLE = "CRMKIT_CONFIG"
PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700

_IDENTITY_PREFIX = "AGE-SECRET-KEY-1"
_ENCRYPTED = ("age-encryption.org/", "-----BEGIN AGE ENCRYPTED FILE-----")


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


def load_identity() -> Identity:
    """Return the user's identity, from ``$CRMKIT_IDENTITY`` (the key itself, or a path) or the config folder.

    Raises:
        Locked: There is no identity, it cannot be read, or it is protected with a passphrase.
    """
    given = os.environ.get(IDENTITY_VARIABLE)
    if given and given.strip().startswith(_IDENTITY_PREFIX):
        return _parse(given, f"${IDENTITY_VARIABLE}")
    path = Path(given) if given else _default_path()
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        if given and os.sep not in given:  # not repeated: it may be a key with a slip in it
            raise Locked(f"${IDENTITY_VARIABLE} is neither an age secret key nor a file that is there") from None
        raise Locked(
            f"you have no identity: {path} is missing; copy yours there, or name it in ${IDENTITY_VARIABLE}"
        ) from None
    except OSError as error:
        raise Locked(f"your identity {path} cannot be read: {error.strerror}") from None
    return _parse(text, str(path))


def identity_place() -> str:
    """Return where the user's identity is, for people: a path, or the name of the variable that holds it."""
    given = os.environ.get(IDENTITY_VARIABLE)
    if given and given.strip().startswith(_IDENTITY_PREFIX):
        return f"${IDENTITY_VARIABLE}"
    return str(given or _default_path())


def ensure_identity() -> Identity:
    """Return the user's identity; make an unprotected one in the config folder where there is none at all.

    Raises:
        Locked: There is one, but it cannot be read or it is protected with a passphrase.
    """
    if not os.environ.get(IDENTITY_VARIABLE) and not _default_path().exists():
        _create(_default_path())
    return load_identity()


def _default_path() -> Path:
    return config_folder() / "identity.txt"


def _create(path: Path) -> None:
    identity = Identity.generate()
    temporary = path.with_name(f".identity.{os.getpid()}.new")
    try:
        replace_file(temporary, f"# public key: {identity.to_public()}\n{identity}\n".encode(), PRIVATE_FILE)
    except OSError as error:
        raise unusable(path, error) from None
    try:
        os.link(temporary, path)  # unlike a rename, this never replaces what another process made meanwhile
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    sync_folder(path.parent)


def _parse(text: str, place: str) -> Identity:
    if text.startswith(_ENCRYPTED):
        raise Locked(f"your identity {place} is protected with a passphrase, which this version cannot ask for yet")
    for line in text.splitlines():
        if line.strip().startswith(_IDENTITY_PREFIX):
            try:
                return Identity.from_str(line.strip())
            except pyrage.IdentityError:
                break
    raise Locked(f"your identity {place} holds no age secret key")


def user_name() -> str:
    """Return the name of the system user."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without an account, as in some containers
        return f"user {os.getuid()}"
