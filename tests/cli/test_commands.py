"""Every command: what it says, its JSON, and one clear line with exit code 1 where it cannot do what was asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import crmkit
from crmkit.cli import data, demo

PLUGIN = """
from pathlib import Path
from crmkit import hookimpl

Path(__file__).with_name("ran").touch()


@hookimpl
def crm_analyses():
    return []
"""
ROOT = Path(__file__).parents[2]


def refused(done: Any, words: str) -> None:
    """Check that a command ended with one clear line on stderr, and nothing else."""
    assert done.code == 1
    assert words in done.err
    assert done.err.startswith("crmkit: ")
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err


# --------------------------------------------------------------------------- init


def test_init_makes_a_workspace(run: Any, tmp_path: Path) -> None:
    done = run("init", "acme", "--currency", "GBP", "--country", "GB", "--name", "Acme & Co")
    assert done.code == 0
    assert "made Acme & Co" in done.out
    with crmkit.open(tmp_path / "acme") as crm:
        assert (crm.profile.currency, crm.profile.country, crm.profile.name) == ("GBP", "GB", "Acme & Co")


def test_init_prints_no_secret(run: Any, own_identity: Path) -> None:
    done = run("init", "acme")
    secret = (own_identity / "identity.txt").read_text()
    assert "AGE-SECRET-KEY" in secret
    assert "SECRET" not in done.out + done.err


def test_codes_are_typed_in_any_case(run: Any, tmp_path: Path) -> None:
    assert run("init", "acme", "--currency", "gbp", "--country", "gb").code == 0
    with crmkit.open(tmp_path / "acme") as crm:
        assert (crm.profile.currency, crm.profile.country) == ("GBP", "GB")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("acme",), "is a workspace already"),
        (("b", "--currency", "XXQ"), "is not a currency"),
        (("b", "--country", "Germany"), "ISO 3166"),
        (("b", "--time-zone", "Mars"), "IANA"),
    ],
)
def test_init_refuses(run: Any, workspace: Path, arguments: tuple[str, ...], words: str) -> None:
    refused(run("init", *arguments), words)


# --------------------------------------------------------------------------- finding the workspace


def test_the_workspace_is_named_or_found_upward_or_in_the_environment(
    run: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expression = "crm.profile.name"
    assert run("py", "-w", workspace, expression).out == "Acme\n"
    monkeypatch.setenv("CRMKIT_WORKSPACE", str(workspace))
    assert run("py", expression).out == "Acme\n"
    monkeypatch.delenv("CRMKIT_WORKSPACE")
    monkeypatch.chdir(workspace / "data")
    assert run("py", expression).out == "Acme\n"


@pytest.mark.parametrize(
    "command", [("find", "a"), ("plugins",), ("doctor",), ("py", "1"), ("lab",), ("plugins", "trust")]
)
def test_no_workspace_says_where_it_looked_and_how_to_make_one(
    run: Any, tmp_path: Path, command: tuple[str, ...]
) -> None:
    done = run(*command)
    refused(done, str(tmp_path))
    assert "crmkit init" in done.err
    refused(run(*command, "-w", "none"), "does not exist")


def test_a_locked_identity_is_one_line(run: Any, workspace: Path, own_identity: Path) -> None:
    (own_identity / "identity.txt").unlink()
    refused(run("find", "ada", "-w", workspace), "identity")


def test_a_damaged_journal_is_one_line(run: Any, workspace: Path) -> None:
    with crmkit.open(workspace) as crm:
        for number in range(20):  # damage that others follow; a damaged end is a torn write, and is cut off
            crm.customers.add(name=f"Customer {number}")
    journal = max((workspace / "data").glob("*"), key=lambda path: path.stat().st_size)
    data = bytearray(journal.read_bytes())
    data[len(data) // 2] ^= 1
    journal.write_bytes(data)
    done = run("doctor", "-w", workspace)
    assert done.code == 1
    assert "Traceback" not in done.err
    assert journal.name in done.err + done.out


# --------------------------------------------------------------------------- find


def test_find_shows_a_table_and_masks(run: Any, workspace: Path) -> None:
    done = run("find", "ada lov", "-w", workspace)
    assert done.code == 0
    assert "Ada Lovelace" in done.out
    assert "\n1 customer found\n" in done.out
    found = json.loads(run("find", "ada", "-w", workspace, "--json").out)
    assert found[0]["city"] == "London"
    assert found[0]["iban"] == "GB•• •••• 5555"


def test_find_by_an_account(run: Any, workspace: Path) -> None:
    done = run("find", "GB33 BUKB 2020 1555 5555 55", "-w", workspace)
    assert "Ada Lovelace" in done.out
    assert "5555 55" not in done.out


def test_find_nothing_and_the_limit(run: Any, workspace: Path) -> None:
    assert run("find", "zebra", "-w", workspace).out == "0 customers found\n"
    with crmkit.open(workspace) as crm:
        crm.customers.add_many([{"name": "Adam"}, {"name": "Bob"}])
    assert run("find", "ad", "--limit", "1", "-w", workspace).out.endswith(
        "1 customer found of 2; --limit shows more\n"
    )
    assert run("find", "ad", "--limit", "2", "-w", workspace).out.endswith("2 customers found\n")
    assert [run("find", "a", "--limit", limit, "-w", workspace).code for limit in ("0", "1", "10000", "10001")] == [
        2,
        0,
        0,
        2,
    ]


def test_find_of_another_type(run: Any, workspace: Path) -> None:
    with crmkit.open(workspace) as crm:
        crm.products.add(name="Bowl", sku="B1")
    assert "Bowl" in run("find", "bowl", "--type", "product", "-w", workspace).out
    refused(run("find", "a", "--type", "prodct", "-w", workspace), "known are")


def test_data_cannot_steer_the_terminal(run: Any, workspace: Path) -> None:
    with crmkit.open(workspace) as crm:
        crm.customers.add(name="Eve \x1b[31m\u202eevil")
    done = run("find", "eve", "-w", workspace)
    assert "Eve �[31m�evil" in done.out
    assert "\x1b" not in done.out


# --------------------------------------------------------------------------- plugins


def test_plugins_are_listed_with_states_and_reasons(run: Any, workspace: Path) -> None:
    (workspace / "plugins" / "own.py").write_text(PLUGIN)
    done = run("plugins", "-w", workspace)
    assert "operational.catalog" in done.out
    assert "until you trust this workspace" in done.out
    rows = {row["name"]: row for row in json.loads(run("plugins", "-w", workspace, "--json").out)}
    assert (rows["own"]["state"], rows["analytical.revenue"]["state"]) == ("waiting", "active")


def test_trust_lists_the_files_and_has_to_be_said(run: Any, workspace: Path) -> None:
    assert "nothing to trust" in run("plugins", "trust", "-w", workspace).out
    (workspace / "plugins" / "own.py").write_text(PLUGIN)
    done = run("plugins", "trust", "-w", workspace)
    assert "own.py" in done.out
    assert done.code == 1
    assert "nothing was trusted" in done.err
    assert not (workspace / "plugins" / "ran").exists()
    assert "trusted, as they are now: own.py" in run("plugins", "-w", workspace, "trust", "--yes").out
    assert json.loads(run("plugins", "-w", workspace, "--json").out)[-1]["state"] == "active"
    assert (workspace / "plugins" / "ran").exists()


def trusted(workspace: Path, code: str) -> None:
    (workspace / "plugins" / "own.py").write_text(code)
    crmkit.trust(workspace)


def test_what_a_plugin_prints_is_no_part_of_the_answer(run: Any, workspace: Path) -> None:
    trusted(workspace, PLUGIN + "\nprint('hello from a plugin')\n")
    done = run("plugins", "-w", workspace, "--json")
    assert json.loads(done.out)[-1]["name"] == "own"
    assert "hello from a plugin" in done.err


def test_a_plugin_that_cannot_be_loaded_is_shown_with_its_place(run: Any, workspace: Path) -> None:
    trusted(workspace, "import crmkit\n\ncrmkit.no_such_name\n")
    done = run("plugins", "-w", workspace)
    assert "own failed in load: AttributeError at " in done.out
    [row] = [row for row in json.loads(run("plugins", "-w", workspace, "--json").out) if row["name"] == "own"]
    assert row["state"] == "failed"
    assert row["failures"][0].startswith("load: AttributeError at ")


# --------------------------------------------------------------------------- doctor, py, lab


def test_doctor_counts_and_is_content(run: Any, workspace: Path) -> None:
    done = run("doctor", "-w", workspace)
    assert done.code == 0
    assert "records: customers 1, " in done.out
    assert "all is well" in done.out
    report = json.loads(run("doctor", "-w", workspace, "--json").out)
    assert report["problems"] == []
    assert report["bytes"]["data"] > 0


def test_doctor_finds_a_changed_audit_log(run: Any, workspace: Path) -> None:
    with crmkit.open(workspace) as crm:
        crm.reveal(crm.customers.find().records[0], "iban", reason="test")
    log = workspace / "keys" / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"reveal"', b'"glance"'))
    done = run("doctor", "-w", workspace)
    assert done.code == 1
    assert "was changed" in done.out + done.err


def test_py_prints_what_an_expression_gives(run: Any, workspace: Path) -> None:
    assert run("py", "crm.customers.count(F.city == 'London')", "-w", workspace).out == "1\n"
    assert run("py", "crmkit.__version__", "-w", workspace).out == f"{crmkit.__version__}\n"
    assert run("py", "None", "-w", workspace).out == ""
    assert run("py", "'a\\x1b[31mb\\nc'", "-w", workspace).out == "a�[31mb\nc\n"  # through the same door as all text


@pytest.mark.parametrize("expression", ["1 +", "crm.nothing", "1 / 0", "crm.customers['x']", "import os"])
def test_py_says_in_one_line_what_is_wrong(run: Any, workspace: Path, expression: str) -> None:
    refused(run("py", expression, "-w", workspace), "")


def test_lab_starts_on_the_workspace(run: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from crmkit.ui import lab

    calls: list[tuple[Any, ...]] = []

    class Running:
        url, token = "http://127.0.0.1:1/lab", "t0ken"

        def __enter__(self) -> Running:
            return self

        def __exit__(self, *_: object) -> None:
            calls.append(("stopped",))

        def wait(self) -> None:
            raise KeyboardInterrupt

    def launch(folder: Path, **how: Any) -> Running:
        calls.append((folder, how))
        return Running()

    monkeypatch.setattr(lab, "launch", launch)
    done = run("lab", "-w", workspace, "--port", "8999")
    assert done.code == 0
    assert calls == [(workspace, {"browser": True, "port": 8999}), ("stopped",)]
    assert "t0ken" not in done.out  # the browser gets it by a private file
    assert "t0ken" in run("lab", "-w", workspace, "--no-browser").out


@pytest.mark.parametrize("port", ["0", "65536", "-1"])
def test_lab_takes_a_port(run: Any, workspace: Path, port: str) -> None:
    assert run("lab", "-w", workspace, "--port", port).code == 2


@pytest.mark.parametrize("command", [("lab", "-w", "acme"), ("demo", "mine")])
def test_without_the_screens_a_line_says_so(
    run: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setitem(sys.modules, "crmkit.ui", None)  # as where it was taken away
    monkeypatch.setattr(demo, "_build", lambda *_, **__: workspace)
    refused(run(*command), "screens")


# --------------------------------------------------------------------------- the program itself


def program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_python_m_crmkit() -> None:
    done = program("-m", "crmkit", "--version")
    assert (done.returncode, done.stdout) == (0, f"crmkit {crmkit.__version__}\n")


def test_help_names_every_command_and_usage_errors_are_2(run: Any) -> None:
    text = run("--help").out
    for command in ("init", "import", "find", "plugins", "demo", "lab", "doctor", "py", "backup", "restore", "export"):
        assert command in text
        assert run(command, "--help").code == 0
    assert run("nonsense").code == 2
    assert run("import", "x.csv").code == 2


def test_help_imports_nothing_heavy() -> None:
    heavy = "{'rich', 'pandas', 'numpy', 'plotly', 'ipywidgets', 'IPython', 'openpyxl', 'nbclient', 'babel'}"
    code = (
        "import sys, crmkit.cli as c; sys.argv = ['crmkit', '--help']\n"
        f"try: c.main()\nexcept SystemExit: print({heavy} & set(sys.modules))"
    )
    assert program("-c", code).stdout.endswith("set()\n")


def test_a_traceback_is_for_those_who_ask(workspace: Path) -> None:
    quiet = program("-m", "crmkit", "find", "a", "-w", "none")
    assert (quiet.returncode, quiet.stderr.count("\n")) == (1, 1)
    asked = program("-m", "crmkit", "find", "a", "-w", "none", CRMKIT_DEBUG="1")
    assert "Traceback" in asked.stderr


def test_a_mistake_of_ours_is_a_line_too(run: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(workspace: Path | None) -> None:
        raise ZeroDivisionError("a value")

    monkeypatch.setattr(data, "open_crm", broken)
    done = run("find", "ada")
    assert done.code == 70
    assert done.err == (
        "crmkit: this is a mistake in crmkit or in a plugin: ZeroDivisionError; CRMKIT_DEBUG=1 shows where\n"
    )
    monkeypatch.setenv("CRMKIT_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run("find", "ada")


def test_a_terminal_that_knows_few_signs(workspace: Path) -> None:
    with crmkit.open(workspace) as crm:
        crm.customers.add(name="Zoë Åkesson 日本")
    done = program("-m", "crmkit", "find", "zoë", "-w", str(workspace), PYTHONIOENCODING="ascii", PYTHONUTF8="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Zo\\xeb \\xc5kesson" in done.stdout
    done = program("-m", "crmkit", "find", "zoë", "-w", str(workspace), "--json", PYTHONIOENCODING="latin-1")
    assert json.loads(done.stdout)[0]["name"] == "Zoë Åkesson 日本"  # JSON has its own way to write them


def test_a_reader_that_has_seen_enough(workspace: Path) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [sys.executable, "-m", "crmkit", "py", "'x' * 1_000_000", "-w", str(workspace)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=theirs,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_folder_that_was_removed_under_us(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    refused(run("find", "a"), "was removed")


def test_the_demo_says_where_it_cannot_be(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRMKIT_WORKSPACE", "")
    (tmp_path / "mine" / "workspace").mkdir(parents=True)
    refused(run("demo", "mine"), "has no crmkit.toml")
    (tmp_path / "file").touch()
    refused(run("demo", "file"), "is a file")
    assert run("demo", "--as-of", "1999-12-31").code == 2
    assert run("demo", "--as-of", "2101-01-01").code == 2
    assert not (tmp_path / ".demo").exists()


def test_the_demo_without_a_browser(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRMKIT_CONFIG", str(tmp_path / "mine"))
    monkeypatch.setenv("CRMKIT_WORKSPACE", "")
    done = run("demo", "--headless", "--as-of", "2026-11-01")
    assert done.code == 0, done.err
    for words in ("customers: 2,000", "purchases: 20,000", "2026-10", "••••", "operational.catalog (active)"):
        assert words in done.out
    assert not (tmp_path / "mine").exists()  # the demo keeps to its own keys
    assert sorted(path.name for path in (tmp_path / ".demo").iterdir()) == ["config", "workspace"]
    monkeypatch.setattr(demo, "_run_home", lambda place: None)  # it has run; what is built stays as it is
    again = run("demo", "--headless", "--as-of", "2026-11-01", "--json")
    assert json.loads(again.out)["customers"] == 2_000
    assert "nothing was sold" not in done.out
    assert "nothing was sold in these months" in run("demo", "--headless", "--as-of", "2030-01-01").out
