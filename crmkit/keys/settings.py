"""Secrets of plugins, passwords and tokens: ``crm.secrets["mail"]["password"]``."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import nullcontext

from crmkit.errors import Invalid
from crmkit.fields import MASK, Secret
from crmkit.keys.deeds import Deeds
from crmkit.registry import asking_plugin


class Secrets:
    """The secrets of all plugins, by plugin.

    Args:
        deeds: What they are changed with.
    """

    def __init__(self, deeds: Deeds) -> None:
        self._deeds = deeds

    def __getitem__(self, plugin: str) -> PluginSecrets:
        if not isinstance(plugin, str) or not plugin.strip():
            raise Invalid({"plugin": "must be its name, as text"}, "secrets")
        return PluginSecrets(self._deeds, plugin)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the plugins that have secrets."""
        return iter(self._deeds.vault.secret_settings.plugins())

    def __repr__(self) -> str:
        return '<secrets of plugins: crm.secrets["plugin"]["name"]>'


class PluginSecrets(MutableMapping[str, Secret[str]]):
    """The secrets of one plugin by name, as opened `Secret` objects: every rendering is masked, ``.value`` is the text.

    Who takes one needs the right to change settings, and the audit log has it first; but a plugin inside its hook takes
    its own, and no line is written for it.

    Args:
        deeds: What they are changed with.
        plugin: The name of the plugin.
    """

    def __init__(self, deeds: Deeds, plugin: str) -> None:
        self._deeds = deeds
        self._plugin = plugin

    def __getitem__(self, name: str) -> Secret[str]:
        is_own = asking_plugin() == self._plugin
        deed = self._deeds.deed("secret", entity=f"plugin:{self._plugin}", fields=(name,))
        with deed if name in self and not is_own else nullcontext():
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

    def __contains__(self, name: object) -> bool:
        return name in self._deeds.vault.secret_settings.names(self._plugin)

    def __iter__(self) -> Iterator[str]:
        return iter(self._deeds.vault.secret_settings.names(self._plugin))

    def __len__(self) -> int:
        return len(self._deeds.vault.secret_settings.names(self._plugin))

    def __repr__(self) -> str:
        return f"<secrets of {self._plugin}: {', '.join(self) or 'none'}>"
