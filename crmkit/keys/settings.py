"""Secrets of plugins, passwords and tokens: ``crm.secrets["mail"]["password"]``."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

from crmkit.fields import MASK, Secret
from crmkit.keys.deeds import Deeds


class Secrets:
    """The secrets of all plugins, by plugin.

    Args:
        deeds: What they are changed with.
    """

    def __init__(self, deeds: Deeds) -> None:
        self._deeds = deeds

    def __getitem__(self, plugin: str) -> PluginSecrets:
        return PluginSecrets(self._deeds, plugin)

    def __repr__(self) -> str:
        return '<secrets of plugins: crm.secrets["plugin"]["name"]>'


class PluginSecrets(MutableMapping[str, Secret[str]]):
    """The secrets of one plugin by name, as opened `Secret` objects: every rendering is masked, ``.value`` is the text.

    Args:
        deeds: What they are changed with.
        plugin: The name of the plugin.
    """

    def __init__(self, deeds: Deeds, plugin: str) -> None:
        self._deeds = deeds
        self._plugin = plugin

    def __getitem__(self, name: str) -> Secret[str]:
        return Secret(MASK * 6, self._deeds.vault.secret_settings.get(self._plugin, name))

    def __setitem__(self, name: str, value: str | Secret[str]) -> None:
        text = value.value if isinstance(value, Secret) else value
        self._deeds.vault.secret_settings.check(self._plugin, name, text)
        with self._deeds.deed("secret_set", f"{self._plugin}: {name}"):
            self._deeds.vault.secret_settings.set(self._plugin, name, text)

    def __delitem__(self, name: str) -> None:
        self._deeds.vault.secret_settings.get(self._plugin, name)
        with self._deeds.deed("secret_remove", f"{self._plugin}: {name}"):
            self._deeds.vault.secret_settings.remove(self._plugin, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._deeds.vault.secret_settings.names(self._plugin))

    def __len__(self) -> int:
        return len(self._deeds.vault.secret_settings.names(self._plugin))

    def __repr__(self) -> str:
        return f"<secrets of {self._plugin}: {', '.join(self) or 'none'}>"
