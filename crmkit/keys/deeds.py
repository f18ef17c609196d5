"""What every change of keys has in common: who may make it, the lock, and the audit log, which has it first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from crmkit.codec import RecordCodec
from crmkit.durable import explained
from crmkit.registry import asking_plugin
from crmkit.store.tiny import TinyStore
from crmkit.vault import Vault
from crmkit.workspace import Workspace

ACTION = "settings"  # what the roles of the profile call it


@dataclass(frozen=True)
class Deeds:
    """What the keys of a workspace are changed with.

    Attributes:
        workspace: Where it is.
        store: Its open store.
        codec: Knows which fields are sealed.
        vault: Its open vault.
        actor: Returns who acts.
        guard: Raises `Refused` where the actor may not do this.
        busy: Keeps the workspace from locking itself while something takes long.
    """

    workspace: Workspace
    store: TinyStore
    codec: RecordCodec
    vault: Vault
    actor: Callable[[], str]
    guard: Callable[[str], None]
    busy: Callable[[], AbstractContextManager[None]]

    @contextmanager
    def deed(
        self,
        action: str,
        reason: str | None = None,
        check: Callable[[], object] = lambda: None,
        *,
        entity: str = "workspace",
        fields: Collection[str] = (),
    ) -> Iterator[None]:
        """Hold the lock for a block that changes keys; the audit log has it on disk before the block begins.

        Args:
            action: What the log calls it.
            reason: What is said about it; sealed in the log.
            check: Refuses what cannot be done, before it is noted.
            entity: What it is about.
            fields: What of that.
        """
        self.guard(ACTION)
        try:
            with self.store.lock():
                self.vault.refresh()
                check()
                self.vault.note(self.actor(), action, reason, entity=entity, fields=fields, plugin=asking_plugin())
                yield
        except OSError as error:
            raise explained(error, self.workspace.keys) from error
