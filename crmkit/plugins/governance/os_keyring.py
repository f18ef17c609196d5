"""Identities in the keyring of the operating system: ``CRMKIT_IDENTITY=keyring:SERVICE/NAME``.

Needs the package `keyring` (``pip install "crmkit[keyring]"``), which is imported when an identity is asked for.
"""

from __future__ import annotations

from typing import Any

from crmkit import Locked, Unsupported, hookimpl

SCHEME = "keyring:"


@hookimpl
def crm_unlock_identity(uri: str) -> str | None:
    """Open an identity that is kept in the system's keyring."""
    if not uri.startswith(SCHEME):
        return None
    service, name = _parts(uri)
    found: str | None = _asked("get_password", service, name)
    if found is None:
        raise Locked(f"the system's keyring holds no identity {SCHEME}{service}/{name}")
    return found


def remember(uri: str, identity: str) -> None:
    """Put an identity into the system's keyring.

    Args:
        uri: Under which address, ``keyring:SERVICE/NAME``.
        identity: The secret key as text.

    Raises:
        Locked: The address is incomplete, or the keyring does not take it.
        Unsupported: The package `keyring` is not installed, or the system has no keyring.
    """
    _asked("set_password", *_parts(uri), identity)


def _parts(uri: str) -> tuple[str, str]:
    service, _, name = uri.removeprefix(SCHEME).partition("/")
    if not service or not name:
        raise Locked(f"an identity in the system's keyring is named {SCHEME}SERVICE/NAME")
    return service, name


def _asked(what: str, *arguments: str) -> Any:
    """Ask the system's keyring; its errors may repeat what they were given, so only their type is told."""
    try:
        import keyring
        import keyring.errors
    except ImportError:
        raise Unsupported('the package keyring is missing; install it with: pip install "crmkit[keyring]"') from None
    try:
        return getattr(keyring, what)(*arguments)
    except keyring.errors.NoKeyringError:
        problem: type[Exception] = Unsupported
        text = "this system has no keyring that can be asked; keep the identity in a file instead"
    except keyring.errors.KeyringError as error:
        problem, text = Locked, f"the system's keyring does not open ({type(error).__name__})"
    raise problem(text)
