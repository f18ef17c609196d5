"""What unfinished writes left: kept beside the journal when it is cut, saved with it, and told of."""

from __future__ import annotations

from pathlib import Path

from crmkit.workspace import Workspace

COMPARE = "if nothing crashed lately, compare the newest records with the last backup"


def torn_files(workspace: Workspace) -> list[Path]:
    """Return the files that hold what unfinished writes left in the journal."""
    return sorted(workspace.data.glob("torn.*"))


def told_of_torn(path: Path) -> str:
    """Return a line for a person about one of them."""
    size = path.stat().st_size
    return f"{path} holds {size:,} bytes that an unfinished write left; {COMPARE}, then remove it"
