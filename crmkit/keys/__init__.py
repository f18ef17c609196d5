"""What people do with the keys of an open workspace: ``crm.keys``, ``crm.members`` and ``crm.secrets``."""

from __future__ import annotations

from crmkit.keys.keys import Keys
from crmkit.keys.members import Members
from crmkit.keys.recovery import recover
from crmkit.keys.settings import PluginSecrets, Secrets

__all__ = ["Keys", "Members", "PluginSecrets", "Secrets", "recover"]
