"""Which rows train, which choose the best epoch, and which are kept for the final numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import polars as pl

from mtl_cli.data.column_types import has_text
from mtl_cli.data.table import AnyTable
from mtl_cli.errors import ConfigError, DataError, Problem, listed
from mtl_cli.schema import SplitOptions

__all__ = ["SplitOptions", "Splits", "split_rows"]

_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, eq=False)
class Splits:
    """The rows of each split.

    Args:
        train: Sorted row indices, int64.
        val: Sorted row indices, int64.
        test: Sorted row indices, int64; may be empty.
        all_train: Sorted row indices, int64: the training rows that ``train`` is all or a share of.
        method: What was done, in words.
        notes: What the user should know about it.
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    all_train: np.ndarray
    method: str
    notes: tuple[str, ...] = ()


def split_rows(table: AnyTable, options: SplitOptions) -> Splits:
    """Splits the rows of a table.

    The same table and options give the same splits on every machine, whatever the seed of the training.

    Raises:
        ConfigError: The options contradict each other or the way the files were given; or rows of one list of
            candidates would come into several splits.
        DataError: A column is absent or holds unknown or missing values, or training or validation would be empty.

    Example:
        >>> from mtl_cli.data.table import Part, Table
        >>> table = Table(pl.DataFrame({"s": ["train", "Train", "dev", "test"]}), (Part("x.csv", 0, 4, lines=True),))
        >>> splits = split_rows(table, SplitOptions(column="s"))
        >>> splits.train.tolist(), splits.val.tolist(), splits.test.tolist(), splits.method
        ([0, 1], [2], [3], "by column 's'")
    """
    method = _resolve(table, options)
    notes = [_unused(name, method) for name in _unused_columns(options, method)]
    make: dict[str, Callable[[AnyTable, SplitOptions, list[str]], tuple[np.ndarray, str]]] = {
        "files": _by_files,
        "column": _by_column,
        "random": _at_random,
        "stratified": _stratified,
        "group": _by_group,
    }
    codes, text = make[method](table, options, notes)
    rows = {name: np.flatnonzero(codes == code).astype(np.int64) for code, name in enumerate(("train", "val", "test"))}
    _check_filled(table, rows, text)
    _refuse_torn_lists(table, codes, text)
    rows["all_train"] = rows["train"]
    if options.train_fraction < 1:
        rows["train"] = _some(rows["all_train"], options.train_fraction, options.seed)
        notes.append(
            f"Trained on {len(rows['train']):,} of {len(rows['all_train']):,} training rows "
            f"(data.split.train_fraction={options.train_fraction:g})."
        )
    if len(rows["test"]) == 0:
        notes.append("There are no test rows: the final numbers are those of the validation rows.")
    return Splits(**rows, method=text, notes=tuple(notes))


def torn_groups(groups: np.ndarray, codes: np.ndarray) -> tuple[int, int]:
    """How many groups have rows in several splits, and how many groups there are.

    Args:
        groups: (N,) numbers of the rows' groups; below 0: in none.
        codes: (N,) numbers of the rows' splits.

    Example:
        >>> torn_groups(np.array([7, 7, 8, 8, -1]), np.array([0, 0, 0, 2, 1]))
        (1, 2)
    """
    inside = groups >= 0
    several = int(codes.max(initial=0)) + 1
    pairs = np.unique(groups[inside] * several + codes[inside])
    _, splits = np.unique(pairs // several, return_counts=True)
    return int((splits > 1).sum()), len(splits)


def _refuse_torn_lists(table: AnyTable, codes: np.ndarray, text: str) -> None:
    """Candidates that are trained on are no test of what ranks them, and some of them are no list."""
    for own in table.feedback:
        if own.lists is not None:
            numbers = table.values(own.lists).fill_null(-1).to_numpy()
            torn, every = torn_groups(numbers, codes)
            if torn:
                what = f"{torn:,} of {every:,} lists of candidates would have rows in several splits, which come {text}"
                hint = "Give both files a column with train, val and test, and write data.split.column=NAME."
                raise ConfigError(_problem("method", what, hint))


def _some(rows: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A share of the rows, at least one, in order; a smaller share is part of a larger one."""
    drawn = np.random.default_rng(seed).permutation(len(rows))[: max(round(share * len(rows)), 1)]
    return rows[np.sort(drawn)]


def _resolve(table: AnyTable, options: SplitOptions) -> str:
    method: str = options.method
    needs = {"column": options.column, "group": options.group, "stratified": options.stratify}
    if method == "auto":
        method = next((name for name, column in needs.items() if column is not None), "random")
        method = method if table.given_split is None else "files"
    problems = []
    if method == "files" and table.given_split is None:
        problems.append(
            _problem("method", "is 'files', but the files are not given per split", "Write data.train and data.val.")
        )
    if method != "files" and table.given_split is not None:
        what = f"is '{method}', but the files are given per split"
        problems.append(_problem("method", what, "Write data.split.method=files, or give all files in data.path."))
    key = {"stratified": "stratify"}.get(method, method)
    if method in needs and needs[method] is None:
        problems.append(_problem(key, f"must be given with method '{method}', got null", "Name a column."))
    if options.val + options.test >= 1 and method in ("random", "stratified", "group"):
        problems.append(
            _problem("val", f"and data.split.test leave no training rows, got {options.val} and {options.test}")
        )
    if problems:
        raise ConfigError(problems)
    if method in needs:
        name = str(needs[method])
        table.require([name], {name: f"data.split.{key}"})
        dtype = table.schema[name]
        if dtype.is_nested():
            raise DataError(_problem(key, f"column '{name}' holds lists, got type {dtype}"))
        if method == "column" and not has_text(dtype):
            raise DataError(_problem(key, f"column '{name}' must hold train, val or test as text, got type {dtype}"))
    return method


def _problem(key: str, what: str, hint: str = "") -> Problem:
    return Problem(f"data.split.{key}", what, hint)


def _unused_columns(options: SplitOptions, method: str) -> list[str]:
    keys = {"column": options.column, "group": options.group, "stratify": options.stratify}
    used = {"stratified": "stratify"}.get(method, method)
    return [key for key, value in keys.items() if value is not None and key != used]


def _unused(key: str, method: str) -> str:
    return f"data.split.{key} is not used: the rows are split by method '{method}'."


def _by_files(table: AnyTable, options: SplitOptions, notes: list[str]) -> tuple[np.ndarray, str]:
    return _carve(_codes(cast(pl.Series, table.given_split)), options, notes), "by files"  # _resolve has checked it


def _by_column(table: AnyTable, options: SplitOptions, notes: list[str]) -> tuple[np.ndarray, str]:
    name = str(options.column)
    raw = table.values(name).cast(pl.String)
    clean = raw.str.strip_chars().str.to_lowercase()
    words = clean.replace_strict(list(_WORDS), list(_WORDS.values()), default=None, return_dtype=pl.String)
    if words.null_count():
        pairs = sorted(raw.value_counts().rows(), key=lambda pair: (-pair[1], str(pair[0])))
        shown = listed([f"{'(missing)' if v is None else repr(v)} ({n})" for v, n in pairs], 10)
        place = table.where(name, int(np.flatnonzero(words.is_null().to_numpy())[0]))
        raise DataError(Problem(place, f"must be train, val or test in every row, got {shown}"))
    return _carve(_codes(words), options, notes), f"by column '{name}'"


def _codes(words: pl.Series) -> np.ndarray:
    codes: np.ndarray = words.replace_strict(["train", "val", "test"], [0, 1, 2], return_dtype=pl.Int8).to_numpy()
    return codes.copy()


def _carve(codes: np.ndarray, options: SplitOptions, notes: list[str]) -> np.ndarray:
    """Takes validation rows out of the training rows if none are given: choosing by the test rows would be cheating."""
    train = np.flatnonzero(codes == 0)
    if (codes == 1).any() or len(train) < 2 or options.val == 0:
        return codes
    count = _share(len(train), options.val)
    codes[np.random.default_rng(options.seed).permutation(train)[:count]] = 1
    notes.append(f"No validation rows are given: {count} of {len(train)} training rows were drawn at random for it.")
    return codes


def _at_random(table: AnyTable, options: SplitOptions, notes: list[str]) -> tuple[np.ndarray, str]:  # noqa: ARG001
    rows = table.height
    return _draw(rows, options), f"at random ({options.val:g} val, {options.test:g} test, seed {options.seed})"


def _draw(count: int, options: SplitOptions) -> np.ndarray:
    """Codes (count,): the drawn shares, the rest is training."""
    order = np.random.default_rng(options.seed).permutation(count)
    test = _share(count, options.test)
    val = _share(count - test, options.val * count / max(count - test, 1))
    codes = np.zeros(count, np.int8)
    codes[order[:test]] = 2
    codes[order[test : test + val]] = 1
    return codes


def _share(count: int, fraction: float) -> int:
    """The fraction of ``count``, but one at least if any is wanted: small tables must not lose their validation."""
    return min(count, max(1, round(count * fraction))) if fraction > 0 else 0


def _stratified(table: AnyTable, options: SplitOptions, notes: list[str]) -> tuple[np.ndarray, str]:
    name = str(options.stratify)
    keys = _dense(table.values(name))
    sizes = np.bincount(keys)
    single = np.flatnonzero(sizes[keys] == 1)
    if 2 * len(single) > len(keys) > 0:
        what = f"cannot be stratified by: {len(single)} of {len(keys)} rows hold a value of their own"
        raise DataError(Problem(f"{table.files}, column '{name}'", what, "Choose a column with few values."))
    if len(single):
        values = ", ".join(repr(v) for v in table.values(name).gather(single[:5]).to_list())
        more = f" and {len(single) - 5} more" if len(single) > 5 else ""
        notes.append(f"Column '{name}' has values that occur once; their rows went to train: {values}{more}.")
    codes = np.zeros(len(keys), np.int8)
    rng = np.random.default_rng(options.seed)
    owed = {1: 0.5, 2: 0.5}  # fractions of rows carried from value to value, so that the totals come out right
    for members in np.split(np.argsort(keys, kind="stable"), np.cumsum(sizes)[:-1]):
        rows, start = rng.permutation(members), 0
        if len(rows) < 2:
            continue
        for code, fraction in ((2, options.test), (1, options.val)):
            owed[code] += len(rows) * fraction
            count = min(int(owed[code]), len(rows) - 1 - start)  # one row of each value stays in train
            owed[code] -= count
            codes[rows[start : start + count]] = code
            start += count
    return codes, f"stratified by '{name}' ({options.val:g} val, {options.test:g} test, seed {options.seed})"


def _by_group(table: AnyTable, options: SplitOptions, notes: list[str]) -> tuple[np.ndarray, str]:
    name = str(options.group)
    column = table.values(name)
    if column.null_count():
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        count = f"{column.null_count()} of {len(column)} rows"
        what = f"is missing, as a group is in {count}"
        raise DataError(Problem(table.where(name, row), what, "Give every row a group."))
    keys = _dense(column)
    groups = int(keys.max()) + 1 if len(keys) else 0
    needed = 1 + (options.val > 0) + (options.test > 0)
    if groups < needed:
        what = f"has {groups} group{'s' * (groups != 1)}, but {needed} splits need one each"
        raise DataError(Problem(f"{table.files}, column '{name}'", what))
    codes = _draw(groups, options)[keys]
    counts = np.bincount(codes, minlength=3)
    notes.append(f"{groups} groups of '{name}' make {counts[0]} train, {counts[1]} val and {counts[2]} test rows.")
    return codes, f"by group '{name}' ({options.val:g} val, {options.test:g} test of the groups, seed {options.seed})"


def _dense(column: pl.Series) -> np.ndarray:
    """Numbers (N,) from 0 for the sorted distinct values; missing is a value of its own, the last."""
    ranks = column.rank("dense").cast(pl.Int64) - 1
    last = ranks.max()
    dense: np.ndarray = ranks.fill_null(int(last) + 1 if isinstance(last, int) else 0).to_numpy()
    return dense


def _check_filled(table: AnyTable, rows: dict[str, np.ndarray], text: str) -> None:
    names = {"train": "training", "val": "validation"}
    count = table.height
    problems = [
        Problem(table.files, f"no {word} rows, got {count} row{'s' * (count != 1)} split {text}")
        for name, word in names.items()
        if len(rows[name]) == 0
    ]
    if problems:
        raise DataError([Problem(p.where, p.what, _WAY_OUT) for p in problems])


_WAY_OUT = "Change data.split, or give more rows."
