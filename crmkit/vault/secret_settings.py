"""Secrets of plugins, ``keys/secrets.json``: passwords and tokens, each sealed for its plugin and its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crmkit.durable import replace_file
from crmkit.errors import Damaged, Invalid, NotFound
from crmkit.vault.guarded import Guarded

if TYPE_CHECKING:
    from crmkit.vault.vault import Vault


class SecretSettings(Guarded):
    """The secret settings of plugins. Who changes one holds the lock of the workspace.

    Args:
        path: The file; it need not be there.
        vault: What seals them, under the data key of the workspace itself.
    """

    def __init__(self, path: Path, vault: Vault) -> None:
        self._path = path
        self._vault = vault

    def get(self, plugin: str, name: str) -> str:
        """Return a secret.

        Raises:
            NotFound: There is none of this name.
            Damaged: It cannot be opened.
        """
        sealed = self._read().get(plugin, {}).get(name)
        if sealed is None:
            raise NotFound(f"plugin {plugin} has no secret {name!r}")
        return str(self._vault.open(_entity(plugin), name, self._id, self._id, sealed))

    def set(self, plugin: str, name: str, value: str) -> None:
        """Keep a secret; it is on disk when this returns.

        Raises:
            Invalid: The name or the value is blank, or no text.
        """
        self.check(plugin, name, value)
        self._vault.ensure_subjects({self._id})
        sealed = self._vault.seal(_entity(plugin), name, self._id, self._id, value)
        content = self._read()
        self._write({**content, plugin: {**content.get(plugin, {}), name: sealed}})

    def check(self, plugin: str, name: str, value: str) -> None:
        """Check what would be kept.

        Raises:
            Invalid: A name or the value is blank, or no text.
        """
        for what, given in (("plugin", plugin), ("name", name), ("value", value)):
            if not isinstance(given, str) or not given.strip():
                raise Invalid({what: "must be text, and not blank"}, "secret setting")

    def plugins(self) -> tuple[str, ...]:
        """Return the names of the plugins that have secrets."""
        return tuple(sorted(self._read()))

    def names(self, plugin: str) -> tuple[str, ...]:
        """Return the names of a plugin's secrets."""
        return tuple(sorted(self._read().get(plugin, {})))

    def remove(self, plugin: str, name: str | None = None) -> None:
        """Forget one secret of a plugin, or all of them; it is on disk when this returns.

        Raises:
            NotFound: There is none of this name.
        """
        content = self._read()
        if name is not None and name not in content.get(plugin, {}):
            raise NotFound(f"plugin {plugin} has no secret {name!r}")
        left = {each: sealed for each, sealed in content.get(plugin, {}).items() if name not in (each, None)}
        self._write(
            {**{each: kept for each, kept in content.items() if each != plugin}, **({plugin: left} if left else {})}
        )

    def reseal(self) -> int:
        """Seal anew what is sealed under an old data key; return how many there were."""
        content = self._read()
        old = [(plugin, name) for plugin in content for name, sealed in content[plugin].items() if self._is_old(sealed)]
        for plugin, name in old:
            self.set(plugin, name, self.get(plugin, name))
        return len(old)

    def _is_old(self, sealed: str) -> bool:
        return self._vault.is_old(self._id, sealed)

    @property
    def _id(self) -> str:
        return self._vault.workspace_id

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            content = json.loads(self._path.read_bytes())
            if isinstance(content, dict) and all(isinstance(kept, dict) for kept in content.values()):
                return content
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError):
            pass
        raise Damaged(f"{self._path} cannot be read, or is not as crmkit writes it; put back a copy of it")

    def _write(self, content: dict[str, dict[str, Any]]) -> None:
        replace_file(self._path, json.dumps(content, indent=1, sort_keys=True).encode())


def _entity(plugin: str) -> str:
    return f"plugin:{plugin}"
