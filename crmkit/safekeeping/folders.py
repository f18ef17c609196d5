"""New folders that are there whole or not at all: what `restore`, `export` and `salvage` write."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crmkit.durable import FOLDER_MODE, make_folder, sync_folder
from crmkit.errors import CrmError, Invalid


@contextmanager
def new_folder(path: Path, mode: int = FOLDER_MODE) -> Iterator[Path]:
    """Yield a hidden folder to be filled; it gets its name, and is on disk, when the block ends well.

    What a killed process left of an earlier try is removed first.

    Args:
        path: The folder to make; it must not exist, or be empty.
        mode: Who may use it.

    Raises:
        Invalid: There is something already.
        CrmError: The system cannot write; nothing is left behind.
    """
    if path.is_symlink() or (path.exists() and not (path.is_dir() and not any(path.iterdir()))):
        raise Invalid({"folder": f"{path} exists already; name a new folder, nothing is ever written over an old one"})
    unfinished = made = path.with_name(f".{path.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        make_folder(unfinished, mode)
        yield unfinished
        _sync_all(unfinished)
        made = unfinished.rename(path)
        sync_folder(path.parent)
    except BaseException as error:
        shutil.rmtree(made, ignore_errors=True)
        if isinstance(error, OSError):
            raise failed(error, path, unfinished) from error
        if isinstance(error, CrmError):  # what it names is where nobody will find it
            error.args = tuple(str(each).replace(str(unfinished), str(path)) for each in error.args)
        raise


def failed(error: OSError, path: Path, temporary: Path | None = None) -> CrmError:
    """Return the error of ours for what the system says about a file, or about the file system of `path`.

    Args:
        error: What it says.
        path: What was to be made.
        temporary: What that is called until it is complete, which means nothing to anybody else.
    """
    name = str(error.filename or path).replace(str(temporary or path), str(path))
    return CrmError(f"{name}: {error.strerror or error}; nothing was made")


def _sync_all(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            fd = os.open(Path(parent, name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        sync_folder(Path(parent))
