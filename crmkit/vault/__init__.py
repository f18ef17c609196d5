"""Sealed fields: keyring, data keys, envelopes, exact search, audit log and what a user trusts."""

from __future__ import annotations

from crmkit.vault.identity import user_name
from crmkit.vault.vault import Vault

__all__ = ["Vault", "user_name"]
