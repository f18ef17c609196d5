"""Salvage: a new store from the files of a damaged one, with every good record, and the names of what is lost.

Works on frames as they are on disk, so that no key is needed and what is sealed stays sealed. A line in which one bit
is wrong is put right by its checksum. One that is not sound otherwise loses only itself, and the records that can be
read in it are kept apart; where the snapshot of a generation is damaged, the files of the one before it, which are
kept for readers, make up for what they still hold.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from crmkit import durable
from crmkit.errors import Damaged, NotFound
from crmkit.store.base import Doc
from crmkit.store.compaction import DOCUMENTS, Place, born, condensed
from crmkit.store.documents import patched
from crmkit.store.files import FIRST, Files
from crmkit.store.frames import FORMAT, Frame, Operation, copied
from crmkit.store.pieces import frames, mended, named_records, new_records, pieces

PARTS = ".parts"  # under this ending stand records of which only some fields are left
UNSURE = ".unsure"  # under this one those from a damaged line, any field of which may be wrong
SEALED = ".sealed"  # and under this one those whose keys are lost
APART = (PARTS, UNSURE, SEALED)
NAMED = 5  # records that are named in one line; of more there is the number

UNFINISHED = "is damaged, or was being written when the system stopped and never acknowledged"
_KIND = re.compile(r"(?:wal|snap|log)\.([1-9][0-9]{0,17})\.jsonl")


@dataclass(frozen=True)
class Salvaged:
    """What was saved and what was not.

    Attributes:
        records: How many records were saved, by collection.
        seq: The number of the last commit that was found.
        losses: What is lost, one line each: which file and line, which records as far as they can be read.
        mended: What was put right, one line each; nothing of it is lost.
        lost: The ids of the records that a damaged line is about and of which nothing was saved, by collection.
    """

    records: Mapping[str, int]
    seq: int
    losses: tuple[str, ...]
    mended: tuple[str, ...] = ()
    lost: Mapping[str, Sequence[str]] = field(default_factory=dict)


class _Loss(NamedTuple):
    """A place in a file that is not sound, and the records that it seems to be about."""

    path: Path
    line: int
    what: str
    places: frozenset[Place] = frozenset()


def survey(folder: Path) -> Salvaged:
    """Return what `salvage` would save of a store, and what is lost; nothing is written.

    Raises:
        NotFound: There is no journal and no snapshot.
    """
    return _Wreck(Files(folder)).result()


def salvage(
    folder: Path, to: Path, workspace: str = "", can_open: Callable[[str, Doc], bool] | None = None
) -> Salvaged:
    """Write a new store with everything that can still be read of a damaged one.

    Args:
        folder: The damaged store; nothing in it is changed.
        to: The folder of the new one; it must not exist.
        workspace: The id of the workspace, for files none of which says it any more.
        can_open: Says whether the sealed fields of a record can be opened; those that cannot are kept apart.

    Raises:
        NotFound: There is no journal and no snapshot.
        Damaged: No file says which workspace it belongs to.
    """
    wreck = _Wreck(Files(folder))
    workspace = wreck.workspace or workspace
    if not workspace:
        raise Damaged(f"{folder}: no file says which workspace it belongs to")
    if can_open:
        wreck.set_apart(can_open)
    durable.make_folder(to)
    _write(Files(to), wreck, workspace)
    return wreck.result()


class _Wreck:
    """What can be read of a damaged store.

    Attributes:
        workspace: Which workspace it belongs to; empty where no file says.
        generation: The newest one.
        records: The documents.
        seq: The number of the last commit that was found.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._losses: list[_Loss] = []
        self._mended: list[str] = []
        self._sealed: list[str] = []
        self.workspace = ""
        self.records: dict[Place, Doc] = {}
        self.seq = 0
        self.generation = self._generation()
        self._replay(self.generation, up_to=None)

    # ------------------------------------------------------------------ which files there are

    def _generation(self) -> int:
        """Return the current generation; where no file says, or a wrong one, the one with the newest commit."""
        known = {int(found[1]) for path in self._files.folder.iterdir() if (found := _KIND.fullmatch(path.name))}
        newest = [(self._last_seq(number), number) for number in known if self._has_records(number)]
        if not newest:
            raise NotFound(f"{self._files.folder} holds no journal and no snapshot")
        current, (seq, best) = 0, max(newest)
        with suppress(Damaged, OSError):
            current = self._files.generation()
        if current in known and not (current < best and self._last_seq(current) < seq):
            return current
        self._lose(self._files.current, 1, f"missing or damaged; generation {best} has the newest commit")
        return best

    def _has_records(self, generation: int) -> bool:
        return self._files.wal(generation).exists() or self._files.snapshot(generation).exists()

    def _last_seq(self, generation: int) -> int:
        files = self._files.snapshot(generation), self._files.wal(generation)
        return max((frame.seq for path in files for frame in frames(path)), default=0)

    def torn(self) -> list[Path]:
        """Return the files that hold what unfinished writes left."""
        return sorted(self._files.folder.glob("torn.*"))

    # ------------------------------------------------------------------ records

    def _replay(self, generation: int, up_to: int | None) -> None:
        """Take in what a generation holds: what it began with, then its commits up to a number."""
        self._begin(generation)
        path, line = self._files.wal(generation), 1
        spare = self._copied(generation)
        for number, frame in self._sound(path):
            if up_to is not None and frame.seq > up_to:
                return
            self._make_up(frame.seq, path, number, number - line - 1, spare)
            if frame.seq > self.seq:  # not before the snapshot, nor there twice
                self._apply_all(path, number, frame)
            line = number
        if up_to is None:
            self._make_up(max(spare, default=0) + 1, path, 0, 0, spare)

    def _copied(self, generation: int) -> dict[int, Frame]:
        """Return the commits with which a journal began, from the journal before it, of which they are copies."""
        former = frames(self._files.wal(generation - 1))
        return {frame.seq: frame for frame in former if not _is_mark(frame) and frame.seq > self.seq}

    def _make_up(self, seq: int, path: Path, line: int, damaged: int, spare: Mapping[int, Frame]) -> None:
        """Take in what is missing before a commit, from copies; name what is in no damaged line either."""
        missing = [number for number in range(self.seq + 1, seq) if number not in spare]
        if missing and len(missing) > damaged:
            self._lose(path, line, f"{_commits(missing)} before it")
        for number in range(self.seq + 1, seq):
            if number in spare:
                self._apply_all(path, line, spare[number])

    def _apply_all(self, path: Path, line: int, frame: Frame) -> None:
        for operation in frame.operations:
            self._apply(path, line, operation)
        self.seq = frame.seq

    def _begin(self, generation: int) -> None:
        """Take in the snapshot of a generation; where it is not whole, the generation before it as well."""
        if generation == FIRST:
            return
        path, losses = self._files.snapshot(generation), len(self._losses)
        began = list(self._sound(path))
        seq = began[-1][1].seq if began else None
        if len(self._losses) > losses and self._has_records(generation - 1):
            self._replay(generation - 1, seq)
        for _, frame in began:
            for operation in frame.operations:
                for collection, doc in born(operation):
                    self._put(collection, doc["id"], doc)
        self.seq = max(self.seq, seq or 0)

    def _put(self, collection: str, id: str, doc: Doc) -> None:
        self._take(collection, id)
        self.records[collection, id] = doc

    def _apply(self, path: Path, line: int, operation: Operation) -> None:
        for collection, doc in born(operation):
            self._put(collection, doc["id"], doc)
        match operation:
            case ["d", collection, id, _]:
                self._take(collection, id)
            case ["s", collection, id, fields]:
                self._change(path, line, collection, collection, id, fields, {})
            case ["u", collection, id, dict(after), before]:
                self._change(path, line, collection, collection, id, after, before or {})
            case ["v", collection, to, id, dict(after), before]:
                self._change(path, line, collection, to, id, after, before or {})

    def _take(self, collection: str, id: str) -> tuple[str, Doc] | None:
        """Take out what there is of a document; return the best of it, and the ending under which it stood."""
        places = {ending: (collection + ending, id) for ending in ("", UNSURE, PARTS)}
        found = [(ending, self.records.pop(place)) for ending, place in places.items() if place in self.records]
        return found[0] if found else None

    def _change(self, path: Path, line: int, collection: str, to: str, id: str, after: Doc, before: Doc) -> None:
        """Apply a change, also where what it is a change of was lost, or earlier changes were."""
        ending, doc = self._take(collection, id) or (PARTS, {})
        if not doc:
            known = ", ".join(name for name in after if name != "rev")
            what = f"what {collection} {id} was before; its fields {known} are kept in {to}{PARTS}"
            self._lose(path, line, what, {(to, id)})
            doc = {"id": id, "rev": 1}
        elif not ending and doc["rev"] != before.get("rev", doc["rev"]):
            self._lose(path, line, f"changes of {collection} {id} between revisions {doc['rev']} and {after['rev']}")
        self.records[to + ending, id] = patched(doc, after, before)

    def _keep_unsure(self, piece: bytes) -> None:
        """Keep apart what can be read of the new records of a damaged line."""
        for collection, doc in new_records(piece):
            if (collection, doc["id"]) not in self.records:
                self.records[collection + UNSURE, doc["id"]] = doc

    # ------------------------------------------------------------------ history

    def history(self, generation: int) -> Iterator[Frame]:
        """Yield the commits of a generation, condensed, from its log and from its journal where that is there."""
        found: dict[int, Frame] = {}
        if generation < self.generation:
            path = self._files.log(generation)
            found = {frame.seq: frame for _, frame in self._sound(path)}
        for frame in frames(self._files.wal(generation)):
            if not _is_mark(frame):
                found.setdefault(frame.seq, Frame(frame.seq, condensed(frame.operations), 0))
        yield from (found[seq] for seq in sorted(found))

    # ------------------------------------------------------------------ lines

    def _sound(self, path: Path) -> Iterator[tuple[int, Frame]]:
        """Yield the number of each sound line and its frame, without the first and the last one of a file."""
        number, head, end = 0, False, None
        frame: Frame | None = None
        for number, piece in pieces(path):
            frame = self._whole(path, number, piece)
            if frame is None:
                continue
            if not _is_mark(frame):
                yield number, frame
            elif frame.operations[0][0] == "e":
                end = int(frame.operations[0][1])
            else:
                head = True
                self.workspace = self.workspace or str(frame.operations[0][1].get("workspace", ""))
        if number and frame is None and path == self._files.wal(self.generation):
            self._losses[-1] = self._losses[-1]._replace(what=UNFINISHED)
        if not path.exists():
            self._lose(path, 0, "is missing")
        elif not head:
            self._lose(path, 1, "does not say what the file is")
        elif not path.name.startswith("wal") and end != number - 1:
            self._lose(
                path, number + 1, "lines are missing" if end is None else f"{end - number + 1} lines are missing"
            )

    def _whole(self, path: Path, number: int, piece: Frame | bytes) -> Frame | None:
        """Return the frame of a piece, put right if need be; note what is lost where there is none."""
        if isinstance(piece, Frame):
            return piece
        frame = mended(piece)
        if frame is None:
            self._lose(path, number, "is damaged", named_records(piece))
            self._keep_unsure(piece)
        elif (told := f"{path}, line {number}: one bit was wrong; its checksum says which one") not in self._mended:
            self._mended.append(told)
        return frame

    def _lose(self, path: Path, line: int, what: str, places: Iterable[Place] = ()) -> None:
        loss = _Loss(path, line, what, frozenset(places))
        if loss not in self._losses:
            self._losses.append(loss)

    def set_apart(self, can_open: Callable[[str, Doc], bool]) -> None:
        """Move records that cannot be opened to a collection that nobody opens."""
        for (collection, id), doc in list(self.records.items()):
            if not can_open(collection, doc):
                del self.records[collection, id]
                self.records[collection + SEALED, id] = doc
                self._sealed.append(f"{collection} {id}: its keys are lost; kept, sealed, in {collection}{SEALED}")

    def result(self) -> Salvaged:
        """Return what there is and what is not."""
        counts = Counter(collection for collection, _ in self.records if not collection.startswith("."))
        places = {place for loss in self._losses for place in loss.places}
        standing = {id: collection for collection, id in self.records}
        lost: defaultdict[str, list[str]] = defaultdict(list)
        for collection, id in sorted(place for place in places if place[1] not in standing):
            lost[collection].append(id)
        losses = (*(_told(loss, standing) for loss in self._losses), *self._sealed)
        return Salvaged(dict(sorted(counts.items())), self.seq, losses, tuple(self._mended), dict(lost))


def _told(loss: _Loss, standing: Mapping[str, str]) -> str:
    """Return what is lost in words; of the records that a damaged line names, what became of them."""
    where = f"{loss.path}, line {loss.line}: {loss.what}" if loss.line else f"{loss.path}: {loss.what}"
    became: defaultdict[str, list[Place]] = defaultdict(list)
    for collection, id in sorted(loss.places):
        found = standing.get(id, "")
        if found.endswith(APART):
            became[f"kept apart in {found}"].append((collection, id))
        else:
            became["as they are found elsewhere, perhaps older" if found else "lost"].append((collection, id))
    return "; ".join([where, *(f"{what}: {_counted(places)}" for what, places in sorted(became.items()))])


def _counted(places: list[Place]) -> str:
    """Return which records these are, or how many where they are many."""
    if len(places) <= NAMED:
        return ", ".join(f"{collection} {id}" for collection, id in places)
    return ", ".join(f"{count:,} {name}" for name, count in Counter(name for name, _ in places).items())


def _is_mark(frame: Frame) -> bool:
    """Return whether a frame is the first or the last of a file, and no commit."""
    match frame.operations:
        case [["e", _]] | [["m", {"workspace": _}]]:
            return True
    return False


def _commits(missing: list[int]) -> str:
    first, last = missing[0], missing[-1]
    return f"commit {first} is missing" if first == last else f"commits {first} to {last} are missing"


# --------------------------------------------------------------------------- writing it anew


def _write(files: Files, wreck: _Wreck, workspace: str) -> None:
    """Write what was saved as the generation after the last one, as compaction would have."""
    new, end = wreck.generation + 1, 0
    for generation in range(FIRST, new):
        lines = [(frame.seq, frame.operations) for frame in wreck.history(generation)]
        start, end = end, lines[-1][0] if lines else end
        if generation == wreck.generation:
            end = wreck.seq  # where the snapshot goes on, though the last commits be lost
        path, first = files.log(generation), (start, [["m", _head(workspace, generation)]])
        _write_lines(path, [first, *lines], end)
    head: dict[str, Any] = _head(workspace, new)
    _write_lines(files.snapshot(new), [(wreck.seq, [["m", head]]), *_batches(wreck)], wreck.seq)
    files.wal(new).write_bytes(copied(wreck.seq, [["m", head]]))
    for path in wreck.torn():
        shutil.copyfile(path, files.folder / path.name)
    durable.replace_file(files.lock, b"")
    files.switch(new)
    for path in files.folder.iterdir():
        path.chmod(durable.FILE_MODE)


def _head(workspace: str, generation: int) -> dict[str, Any]:
    return {"workspace": workspace, "format": FORMAT, "generation": generation}


def _write_lines(path: Path, lines: Iterable[tuple[int, list[Operation]]], last: int) -> None:
    """Write a file that is finished; whoever makes the folder syncs it."""
    written = 0
    with path.open("wb") as file:
        for seq, operations in lines:
            file.write(copied(seq, operations))
            written += 1
        file.write(copied(last, [["e", written]]))


def _batches(wreck: _Wreck) -> Iterator[tuple[int, list[Operation]]]:
    """Yield the lines of a snapshot."""
    by_collection: defaultdict[str, list[Doc]] = defaultdict(list)
    for (collection, _), doc in wreck.records.items():
        by_collection[collection].append(doc)
    for collection, docs in by_collection.items():
        for start in range(0, len(docs), DOCUMENTS):
            yield wreck.seq, [["b", collection, docs[start : start + DOCUMENTS]]]
