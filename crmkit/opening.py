"""Making, opening, restoring and trusting a workspace: `crmkit.create`, `open`, `restore` and `trust`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from crmkit.crm import CRM
from crmkit.errors import CrmError, Damaged, Invalid
from crmkit.identities import ask_shipped_plugins
from crmkit.profile import Profile, problems, read_profile, write_profile
from crmkit.records import new_id
from crmkit.safekeeping.backup import Progress, restore_backup
from crmkit.store.tiny import TinyStore
from crmkit.vault import Vault, user_name
from crmkit.workspace import Workspace, fingerprints, locate, safe_name


def create(
    folder: str | os.PathLike[str],
    *,
    currency: str = "EUR",
    country: str | None = None,
    name: str | None = None,
    time_zone: str = "UTC",
    seal: Literal["personal", "sensitive"] = "personal",
) -> CRM:
    """Make a workspace folder and open it. Never prompts and prints nothing.

    Args:
        folder: Where; it must not hold a workspace.
        currency: ISO 4217 code of amounts that name none.
        country: ISO 3166 code; the region of phone numbers without a country code.
        name: What people call it; the folder's name when left out.
        time_zone: IANA name; the zone in which days begin.
        seal: The lowest class of fields that is sealed on disk: ``"personal"``, names and addresses too, or
            ``"sensitive"``, account and card numbers only.

    Raises:
        Invalid: A setting is wrong, or there is a workspace already.
    """
    place = Workspace(Path(folder).expanduser().resolve())
    try:
        settings: dict[str, Any] = {"currency": currency, "country": country, "time_zone": time_zone, "seal": seal}
        profile = Profile(name=name or safe_name(place.folder), **settings)
    except ValidationError as error:
        raise Invalid(problems(error), "settings") from None
    try:
        place.make_folders()
    except OSError as error:
        place.take_back()
        raise CrmError(f"{place.folder}: no workspace can be made there ({error.strerror})") from None
    try:
        workspace_id = new_id()
        Vault.create(place.keys, workspace_id, seal=seal).close()
        TinyStore.create(place.data, workspace_id)
        write_profile(place.profile, profile)
    except BaseException:
        place.take_back()
        raise
    return CRM(place)


def open(folder: str | os.PathLike[str] | None = None, *, plugins: Iterable[object] = (), strict: bool = False) -> CRM:
    """Open a workspace: the folder that is given, else the one found upward from here, else ``$CRMKIT_WORKSPACE``.

    Args:
        folder: The workspace folder.
        plugins: Plugin objects to register after those of the workspace.
        strict: Let errors inside plugins through, for developing one.

    Raises:
        NotFound: There is no workspace; the message says where it looked.
        Locked: This user cannot open the keys.
        Damaged: Files are not what crmkit wrote.
        Unsupported: A newer crmkit wrote them, or the system is not supported.
    """
    return CRM(locate(folder), plugins, strict=strict)


def restore(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    keys: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> CRM:
    """Make a workspace folder from a backup that `CRM.backup` made, and open it.

    Every file is checked by its SHA-256, and the whole by reading it. The audit log is taken as it was then, which
    may be behind what this user saw, and says from now on that it was restored; other users accept that once, with
    ``crmkit doctor --accept-restored``.

    Args:
        path: The folder of the backups, for the newest of them, or one file with data.
        folder: The workspace to make; it must not exist, or be empty.
        keys: The file with the keys; the one beside the data when left out.
        progress: Told a step and how much of it is done, 0 to 1.

    Raises:
        NotFound: There is no such backup.
        Invalid: Something is where the workspace is to be made, or the path is that of the file of keys.
        Damaged: A file was changed, or data and keys do not belong together; nothing is left behind.
        Locked: This user's identity does not open the backup.
    """
    ask_shipped_plugins()
    made = restore_backup(Path(path), Path(folder), user_name(), Path(keys) if keys else None, progress)
    try:
        return CRM(made.workspace)
    except Damaged:  # its keys were dropped; what cannot be opened is not left behind
        shutil.rmtree(made.workspace.folder)
        raise


def trust(folder: str | os.PathLike[str] | None = None) -> tuple[str, ...]:
    """Trust the code in a workspace's plugins folder, as it is now, for this user; returns the names of its files.

    Raises:
        Refused: The workspace has roles, and none of this user's may change settings.
    """
    workspace = locate(folder)
    if read_profile(workspace.profile).roles:
        with CRM(workspace) as crm:
            crm._guard("settings")
    code = fingerprints(workspace.sources())
    ask_shipped_plugins()
    vault = Vault.unlock(workspace.keys)
    vault.trust_code(code)
    vault.close()
    return tuple(code)
