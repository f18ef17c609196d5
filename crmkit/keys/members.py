"""The members of a workspace: whose identity opens its keys."""

from __future__ import annotations

from collections.abc import Iterator

from crmkit.keys.deeds import Deeds
from crmkit.vault.keyring import Member


class Members:
    """The members of a workspace, ``crm.members``: iterable, and shown as a table.

    Args:
        deeds: What they are changed with.
    """

    def __init__(self, deeds: Deeds) -> None:
        self._deeds = deeds

    def __iter__(self) -> Iterator[Member]:
        with self._deeds.store.lock():
            self._deeds.vault.refresh()
        return iter(self._deeds.vault.members())

    def __len__(self) -> int:
        return sum(1 for _ in self)  # list() would ask for the length first

    def __repr__(self) -> str:
        lines = [f"{each.name}  {each.kind}  {each.added[:10]}  {each.public_key}{self._mark(each)}" for each in self]
        return "\n".join(lines)

    def is_me(self, member: Member) -> bool:
        """Return whether this is the identity that opened the workspace here."""
        return member.public_key == self._deeds.vault.public_key

    def add(self, name: str, public_key: str) -> None:
        """Let one more identity open the workspace: all of it, its past included.

        Args:
            name: How the member is called.
            public_key: What ``crmkit keys identity`` prints for the new member; it begins with ``age1``.

        Raises:
            Invalid: The name is blank or taken, or the public key is none, or is a member's already.
            Refused: The actor may not do this.
        """
        vault = self._deeds.vault
        with self._deeds.deed("member_add", f"{name}: {public_key}", lambda: vault.new_member(name, public_key)):
            vault.add_member(name, public_key)

    def check_leaving(self, name: str) -> None:
        """Check that a member can be removed; nothing is done yet.

        Raises:
            Invalid: Nobody is called so; or it is the last member, or the recovery key.
        """
        with self._deeds.store.lock():
            self._deeds.vault.refresh()
        self._deeds.vault.check_leaving(name)

    def remove(self, name: str) -> None:
        """Shut a member out, and put new keys in the place of those that the member knows.

        What the member copied stays copied. What was cut short is completed by doing it again.

        Raises:
            Invalid: Nobody is called so; or it is the last member, or the recovery key.
            Refused: The actor may not do this.
        """
        vault = self._deeds.vault
        with self._deeds.deed("member_remove", name, lambda: vault.check_leaving(name)):
            vault.remove_member(name)

    def _mark(self, member: Member) -> str:
        return "  (you)" if self.is_me(member) else ""
