"""What the files of the repository may not say, and where two of them have to say the same."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest

# Put together here, so that this file does not hold what it looks for.
MACHINE_PATHS = tuple("/" + folder + "/" for folder in ("root", "work", "opt/pypi", "opt/wheels", "home"))
NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
# What comes with pydantic, with JupyterLab, and with a type checker.
COMES_ALONG = {"pydantic_core"} | {"IPython", "jupyter_client", "jupyter_core", "nbclient", "nbformat", "traitlets"}
COMES_ALONG |= {"_typeshed"}
MODULES_OF_NOTEBOOKS = {"crmkit", "datetime"}


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def machine_paths(text: str) -> list[str]:
    return [path for path in MACHINE_PATHS if path in text]


def test_no_file_names_a_path_of_a_machine(repository_files: list[Path], root: Path) -> None:
    found = {}
    for path in repository_files:
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        if hits := machine_paths(text):
            found[str(path.relative_to(root))] = hits
    assert not found


def test_a_path_of_a_machine_would_be_found() -> None:
    """The control."""
    assert machine_paths(f"cd {MACHINE_PATHS[0]}project") == [MACHINE_PATHS[0]]


def test_hooks_reference_is_current(root: Path) -> None:
    docs = load(root / "tools" / "docs.py")
    assert (root / "docs" / "hooks.md").read_text("utf-8") == docs.render(
        (root / "crmkit" / "hooks.py").read_text("utf-8")
    )


def test_every_hook_is_in_the_reference_with_its_arguments(root: Path) -> None:
    from crmkit import hooks

    reference = (root / "docs" / "hooks.md").read_text("utf-8")
    names = [name for name in vars(hooks) if name.startswith("crm_")]
    assert len(names) >= 5
    for name in names:
        arguments = list(getattr(hooks, name).__annotations__)
        assert f"\n### {name}\n" in reference
        for argument in set(arguments) - {"return"}:
            assert f"- `{argument}`: " in reference


def makefile_targets(root: Path) -> dict[str, str]:
    """Return the comment above each target."""
    found = re.findall(r"^# (.+)\n(\w+):$", (root / "Makefile").read_text("utf-8"), re.MULTILINE)
    return {target: comment for comment, target in found}


def test_every_target_has_its_comment(root: Path) -> None:
    phony = re.search(r"^\.PHONY: (.+)$", (root / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == set(makefile_targets(root))


def test_commands_of_the_readme_are_targets(root: Path) -> None:
    readme = (root / "README.md").read_text("utf-8")
    used = re.findall(r"^make (\w+)", readme, re.MULTILINE)
    assert used[:2] == ["demo", "test"]
    assert set(used) <= set(makefile_targets(root))


def test_ci_runs_the_gate_and_the_test_command_of_the_readme(root: Path) -> None:
    commands = [line for line in (root / ".ci" / "run").read_text("utf-8").splitlines() if line.startswith("make ")]
    readme = re.findall(r"^make \w+", (root / "README.md").read_text("utf-8"), re.MULTILINE)
    assert commands == ["make check", readme[1]]


def test_links_of_the_documents_lead_somewhere(root: Path) -> None:
    missing = []
    for page in [*root.glob("*.md"), *(root / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text("utf-8")):
            if not (page.parent / target).exists():
                missing.append(f"{page.name}: {target}")
    assert not missing


def test_lock_files_pin_every_dependency_with_a_hash(root: Path) -> None:
    for name in ("runtime", "dev"):
        text = (root / "requirements" / f"{name}.txt").read_text("utf-8")
        pins = re.split(r"^(?=\S+==)", text, flags=re.MULTILINE)[1:]
        assert len(pins) > 50
        assert not [pin.splitlines()[0] for pin in pins if "--hash=sha256:" not in pin]
        assert not re.findall(r"https?://|--index|--find-links", text)


def test_lock_files_hold_what_the_project_declares(root: Path) -> None:
    declared = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    optional = declared["optional-dependencies"]  # of these, the tests of keyring bring one of their own
    for name, wanted in (
        ("runtime", declared["dependencies"]),
        ("dev", sum((each for name, each in optional.items() if name != "keyring"), declared["dependencies"])),
    ):
        pinned = re.findall(r"^(\S+?)==", (root / "requirements" / f"{name}.txt").read_text("utf-8"), re.MULTILINE)
        names = {re.split(r"[>=\[]", each)[0] for each in wanted} - {"crmkit"}
        assert not names - set(pinned)


def test_every_package_that_is_imported_is_declared(root: Path) -> None:
    declared = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    optional = declared["optional-dependencies"]
    wanted = declared["dependencies"] + optional["pandas"] + optional["keyring"]
    names = {re.split(r"[>=]", each)[0] for each in wanted}
    provided = packages_distributions()
    missing = {}
    for path in (root / "crmkit").rglob("*.py"):
        for module in {name.partition(".")[0] for name in imported(ast.parse(path.read_text("utf-8")))}:
            known = {"crmkit", "."} | sys.stdlib_module_names | COMES_ALONG
            if module not in known and not names & set(map(str.lower, provided.get(module, (module,)))):
                missing[module] = path.name
    assert not missing


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_is_stored_clean(path: Path) -> None:
    notebook = json.loads(path.read_text("utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code
    assert not [cell for cell in code if cell["outputs"] or cell["execution_count"]]
    assert "widgets" not in notebook["metadata"]
    assert path.stat().st_size < 20_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_imports_the_facade_and_holds_no_logic(path: Path) -> None:
    cells = [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    tree = ast.parse("\n".join("".join(cell["source"]) for cell in cells))
    assert imported(tree) <= MODULES_OF_NOTEBOOKS
    assert not [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.For | ast.While)
    ]


def imported(tree: ast.AST) -> set[str]:
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module or ".")
    return modules


def test_shipped_and_contributed_plugins_import_the_facade_only(root: Path) -> None:
    for folder in ("crmkit/plugins", "plugins_contrib"):
        for path in (root / folder).rglob("*.py"):
            modules = {name for name in imported(ast.parse(path.read_text("utf-8"))) if name.startswith("crmkit")}
            assert {name for name in modules if not name.startswith("crmkit.plugins")} <= {"crmkit"}, path


def test_every_module_of_the_core_has_its_floor_in_the_architecture(root: Path) -> None:
    told = (root / "docs" / "architecture.md").read_text("utf-8").partition("Three rules")[0]
    modules = {path.name for path in (root / "crmkit").glob("*.py")} - {"__init__.py"}
    folders = {f"{path.parent.name}/" for path in (root / "crmkit").glob("*/__init__.py")}
    assert not {name for name in modules | folders if f"`{name}`" not in told}


def test_the_contract_of_the_facade_leaves_no_module_out(root: Path) -> None:
    contracts = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    [named] = [set(each["forbidden_modules"]) for each in contracts if each["name"].startswith("Shipped plugins")]
    files = {path.stem for path in (root / "crmkit").glob("*.py")} - {"__init__", "__main__"}
    folders = {path.parent.name for path in (root / "crmkit").glob("*/__init__.py")} - {"cli", "demo", "plugins", "ui"}
    assert named == {f"crmkit.{name}" for name in files | folders}
