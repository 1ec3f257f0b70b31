"""Treebanks: sentences whose words carry labels, in the CoNLL-U format of Universal Dependencies."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import IO, Literal

import polars as pl

from mtl_cli.data.markers import Markers
from mtl_cli.data.sources._files import File, Fingerprint, check_paths, existing_file, read_files
from mtl_cli.data.sources._unzip import unzipped
from mtl_cli.data.sources.base import Source
from mtl_cli.data.table import Part, Table
from mtl_cli.errors import DataError, Problem, did_you_mean
from mtl_cli.registry import SOURCES

FIELDS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_NUMBERED = {name: place for place, name in enumerate(FIELDS)}
_WORD, _RANGE, _EMPTY = re.compile(r"[1-9]\d*"), re.compile(r"([1-9]\d*)-([1-9]\d*)"), re.compile(r"\d+\.[1-9]\d*")
_MOST = 5  # problems of a file that are told


@dataclass
class _Sentence:
    """A sentence as it stands in a file."""

    line: int
    name: str | None = None
    words: list[list[str]] = field(default_factory=list)


@SOURCES.register("conllu")
class ConlluSource(Source):
    """Sentences in CoNLL-U files (de Marneffe et al. 2021): one row each, with a list for each column that is read.

    The rows are those of the syntactic words: of a multiword token (``3-4``) the words 3 and 4 count, and empty nodes
    (``5.1``) are left out; both are told. ``sent_id`` holds the sentence's name if it has one (no input, but good for
    ``data.id``). Of the columns, one of words (``form`` or ``lemma``) is an input; the others are for ``target`` of
    tasks of kind ``tagging``.

    Args:
        path: One file or several (also ``.gz`` and ``.zst``), relative to the current folder; the split comes from
            ``data.split``.
        train: Files whose sentences are the training rows.
        val: Files whose sentences are the validation rows.
        test: Files whose sentences are the test rows.
        columns: Fields of the words, in lower case, and single features: ``form``, ``upos``, ``deprel``,
            ``feats.Gender``, ``misc.Gloss``.
        blank: What ``_`` is, and a feature that a word does not have: ``missing``: the word has no label for it;
            ``label``: a label like others. A form is always what it is.

    Raises:
        ConfigError: The options contradict each other, or there is no such field.
    """

    def __init__(
        self,
        *,
        path: str | list[str] | None = None,
        train: str | list[str] | None = None,
        val: str | list[str] | None = None,
        test: str | list[str] | None = None,
        columns: list[str] = ["form", "upos"],  # noqa: B006  read only; the literal documents the default
        blank: Literal["missing", "label"] = "missing",
    ) -> None:
        given = {"path": path, "train": train, "val": val, "test": test}
        self._files = check_paths(given, _column_problems(columns))
        self._columns, self._blank = list(columns), blank

    def read(self) -> Table:
        """Reads all files, in the order train, val, test and as listed.

        Raises:
            DataError: Absent or damaged files, or lines that are no CoNLL-U; names file and line.
        """
        notes: list[str] = []
        table = read_files(self._files, lambda name, split, add: [self._read_file(name, split, add, notes)])
        return self._interpret(table, notes)

    def chunks(self, rows: int, *, verbatim: Collection[str] = (), converted: Collection[str] = ()) -> Iterator[Table]:
        """Reads the files piece by piece; what is left out in them was told of the training files."""
        del verbatim, converted  # of text tables only
        for name, _ in self._files:
            first, places = 0, list[str]()
            with _opened(name) as file:
                reader = _Reader(name, file)
                held: list[_Sentence] = []
                for sentence in reader:
                    held.append(sentence)
                    if len(held) == rows:
                        places += [f"line {own.line}" for own in held]
                        yield self._interpret(self._piece(name, first, held, places), ())
                        first, held = first + len(held), []
                if held or not first:
                    places += [f"line {own.line}" for own in held]
                    yield self._interpret(self._piece(name, first, held, places), ())

    def _piece(self, name: str, first: int, sentences: list[_Sentence], places: list[str]) -> Table:
        part = Part(name, -first, first + len(sentences), lines=False, places=places)
        return Table(self._frame(sentences), (part,))

    def _read_file(self, name: str, split: str | None, fingerprint: Fingerprint, notes: list[str]) -> File:
        fingerprint(existing_file(name).read_bytes())
        with _opened(name) as file:
            reader = _Reader(name, file)
            sentences = list(reader)
        notes += reader.notes()
        places = [f"line {sentence.line}" for sentence in sentences]
        return File(name, split, self._frame(sentences), lines=False, places=places)

    def _interpret(self, table: Table, notes: Collection[str]) -> Table:
        frame, missing = Markers().mark(table.frame)
        return replace(table, frame=frame, missing=missing, notes=tuple(notes), types={"sent_id": "name"})

    def _frame(self, sentences: list[_Sentence]) -> pl.DataFrame:
        words = {name: [self._cells(name, sentence) for sentence in sentences] for name in self._columns}
        columns = [pl.Series(name, cells, pl.List(pl.String)) for name, cells in words.items()]
        return pl.DataFrame([pl.Series("sent_id", [sentence.name for sentence in sentences], pl.String), *columns])

    def _cells(self, column: str, sentence: _Sentence) -> list[str | None]:
        base, _, feature = column.partition(".")
        place = _NUMBERED[base]
        cells: list[str | None] = [word[place] for word in sentence.words]
        if feature:
            cells = [_feature(str(cell), feature) for cell in cells]
        if base == "form" or self._blank == "label":
            return cells
        if base == "lemma":  # of the sign _ itself
            return [
                None if cell == "_" and word[1] != "_" else cell
                for cell, word in zip(cells, sentence.words, strict=True)
            ]
        return [None if cell == "_" else cell for cell in cells]


class _Reader:
    """The sentences of a file, one after another; everything that is left out is counted."""

    def __init__(self, name: str, lines: Iterable[bytes]) -> None:
        self._name, self._lines = name, lines
        self._ranges = self._empty = 0

    def notes(self) -> list[str]:
        """What was left out."""
        counts = ((self._ranges, "multiword token", "whose words are read"), (self._empty, "empty node", "left out"))
        return [f"{self._name}: {n} {what}{'s' * (n != 1)}, {how}." for n, what, how in counts if n]

    def __iter__(self) -> Iterator[_Sentence]:
        problems: list[Problem] = []
        sentence, found = _Sentence(1), False
        for number, raw in enumerate(self._lines, start=1):
            line = self._text(raw, number)
            if not line.strip():
                if sentence.words and not problems:
                    found = True
                    yield sentence
                sentence = _Sentence(number + 1)
            elif line.startswith("#"):
                key, equals, value = line[1:].partition("=")
                if equals and key.strip() == "sent_id":
                    sentence.name = value.strip()
            else:
                problem = self._add(sentence, line, number)
                problems += [] if problem is None else [problem]
                if len(problems) == _MOST:
                    break
        if problems:
            raise DataError(problems)
        if sentence.words:
            yield sentence
        elif not found:
            raise DataError(Problem(self._name, "holds no sentences"))

    def _text(self, raw: bytes, number: int) -> str:
        try:
            text = raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            what = f"is not utf-8 text, got byte 0x{raw[error.start]:02x}"
            raise DataError(Problem(f"{self._name}, line {number}", what, "CoNLL-U is always UTF-8.")) from None
        return text.removeprefix("\ufeff") if number == 1 else text

    def _add(self, sentence: _Sentence, line: str, number: int) -> Problem | None:
        """Adds the word of a line, or counts what is none; gives what is wrong with it."""
        where, cells = f"{self._name}, line {number}", line.split("\t")
        if len(cells) != len(FIELDS):
            hint = "The fields of a word are separated by tabs, sentences by an empty line."
            what = f"must have 10 fields, got {len(cells)}: {line[:60]!r}"
            return Problem(where, what, hint)
        if "" in cells:
            return Problem(where, f"has an empty field ({FIELDS[cells.index('')]})", "What is not known is _.")
        number_of_word, expected = cells[0], len(sentence.words) + 1
        if _EMPTY.fullmatch(number_of_word):
            self._empty += 1
            return None
        if span := _RANGE.fullmatch(number_of_word):
            self._ranges += 1
            low, high = int(span[1]), int(span[2])
            if low != expected or high <= low:
                return Problem(where, f"a multiword token must begin at word {expected}, got {number_of_word}")
            return None
        if not _WORD.fullmatch(number_of_word):
            return Problem(where, f"must begin with the number of a word, got {number_of_word!r}")
        if int(number_of_word) != expected:
            sentence.words = [cells] * min(int(number_of_word), 1000)  # a gap is told once, not for all words after it
            hint = "An empty line must stand before each sentence."
            return Problem(where, f"must be word {expected} of its sentence, got {number_of_word}", hint)
        sentence.words.append(cells)
        return None


@contextmanager
def _opened(name: str) -> Iterator[IO[bytes]]:
    path = existing_file(name)
    zipped = path.suffix.lower() if path.suffix.lower() in (".gz", ".zst") else ""
    with path.open("rb") as raw, unzipped(raw, zipped, name) as file:
        yield file


def _feature(cell: str, name: str) -> str:
    """The value of one of the features ``Gender=Fem|Number=Sing``, or ``_``."""
    for pair in cell.split("|"):
        key, equals, value = pair.partition("=")
        if equals and key == name:
            return value
    return "_"


def _column_problems(columns: list[str]) -> list[Problem]:
    problems = []
    for column in columns:
        base, dot, feature = column.partition(".")
        if base not in FIELDS[1:] or (dot and (base not in ("feats", "misc") or not feature)):
            known = [*FIELDS[1:], "feats.NAME", "misc.NAME"]
            problems.append(Problem("data.columns", f"there is no field '{column}'", did_you_mean(column, known)))
        elif columns.count(column) > 1:
            problems.append(Problem("data.columns", f"names '{column}' more than once"))
    if not {"form", "lemma"} & set(columns):
        problems.append(Problem("data.columns", f"names no words, got {columns}", "Add form, the input."))
    return list(dict.fromkeys(problems))
