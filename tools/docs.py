"""Write docs/hooks.md from crmkit/hooks.py; with --check only say whether it is current."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "crmkit" / "hooks.py"
TARGET = ROOT / "docs" / "hooks.md"
BANNER = re.compile(r"^# -+ (.+)$")
LABEL = re.compile(r"^(When|Combined|Failure): ")
SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Example):{1,2}$")


def render(source: str) -> str:
    """Return the reference of all hooks as Markdown.

    Args:
        source: The text of hooks.py.
    """
    tree = ast.parse(source)
    banners = {n: match[1] for n, line in enumerate(source.splitlines(), 1) if (match := BANNER.match(line))}
    parts = ["# Hooks", "Made from `crmkit/hooks.py` by `tools/docs.py`; change it there.", _prose(tree)]
    for hook in (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("crm_")):
        while banners and min(banners) < hook.lineno:
            parts.append(f"## {banners.pop(min(banners)).capitalize()}")
        parts.append(f"### {hook.name}\n\n```python\n{_signature(hook)}\n```")
        parts.append(_prose(hook))
    return "\n\n".join(parts) + "\n"


def _signature(hook: ast.FunctionDef) -> str:
    returns = f" -> {ast.unparse(hook.returns)}" if hook.returns else ""
    return f"{hook.name}({ast.unparse(hook.args)}){returns}"


def _prose(node: ast.Module | ast.FunctionDef) -> str:
    """Turn a Google docstring into Markdown: sections into bold words, arguments into a list, `::` into code."""
    blocks = inspect.cleandoc(ast.get_docstring(node) or "").split("\n\n")
    return "\n\n".join(_merge_code([_block(block) for block in blocks]))


def _block(block: str) -> str:
    head, _, rest = block.partition("\n")
    section = SECTION.match(head)
    if not section:
        code = all(line.startswith("    ") or not line for line in block.splitlines())
        return _code(block) if code else LABEL.sub(r"**\1**: ", block.replace("``", "`"))
    if not rest:
        return f"**{section[1]}**"
    body = inspect.cleandoc(rest)
    if section[1] == "Args":
        body = re.sub(r"^(\w+): ", r"- `\1`: ", re.sub(r"\n +", " ", body), flags=re.MULTILINE)
    return f"**{section[1]}**\n\n{body.replace('``', '`')}"


def _code(block: str) -> str:
    lines = [line[4:] for line in block.splitlines()]
    return "```python\n" + "\n".join(lines) + "\n```"


def _merge_code(blocks: list[str]) -> list[str]:
    """Join code blocks that only an empty line parted."""
    merged: list[str] = []
    for block in blocks:
        if merged and block.startswith("```python") and merged[-1].endswith("\n```"):
            merged[-1] = merged[-1].removesuffix("\n```") + "\n\n" + block.removeprefix("```python\n")
        else:
            merged.append(block)
    return merged


def main(arguments: list[str]) -> int:
    """Write the reference, or check it; return the exit code."""
    wanted = render(SOURCE.read_text("utf-8"))
    if arguments == ["--check"]:
        if TARGET.exists() and TARGET.read_text("utf-8") == wanted:
            return 0
        print("docs/hooks.md is not what crmkit/hooks.py says; run: .venv/bin/python tools/docs.py", file=sys.stderr)
        return 1
    TARGET.write_text(wanted, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
