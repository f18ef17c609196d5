"""Journals that are cut short, damaged, newer or on a failing disk."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crmkit import durable
from crmkit.errors import CrmError, Damaged, Refused, Unsupported
from crmkit.query import F, Find, parse_order
from crmkit.store import NEW, Delete, PlainCodec, Put, TinyStore
from crmkit.store import journal as journal_module
from crmkit.store.frames import encode
from crmkit.store.journal import Journal
from crmkit.store.synced import Synced

Opener = Callable[..., TinyStore]


def add(store: TinyStore, id: str, text: str = "") -> None:
    store.commit([Put("customers", {"id": id, "text": text}, NEW)], {"at": "today"})


def ids(store: TinyStore) -> list[str]:
    return [doc["id"] for doc in store.scan("customers")]


# --------------------------------------------------------------------------------------------- files and their format


def test_what_the_files_hold(folder: Path, wal: Path, open_tiny: Opener) -> None:
    store = open_tiny()
    store.commit([Put("customers", {"id": "a"}, NEW)], {"at": "today", "actor": "ann"})
    store.commit([Put("customers", {"id": id}, NEW) for id in "bc"], {"at": "today"})
    assert store.workspace == "workspace-1"
    payloads = [line.partition(b" ")[2].decode() for line in wal.read_bytes().splitlines()]
    assert payloads == [
        '[0,[["m",{"format":1,"workspace":"workspace-1","generation":1}]]]',
        '[1,[["m",{"at":"today","actor":"ann"}],["p","customers","a",{"id":"a","rev":1}]]]',
        '[2,[["m",{"at":"today"}],["b","customers",[{"id":"b","rev":1},{"id":"c","rev":1}]]]]',
    ]
    assert (folder / "CURRENT").read_text() == "1\n"
    assert (folder / "LOCK").stat().st_size == 20, "how much of the journal was synced; see synced.py"
    assert all(file.stat().st_mode & 0o777 == 0o660 for file in folder.iterdir())
    assert folder.stat().st_mode & 0o7777 == 0o2770


def test_create_never_replaces_a_store(folder: Path) -> None:
    with pytest.raises(Refused, match="a store here already"):
        TinyStore.create(folder, "other")


def test_a_newer_format_names_both_numbers(wal: Path, open_tiny: Opener) -> None:
    wal.write_bytes(encode(0, [["m", {"format": 7, "workspace": "w"}]]) + b"a newer kind of frame\n")
    with pytest.raises(Unsupported, match=r"has format 7.* reads up to 1"):
        open_tiny()


@pytest.mark.parametrize("name", ["LOCK", "CURRENT", "wal.1.jsonl"])
def test_a_missing_file_is_named_and_not_made(folder: Path, open_tiny: Opener, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(Damaged, match=f"{name}: is missing"):
        open_tiny()
    assert not (folder / name).exists()


@pytest.mark.parametrize("name", ["LOCK", "CURRENT", "wal.1.jsonl"])
def test_a_folder_in_place_of_a_file(folder: Path, open_tiny: Opener, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(Damaged, match=name):
        open_tiny()


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"seven\n", b"\xff", b"9" * 5_000, b"0\n", b"1 2\n", b"1\n\0"], ids=len
)
def test_a_current_file_without_a_number(folder: Path, open_tiny: Opener, content: bytes) -> None:
    (folder / "CURRENT").write_bytes(content)
    with pytest.raises(Damaged, match="CURRENT, line 1: holds no number"):
        open_tiny()


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 90, b"{}\n", durable.frame(b"[0,[]]"), durable.frame(b'[0,[["m",{}]]]')]
)
def test_a_first_line_that_is_not_ours(wal: Path, open_tiny: Opener, content: bytes) -> None:
    wal.write_bytes(content)
    with pytest.raises(Damaged, match=r"wal\.1\.jsonl, line 1"):
        open_tiny()


def test_a_store_that_cannot_be_opened_leaves_no_file_open(folder: Path, wal: Path) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    before = open_files()
    for harm in (lambda: wal.write_bytes(b"?\n"), wal.unlink, lambda: (folder / "CURRENT").write_bytes(b"?")):
        harm()
        with pytest.raises(Damaged):
            TinyStore(folder, PlainCodec())
    assert open_files() == before


def test_a_file_that_the_user_may_not_read(folder: Path, open_tiny: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path, flags: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(Refused, match="LOCK: this user may not"):
        open_tiny()


def test_windows_can_import_but_not_open(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import crmkit.store; from crmkit.errors import Unsupported\n"
        "for name in [name for name in sys.modules if name.startswith('crmkit.store')]: del sys.modules[name]\n"
        "sys.modules['fcntl'] = None; sys.platform = 'win32'\n"
        "from crmkit.store import TinyStore, PlainCodec\n"
        "for use in (lambda p: TinyStore(p, PlainCodec()), lambda p: TinyStore.create(p, 'w')):\n"
        "    try: use(Path(sys.argv[1]))\n"
        "    except Unsupported as error: print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.count("Windows") == 2, done.stderr


# ------------------------------------------------------------------------------------------ an append cut off in time


def tails(frame: bytes) -> list[bytes]:
    """What a crash can leave of one append: any first part of it, or a part that never reached the disk."""
    middle = len(frame) // 2
    cut = [frame[:length] for length in range(1, len(frame))]
    lost = [b"\0" * middle + frame[middle:], frame[:middle] + b"\0" * (len(frame) - middle), b"\0" * len(frame)]
    return [*cut, *lost, frame[:middle] + b"?" + frame[middle + 1 :]]


def survives(tail: bytes, folder: Path, sound: bytes) -> bool:
    """Tell whether a store with this tail opens, takes a commit of the same length, and then holds nothing else."""
    wal = folder / "wal.1.jsonl"
    wal.write_bytes(sound + tail)
    store = TinyStore(folder, PlainCodec())
    assert ids(store) == ["a"]
    add(store, "c", "x" * 40)
    store.close()
    again = TinyStore(folder, PlainCodec())
    survived = ids(again) == ["a", "c"]
    again.close()
    closed = encode(3, [["m", {}]])  # what a store leaves behind that was written to and closed
    return survived and wal.read_bytes() == sound + encode(2, _added("c")) + closed


def _added(id: str) -> list[list[Any]]:
    return [["m", {"at": "today"}], ["p", "customers", id, {"id": id, "text": "x" * 40, "rev": 1}]]


@pytest.fixture
def sound(folder: Path, wal: Path, open_tiny: Opener) -> bytes:
    """A journal with one record, "a"."""
    add(open_tiny(), "a")
    return wal.read_bytes()


@pytest.mark.proof
def test_every_unfinished_append_is_skipped_by_readers_and_cut_by_the_next_writer(folder: Path, sound: bytes) -> None:
    equal, longer = encode(2, _added("b")), encode(2, [*_added("b"), *_added("d")])
    assert all(survives(tail, folder, sound) for tail in [*tails(equal), *tails(longer)[::7], *tails(longer)[-4:]])


def test_control_without_cutting_the_tail_leaves_bytes(
    folder: Path, sound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal, "cut_tail", lambda self: None)
    monkeypatch.setattr(Journal, "_sound_frames", _without_damage(Journal._sound_frames))
    longer = encode(2, [*_added("b"), *_added("d")])
    assert not all(survives(tail, folder, sound) for tail in tails(longer)[-4:])


def test_control_without_a_check_of_the_tail_an_unacknowledged_commit_comes_back(
    folder: Path, sound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two appends of equal length were lost in part: the first torn, the second whole. Neither was acknowledged.

    Without the check the next commit takes the place of the first and makes the second one valid again.
    """
    torn, whole = encode(2, _added("b")).replace(b"x", b"?", 1), encode(3, _added("z"))
    (folder / "wal.1.jsonl").write_bytes(sound + torn + whole)
    with pytest.raises(Damaged, match="line 3"):
        TinyStore(folder, PlainCodec())
    monkeypatch.setattr(Journal, "cut_tail", lambda self: None)
    monkeypatch.setattr(Journal, "_sound_frames", _without_damage(Journal._sound_frames))
    with pytest.raises(AssertionError):
        assert survives(torn + whole, folder, sound)
    again = TinyStore(folder, PlainCodec())
    assert "z" in ids(again)
    again.close()


def _without_damage(read: Callable[[Journal], Any]) -> Callable[[Journal], Any]:
    def lenient(self: Journal) -> Any:
        try:
            yield from read(self)
        except Damaged:
            return

    return lenient


def test_a_reader_waits_for_the_rest_of_a_frame(wal: Path, sound: bytes, open_tiny: Opener) -> None:
    reader, frame = open_tiny(), encode(2, _added("b"))
    for part in (frame[:30], frame[30:]):
        with wal.open("ab") as file:
            assert ids(reader) == ["a"]
            file.write(part)
    assert ids(reader) == ["a", "b"]


# ------------------------------------------------------------------------------------------------------------- damage


def test_damage_is_named_at_open_and_at_write(wal: Path, sound: bytes, open_tiny: Opener) -> None:
    store = open_tiny()
    wal.write_bytes(sound + encode(2, _added("b")).replace(b"x", b"?", 1) + encode(3, _added("c")))
    for use in (lambda: add(store, "d"), lambda: ids(store), open_tiny):
        with pytest.raises(Damaged, match=r"wal\.1\.jsonl, line 3: not what crmkit wrote"):
            use()


def test_verify_reads_again_what_memory_holds(wal: Path, open_tiny: Opener) -> None:
    store = open_tiny()
    for id in "abc":
        add(store, id)
    assert store.verify() == []
    wal.write_bytes(wal.read_bytes().replace(b'"id":"b"', b'"id":"x"'))
    assert ids(store) == ["a", "b", "c"]
    problems = store.verify()
    assert len(problems) == 1
    assert "line 3" in problems[0]


@pytest.mark.parametrize("harm", ["cut short", "removed", "replaced"])
def test_a_journal_that_somebody_else_touched_is_never_written(wal: Path, open_tiny: Opener, harm: str) -> None:
    store = open_tiny()
    add(store, "a")
    data = wal.read_bytes()
    if harm == "cut short":
        os.truncate(wal, len(data) - 5)
    else:
        wal.unlink()
    if harm == "replaced":
        wal.write_bytes(data)
    for use in (lambda: add(store, "b"), lambda: ids(store)):
        with pytest.raises(Damaged, match="cut short, replaced or removed"):
            use()


WRONG_SHAPES = [
    "7",
    "null",
    "{}",
    '{"a":1,"b":2}',
    "[2]",
    '["2",[]]',
    "[2,{}]",
    "[2,7]",
    "[2,[7]]",
    "[2,[[]]]",
    '[2,[["m"]]]',
    '[2,[["m",7]]]',
    '[2,[["zz","customers"]]]',
    '[2,[["p","customers","b"]]]',
    '[2,[["p","customers","b",7]]]',
    '[2,[["p","customers","b",{"rev":1}]]]',
    '[2,[["p","customers","b",{"id":"b"}]]]',
    '[2,[["p","customers","b",{"id":"c","rev":1}]]]',
    '[2,[["p","customers",["b"],{"id":["b"],"rev":1}]]]',
    '[2,[["p",["customers"],"b",{"id":"b","rev":1}]]]',
    '[2,[["p","customers","b",{"id":"b","rev":"1"}]]]',
    '[2,[["b","customers",{"id":"b","rev":1}]]]',
    '[2,[["b","customers",[{"id":"b","rev":1},{"rev":1}]]]]',
    '[2,[["d","customers"]]]',
    '[2,[["d","customers",["b"]]]]',
    "9" * 5_000,
    "[" * 100_000,
    "no JSON at all",
]


@pytest.mark.parametrize("is_last", [True, False], ids=["last", "in the middle"])
@pytest.mark.parametrize("payload", WRONG_SHAPES, ids=lambda payload: payload[:60])
def test_a_frame_of_another_shape_is_damage_although_its_checksum_is_right(
    wal: Path, sound: bytes, open_tiny: Opener, payload: str, is_last: bool
) -> None:
    store = open_tiny()
    line = durable.frame(payload.encode())
    wal.write_bytes(sound + line + (b"" if is_last else encode(3, _added("c"))))
    for use in (open_tiny, lambda: ids(store), lambda: add(store, "d")):
        with pytest.raises(Damaged, match=r"wal\.1\.jsonl, line 3: not what crmkit wrote"):
            use()
    assert [problem for problem in store.verify() if "line 3" in problem]
    assert wal.read_bytes().startswith(sound + line), "what was acknowledged once is never cut"


def test_a_first_frame_of_another_shape_names_the_first_line(wal: Path, open_tiny: Opener) -> None:
    for payload in ('{"a":1,"b":2}', "[0,7]", "[" * 100_000):
        wal.write_bytes(durable.frame(payload.encode()))
        with pytest.raises(Damaged, match=r"wal\.1\.jsonl, line 1"):
            open_tiny()


def test_verify_names_a_commit_that_is_missing(wal: Path, open_tiny: Opener) -> None:
    store = open_tiny()
    for id in "abc":
        add(store, id)
    lines = wal.read_bytes().splitlines(keepends=True)
    wal.write_bytes(b"".join([*lines[:2], lines[3]]))
    (problem,) = store.verify()
    assert "line 3: commit 3 comes after commit 1" in problem


def test_a_system_that_reads_less_than_it_was_asked_for(
    wal: Path, open_tiny: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One read stops at 2 GiB; what is behind it must not be taken for an append that did not finish."""
    writer, reader, real = open_tiny(), open_tiny(), os.pread
    for id in "abc":
        add(writer, id)
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: real(fd, min(size, 60), offset))
    add(reader, "d")
    assert ids(reader) == list("abcd")
    assert reader.verify() == []
    reader.register("customers")
    reader.register("customers")
    assert ids(reader) == ids(open_tiny()) == list("abcd")


def test_a_frame_out_of_turn_is_damage(wal: Path, sound: bytes, open_tiny: Opener) -> None:
    wal.write_bytes(sound + encode(5, _added("b")))
    with pytest.raises(Damaged, match="line 3"):
        open_tiny()


# ----------------------------------------------------------------------------------------------------- a failing disk


def failing(code: int) -> Callable[..., Any]:
    def fail(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("how", ["error", "short write"])
def test_a_full_disk_leaves_the_file_as_it_was(
    wal: Path, open_tiny: Opener, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    store, real = open_tiny(), os.pwrite
    add(store, "a")
    before = wal.read_bytes()
    short = lambda fd, data, offset: real(fd, data[: len(data) // 2], offset)  # noqa: E731
    monkeypatch.setattr(os, "pwrite", failing(errno.ENOSPC) if how == "error" else short)
    with pytest.raises(CrmError, match="nothing was saved"):
        add(store, "b")
    assert wal.read_bytes() == before
    assert ids(store) == ["a"]
    monkeypatch.undo()
    add(store, "b")
    assert ids(open_tiny()) == ["a", "b"]


def test_after_a_failed_sync_the_store_is_read_only_until_reopened(
    open_tiny: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_tiny()
    add(store, "a")
    monkeypatch.setattr(os, "fdatasync", failing(errno.EIO))
    with pytest.raises(CrmError, match="may not be saved"):
        add(store, "b")
    monkeypatch.undo()
    assert ids(store) == ["a"], "what could not be synced is not shown"
    with pytest.raises(CrmError, match="read only until opened again"):
        add(store, "c")
    add(open_tiny(), "d")


def test_a_reader_shows_nothing_that_it_cannot_sync(open_tiny: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, reader = open_tiny(), open_tiny()
    monkeypatch.setattr(Synced, "tell", lambda *_: None)  # the writer ended before it could tell that it had synced
    add(writer, "a")
    monkeypatch.setattr(os, "fdatasync", failing(errno.EIO))
    with pytest.raises(CrmError):
        reader.get("customers", "a")
    monkeypatch.undo()
    assert reader.get("customers", "a") is None
    assert open_tiny().get("customers", "a") is not None


class Calls:
    """Counts and records the calls that reach the disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        for name in ("pwrite", "fdatasync"):
            monkeypatch.setattr(os, name, self._counted(name, getattr(os, name)))

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.made.append(name)
            return real(*arguments)

        return call


def test_a_commit_is_one_write_and_one_sync(open_tiny: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = open_tiny(), open_tiny()
    calls = Calls(monkeypatch)
    add(store, "a")
    assert calls.made == ["pwrite", "fdatasync"]
    other.seq()
    assert calls.made == ["pwrite", "fdatasync"], "its writer told that it is on disk"
    add(store, "b")
    add(other, "c")
    assert calls.made == ["pwrite", "fdatasync"] * 3
    monkeypatch.setattr(Synced, "tell", lambda *_: None)  # as if it had ended between the two calls
    add(store, "d")
    other.seq()
    assert calls.made == [*["pwrite", "fdatasync"] * 4, "fdatasync"], "a foreign frame is synced before it is shown"
    add(store, "e")
    add(other, "f")
    assert calls.made[9:] == ["pwrite", "fdatasync", "fdatasync", "pwrite", "fdatasync"]
    monkeypatch.undo()
    store.close()


def test_an_interrupted_commit_is_taken_in_later(open_tiny: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_tiny()
    store.register("customers", text=lambda doc: doc["text"])
    store.match("customers", ["x"], 1)
    monkeypatch.setattr(Journal, "advance", lambda self, frame: _interrupt())
    with pytest.raises(KeyboardInterrupt):
        add(store, "a", "text")
    monkeypatch.undo()
    add(store, "b", "text")
    assert [doc["id"] for doc in store.match("customers", ["text"], 9)] == ["a", "b"]
    assert store.seq() == 2


def interrupted_at(line: int, modules: tuple[str, ...], work: Callable[[], object]) -> bool:
    """Do some work with an interrupt before the given line of what these modules run; False where it ran to its end."""
    left = line

    def trace(frame: Any, event: str, argument: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(modules):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                sys.settrace(None)
                _interrupt()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_an_interrupt_while_a_commit_is_counted_repeats_no_number(
    open_tiny: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = Journal.advance
    for line in range(1, 10):
        store = open_tiny()

        def interrupted(self: Journal, frame: Any, line: int = line) -> None:
            if interrupted_at(line, ("journal.py",), lambda: advance(self, frame)):
                _interrupt()

        monkeypatch.setattr(Journal, "advance", interrupted)
        try:
            add(store, f"{line}")
        except KeyboardInterrupt:
            was_interrupted = True
        else:
            was_interrupted = False
        monkeypatch.undo()
        add(store, f"{line} and on")
        assert store.verify() == []
        assert ids(open_tiny()) == ids(store)
        if not was_interrupted:
            break
    assert 1 < line < 9


def test_an_interrupt_at_any_line_of_an_index_leaves_none_that_is_half_changed(open_tiny: Opener) -> None:
    store = open_tiny()
    store.register("customers", unique=["text"], text=lambda doc: doc["text"])
    store.commit([Put("customers", {"id": f"{n:04}", "text": f"text {n:04}"}, NEW) for n in range(1100)], {})
    line, was_interrupted = 0, True
    while was_interrupted:
        line += 1
        new, gone = f"zebra {line:04}", f"{line:04}"
        store.match("customers", ["text"], 1)
        store.count("customers", F.text.contains("text"))
        writes = [Put("customers", {"id": new, "text": new}, NEW), Delete("customers", gone, 1)]
        was_interrupted = interrupted_at(line, ("documents.py", "indexes.py"), lambda: store.commit(writes, {}))  # noqa: B023
        if store.get("customers", new) is None:
            continue  # interrupted while it was checked: nothing was written
        last = store.find(Find("customers", order=parse_order("-text"), limit=1)).records[0]
        assert last["id"] == new
        for found in (
            [doc["id"] for doc in store.match("customers", [new], 5)],
            [doc["id"] for doc in store.find(Find("customers", F.text.contains(new)))],
            [doc["id"] for doc in store.find(Find("customers", F.text == new))],
        ):
            assert found == [new]
        assert store.match("customers", [f"text {gone}"], 5) == []
        assert store.count("customers", F.text == f"text {gone}") == 0
    assert 50 < line < 1100


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_frames_are_checked_with_crc32() -> None:
    assert encode(0, []) == b"%08x [0,[]]\n" % zlib.crc32(b"[0,[]]")
    assert journal_module.decode(encode(0, [])) == (0, [], 16)
