"""Identities that plugins open: where ``$CRMKIT_IDENTITY`` holds a URI, the hook `crm_unlock_identity` is asked."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from crmkit.errors import CrmError, Locked
from crmkit.registry import DEFAULT_PLUGINS, Registry
from crmkit.vault.identity import open_uris_with


def ask_plugins(registry: Registry) -> None:
    """Let these plugins open URIs from now on."""
    open_uris_with(partial(_opened, registry))


def ask_shipped_plugins() -> None:
    """Let crmkit's own plugins open URIs from now on, where no workspace is open yet; they are loaded when asked."""
    open_uris_with(lambda uri: _opened(load_plugins(Registry()), uri))


def load_plugins(registry: Registry, installed: Iterable[str] = ()) -> Registry:
    """Load crmkit's own plugins, and installed ones that a profile names."""
    for dotted in DEFAULT_PLUGINS:
        registry.load_default(dotted)
    for requirement in installed:
        registry.load_entry_point(requirement)
    return registry


def _opened(registry: Registry, uri: str) -> str:
    """Return the identity behind a URI; only its scheme is ever told."""
    scheme = uri.partition(":")[0]
    for plugin, call in registry.chain("crm_unlock_identity", uri=uri):
        try:
            answer = call()
        except CrmError:
            raise
        except Exception as error:  # noqa: BLE001  # a plugin may fail in any way, and must not tell what it held
            problem = f"plugin {plugin} failed to open the {scheme}: identity ({type(error).__name__})"
        else:
            if answer is None:
                continue
            if isinstance(answer, str):
                return answer
            problem = f"plugin {plugin} opened the {scheme}: identity as something that is no text"
        raise Locked(problem)
    raise Locked(f"no plugin opens {scheme}: identities; $CRMKIT_IDENTITY holds the key, a path or such an address")
