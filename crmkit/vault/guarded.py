"""What every object that holds keys has in common: it shows nothing and cannot be copied or pickled."""

from __future__ import annotations

import contextlib
import resource
from typing import NoReturn, SupportsIndex


class Guarded:
    """Base of objects that hold keys: a repr without content, no pickling and no copying."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds keys: it cannot be pickled or copied")


def leave_no_core() -> None:
    """Let this process write no memory image when it crashes: there would be keys in it."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
