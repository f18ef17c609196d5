"""Where things are in a workspace folder, and how one is found."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from crmkit.durable import make_folder
from crmkit.errors import Invalid, NotFound

PROFILE = "crmkit.toml"
HOW_TO_MAKE = "make one with: crmkit init FOLDER"


class Workspace:
    """The folder of one CRM: ``crmkit.toml``, ``data/``, ``keys/``, ``plugins/``, ``files/``, ``notebooks/``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.profile = folder / PROFILE
        self.data = folder / "data"
        self.keys = folder / "keys"
        self.plugins = folder / "plugins"
        self.files = folder / "files"
        self.notebooks = folder / "notebooks"

    def __repr__(self) -> str:
        return f"<Workspace {self.folder}>"

    def make_folders(self) -> None:
        """Create the folder and its parts, open to the group; a folder that is there already keeps its mode.

        Raises:
            Invalid: There is a workspace, or something in the way.
        """
        if self.profile.exists():
            raise Invalid({"folder": f"{self.folder} is a workspace already; open it, or choose another folder"})
        if self.folder.exists() and not self.folder.is_dir():
            raise Invalid({"folder": f"{self.folder} is a file; choose a folder"})
        for part in (self.data, self.keys):
            if part.exists():
                what = f"{self.folder} holds {part.name}, but no {PROFILE}"
                raise Invalid({"folder": f"{what}; put that file back, or choose another folder"})
        for part in (self.folder, self.data, self.keys, self.plugins, self.files, self.notebooks):
            make_folder(part)

    def take_back(self) -> None:
        """Undo `make_folders` after the making of the workspace failed: its keys and data open nothing."""
        for part in (self.data, self.keys):
            shutil.rmtree(part, ignore_errors=True)
        for part in (self.plugins, self.files, self.notebooks, self.folder):
            with contextlib.suppress(OSError):  # not empty: somebody else's
                part.rmdir()

    def plain_files(self) -> tuple[list[Path], list[Path]]:
        """Return the files beside data and keys, and what lies among them and is none: links, which lead elsewhere."""
        plain, others = [self.profile], []
        for part in (self.files, self.notebooks, self.plugins):
            for path in sorted(part.rglob("*")):
                if path.is_file() and not path.is_symlink():
                    plain.append(path)
                elif path.is_symlink() or not path.is_dir():
                    others.append(path)
        return plain, others

    def plugin_files(self) -> list[Path]:
        """Return the Python files of the plugins folder, sorted by name."""
        return sorted(path for path in self.plugins.glob("[!_.]*.py") if path.is_file())

    def sources(self) -> dict[Path, bytes]:
        """Return what each plugin file holds."""
        return {path: path.read_bytes() for path in self.plugin_files()}


def locate(path: str | os.PathLike[str] | None = None) -> Workspace:
    """Find a workspace: the folder that was given; else upward from here; else ``$CRMKIT_WORKSPACE``.

    Raises:
        NotFound: There is none; the message says where it looked and how to make one.
    """
    if path is not None:
        folder = Path(path).expanduser().resolve()
        if (folder / PROFILE).is_file():
            return Workspace(folder)
        what = "has no crmkit.toml" if folder.is_dir() else "does not exist"
        if (folder / "keys").is_dir():
            raise NotFound(f"no workspace at {folder}: it has keys, but no {PROFILE}; put that file back")
        raise NotFound(f"no workspace at {folder}: it {what}; {HOW_TO_MAKE}")
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / PROFILE).is_file():
            return Workspace(folder)
    named = os.environ.get("CRMKIT_WORKSPACE")
    if named:
        return locate(named)
    raise NotFound(
        f"no workspace: looked for {PROFILE} in {here} and above, and $CRMKIT_WORKSPACE is not set; {HOW_TO_MAKE}"
    )


def fingerprints(sources: Mapping[Path, bytes]) -> dict[str, str]:
    """Return the SHA-256 of each plugin file by its name: what a user trusts."""
    return {path.name: hashlib.sha256(source).hexdigest() for path, source in sources.items()}


def safe_name(folder: Path) -> str:
    """Return a name for people from a folder's name."""
    return re.sub(r"[-_]+", " ", folder.name).strip().title() or "CRM"
