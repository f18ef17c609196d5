"""The plugin manager: find, load, refuse, call and list plugins.

Plugins come in a fixed order: crmkit's own, named by dotted path; installed ones that the profile names; the
workspace's own files; objects that are passed in. All take the same road. What a plugin contributes is read
when it is registered, so that a broken or conflicting plugin is refused whole and nobody else suffers.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

import pluggy

from crmkit import hooks
from crmkit.contributions import Failure
from crmkit.errors import CrmError, Invalid
from crmkit.plugin_checks import CONTRIBUTIONS, check_contributions, check_hooks, labels

DEFAULT_PLUGINS = (
    "crmkit.plugins.operational.catalog",
    "crmkit.plugins.collaborative.interactions",
    "crmkit.plugins.analytical.revenue",
    "crmkit.plugins.governance.roles",
    "crmkit.plugins.governance.os_keyring",
    "crmkit.plugins.governance.protection",
)
T = TypeVar("T")
State = Literal["active", "disabled", "waiting", "failed", "incompatible"]

_asking: ContextVar[str | None] = ContextVar("plugin that is being called", default=None)


def asking_plugin() -> str | None:
    """Return the name of the plugin whose hook is running, for the audit log; None outside of hooks."""
    return _asking.get()


@dataclass(frozen=True)
class PluginState:
    """One row of ``crm.plugins``."""

    name: str
    state: State
    source: str
    version: str = ""
    hooks: tuple[str, ...] = ()
    reason: str = ""


class PluginTable(Sequence[PluginState]):
    """All plugins and their states; iterate, index by number or name."""

    def __init__(self, rows: Iterable[PluginState]) -> None:
        self._rows = tuple(rows)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            found = next((row for row in self._rows if row.name == key), None)
            if found is None:
                raise KeyError(key)
            return found
        return self._rows[key]

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return "\n".join(f"{row.name:32} {row.state:12} {row.source:12} {row.reason}".rstrip() for row in self._rows)


class Registry:
    """The plugins of one open CRM."""

    def __init__(
        self, core_types: Sequence[type[Any]] = (), reserved: Collection[str] = (), *, strict: bool = False
    ) -> None:
        self.failures: list[Failure] = []
        self._reserved = reserved
        self._strict = strict
        self._manager = pluggy.PluginManager(hooks.PROJECT)
        self._manager.add_hookspecs(hooks)
        self._states: dict[str, PluginState] = {}
        core = {hook: tuple(core_types) if hook == "crm_record_types" else () for hook in CONTRIBUTIONS}
        self._given: dict[str, dict[str, tuple[Any, ...]]] = {"crmkit": core}  # plugin -> hook -> contributions
        self._disabled = {name for name in os.environ.get("CRMKIT_DISABLE_PLUGINS", "").split(",") if name}

    # ------------------------------------------------------------------ loading

    def load_default(self, dotted: str) -> None:
        """Load a module by dotted path; its name is the path's last two parts."""
        name = ".".join(dotted.split(".")[-2:])
        self._load(name, "built-in", lambda: importlib.import_module(dotted))

    def load_entry_point(self, requirement: str) -> None:
        """Load an installed plugin that the profile names, ``"webhooks"`` or ``"webhooks==1.2"``."""
        name, _, wanted = requirement.partition("==")
        point = next(iter(importlib.metadata.entry_points(group=hooks.PROJECT, name=name)), None)
        version = point.dist.version if point and point.dist else ""
        if point is None:
            reason = "is named in crmkit.toml but not installed"
            self._states[name] = PluginState(name, "failed", "installed", reason=reason)
        elif wanted and version != wanted:
            reason = f"crmkit.toml asks for {wanted}, installed is {version}"
            self._states[name] = PluginState(name, "incompatible", "installed", version, reason=reason)
        else:
            self._load(name, "installed", point.load, version)

    def load_file(self, path: Path, source: bytes) -> None:
        """Load a trusted file of the workspace's plugins folder.

        Args:
            path: Where it is.
            source: What it held when it was compared with what the user trusts; just this is run.
        """
        self._load(path.stem, "workspace", lambda: _run(path, source))

    def wait(self, path: Path, reason: str) -> None:
        """List a file of the workspace's plugins folder that is not trusted; nothing of it is run."""
        self._states[path.stem] = PluginState(path.stem, "waiting", "workspace", reason=reason)

    def register(self, plugin: object, name: str | None = None, source: str = "session", version: str = "") -> str:
        """Register an object or module whose functions implement hooks, and return its name.

        Registering under a name that is there already replaces that plugin.

        Raises:
            Invalid: It is a class, names a hook that does not exist, or clashes with another plugin.
        """
        name = name or getattr(plugin, "__name__", type(plugin).__name__).lower()
        if name == "crmkit":
            raise Invalid({"name": "'crmkit' is the core; choose another name"})
        old, state = self._forget(name)
        try:
            self._register(plugin, name)
        except BaseException:
            if old is not None:  # a bad new version does not take the old one away
                self._register(old, name)
            if state is not None:
                self._states[name] = state
            raise
        used = tuple(sorted(caller.name for caller in self._manager.get_hookcallers(plugin) or ()))
        version = version or getattr(plugin, "__version__", "")
        self._states[name] = PluginState(name, "active", source, version, used)
        return name

    def _register(self, plugin: object, name: str) -> None:
        check_hooks(plugin, name)
        self._manager.register(plugin, name)
        try:
            self._given[name] = {hook: self._contributed(plugin, name, hook) for hook in CONTRIBUTIONS}
            self._refuse_clashes(name)
        except Exception:
            self._forget(name)
            raise

    def _load(self, name: str, source: str, load: Callable[[], object], version: str = "") -> None:
        if name in self._disabled or name.rpartition(".")[2] in self._disabled:
            self._states[name] = PluginState(name, "disabled", source, reason="disabled by CRMKIT_DISABLE_PLUGINS")
            return
        try:
            self.register(load(), name, source, version)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # a plugin may fail in any way; it is recorded
            self.record_failure(name, "load", error)
            reason = str(error) if isinstance(error, CrmError) else _reason(error, self.failures[-1].place)
            self._states[name] = PluginState(name, "failed", source, version, reason=reason)

    def fail(self, name: str, error: CrmError) -> None:
        """Take a plugin out whose contribution turned out not to work here."""
        state = self._forget(name)[1]
        self.record_failure(name, "load", error)
        if state is not None:
            self._states[name] = replace(state, state="failed", hooks=(), reason=str(error))

    def provider(self, record_type: type[Any]) -> str:
        """Return the plugin that contributes a record type."""
        return next(name for name, given in self._given.items() if record_type in given["crm_record_types"])

    def _forget(self, name: str) -> tuple[object | None, PluginState | None]:
        plugin = self._manager.unregister(name=name) if self._manager.has_plugin(name) else None
        if name != "crmkit":
            self._given.pop(name, None)
        return plugin, self._states.pop(name, None)

    def _contributed(self, plugin: object, name: str, hook: str) -> tuple[Any, ...]:
        implementation = getattr(plugin, hook, None)
        answer = implementation() if implementation else ()
        items = tuple(answer) if isinstance(answer, Iterable) else (answer,)
        check_contributions(hook, items, name, self._reserved)
        return tuple(item if isinstance(item, type) else replace(item, provider=name) for item in items)

    def _refuse_clashes(self, name: str) -> None:
        for hook in CONTRIBUTIONS:
            taken = {
                label: other
                for other, given in self._given.items()
                for item in given[hook]
                for label in labels(item)
                if other != name
            }
            for item in self._given[name][hook]:
                for kind, word in labels(item):
                    other = taken.setdefault((kind, word), "")
                    if other:
                        raise Invalid({kind: f"{word!r} is contributed by {other} and by {name}; rename one"}, name)
                    taken[kind, word] = name

    # ------------------------------------------------------------------ asking

    @property
    def table(self) -> PluginTable:
        """Every plugin that was found, with its state."""
        return PluginTable(self._states.values())

    def contributions(self, hook: str) -> list[Any]:
        """Return what all plugins contribute to a hook, sorted by name."""
        return sorted(
            (item for given in self._given.values() for item in given[hook]), key=lambda item: labels(item)[0]
        )

    def ask(self, hook: str, read: Callable[[str, Any], T], **arguments: Any) -> list[T]:
        """Ask every plugin, each for itself; one that fails is recorded and left out.

        Args:
            hook: The hook.
            read: Gets a plugin's name and answer and returns what is made of it; its errors count as the plugin's.
            arguments: What the plugins are passed.
        """
        answers: list[T] = []
        for name, call in self._implementations(hook, arguments):
            try:
                with _asks(name):
                    answers.append(read(name, call()))
            except (Exception, SystemExit) as error:  # a plugin may fail in any way; it is recorded
                self.record_failure(name, hook, error)
                if self._strict:
                    raise
        return answers

    def chain(self, hook: str, **arguments: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
        """Yield (plugin, call) in order of registration; the caller adds arguments on the way, errors propagate."""
        yield from self._implementations(hook, arguments)

    def has(self, hook: str) -> bool:
        """Return whether any plugin implements a hook."""
        return bool(getattr(self._manager.hook, hook).get_hookimpls())

    def _implementations(self, hook: str, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
        order = getattr(self._manager.hook, hook).get_hookimpls()
        for implementation in sorted(order, key=lambda each: each.trylast - each.tryfirst):  # else as registered

            def call(_impl: Any = implementation, **later: Any) -> Any:
                everything = {**arguments, **later}
                with _asks(_impl.plugin_name):
                    return _impl.function(*(everything[name] for name in _impl.argnames))

            yield implementation.plugin_name, call

    def record_failure(self, plugin: str, hook: str, error: BaseException) -> None:
        """Remember that a plugin failed: where, and with which type of error, without any value."""
        place = _place(error)
        self.failures.append(Failure(plugin, hook, type(error).__name__, place, datetime.now(UTC)))


@contextlib.contextmanager
def _asks(plugin: str) -> Iterator[None]:
    token = _asking.set(plugin)
    try:
        yield
    finally:
        _asking.reset(token)


def _run(path: Path, source: bytes) -> object:
    """Run the source of a plugin file as a module. No cached byte code is looked for: nobody has trusted that."""
    module = ModuleType(f"crmkit_workspace_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where annotations of its classes are looked up
    exec(compile(source, path, "exec"), module.__dict__)  # noqa: S102  # what the user trusts is to be run
    return module


def _place(error: BaseException) -> str:
    """Return the file and line of an error; of the source itself, where that is no Python."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def _reason(error: BaseException, place: str) -> str:
    """Return why a plugin could not be loaded. What is said of its source holds no value of a customer."""
    said = (
        f": {error}" if isinstance(error, ImportError) else f": {error.msg}" if isinstance(error, SyntaxError) else ""
    )
    return f"{type(error).__name__}{said}" + (f" ({place})" if place else "")
