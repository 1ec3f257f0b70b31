"""What can go wrong, and whose fault it is.

* MTLError
  + UserError          the user can mend it: one message, exit code 2
    - ConfigError      one or more Problems in the configuration
    - DataError        one or more Problems in the user's files
    - RunError         a run folder or checkpoint that cannot be used
      . InUseError     another process is in the folder
  + TrainingError      the training itself cannot go on (NaN, full disk): exit code 1

A message reads ``where: what is wrong, got value. Hint.``; every problem that can be found is reported at once.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

_SHOWN = 5  # problems of one kind that are shown one by one

Item = TypeVar("Item")


@dataclass(frozen=True)
class Problem:
    """One mistake: where it is, what is wrong, and the way out.

    Args:
        where: Key path (``tasks.income.kind``) or place in a file (``people.csv, column 'age', row 7``).
        what: What is wrong, with the value that was found.
        hint: What to do about it; empty if that is obvious.

    Example:
        >>> print(Problem("seed", "must be a whole number, got 'abc'", "Write seed=0."))
        seed: must be a whole number, got 'abc'. Write seed=0.
    """

    where: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}."
        return f"{text} {self.hint}" if self.hint else text


class UnknownComponent(Problem):
    """No component is registered under a name; a module that cannot be imported might do so."""


class MTLError(Exception):
    """Base of every error that this package raises on purpose."""


class UserError(MTLError):
    """Something the user can mend. The command line prints the message alone and exits with 2.

    Args:
        problems: One Problem (or text), or several; all are shown.
    """

    def __init__(self, problems: Problem | str | Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = () if isinstance(problems, str) else _as_tuple(problems)
        super().__init__(problems if isinstance(problems, str) else "\n".join(map(str, self.problems)))


class ConfigError(UserError):
    """The configuration cannot be used as it is."""


class DataError(UserError):
    """The user's data cannot be used as they are."""


class RunError(UserError):
    """A run folder or a checkpoint cannot be used: foreign, damaged, finished, or in use."""


class InUseError(RunError):
    """Another process is in a run folder: what is to be done there may be done already."""


class DiskError(RunError):
    """The system does not give or take something of a run folder, all of which may be well the next time."""

    @classmethod
    def of_reading(cls, path: object, error: OSError) -> DiskError:
        """The error for a file that cannot be read."""
        return cls(Problem(str(path), f"cannot be read, got '{error.strerror or error}'"))


class TrainingError(MTLError):
    """Training cannot go on, and no other configuration key would have been refused before."""


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no more memory: of the machine or of a GPU, as Python or PyTorch tell it.

    Example:
        >>> is_lack_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
        True
    """
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # PyTorch's, which may not be loaded
        or "DefaultCPUAllocator" in str(error)
    )


def unexpected(error: BaseException) -> str:
    """What is told of an error that is none of ours, behind what it says itself."""
    cause = "not enough memory;" if is_lack_of_memory(error) else "a bug?"
    return f"({cause} HYDRA_FULL_ERROR=1 shows where)"


def shown(value: object) -> str:
    """A value of a configuration as messages show it: as Python does, but nothing is ``null``, as in YAML.

    Example:
        >>> shown(None), shown("no"), shown({"a": [None, 1]})
        ('null', "'no'", "{'a': [null, 1]}")
    """
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{shown(key)}: {shown(item)}' for key, item in value.items())}}}"
    return "null" if value is None else repr(value)


def shown_cell(value: object) -> str:
    """A cell as messages show it: text in quotes, numbers and dates as they are written.

    Example:
        >>> from decimal import Decimal
        >>> shown_cell(None), shown_cell("2.00"), shown_cell(Decimal("2.00"))
        ('nothing', "'2.00'", '2.00')
    """
    if value is None:
        return "nothing"
    return repr(value) if isinstance(value, str) else str(value)


def listed(names: Sequence[str], most: int, separator: str = ", ") -> str:
    """The names one after another, or the first few and how many more there are.

    Example:
        >>> listed(["a", "b"], 3), listed(["a", "b", "c", "d"], 3)
        ('a, b', 'a, b, c and 1 more')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


def first_few(
    items: Sequence[Item], problem: Callable[[Item], Problem], where: str, rest: str | None = None
) -> list[Problem]:
    """The problems of the first five cells, and one that says how many more there are.

    Args:
        items: The cells, or what stands for them.
        problem: Makes the problem of one; it is asked for those that are shown only.
        where: The place of them all.
        rest: What to say of all instead of how many more there are.

    Example:
        >>> found = first_few(range(1, 8), lambda row: Problem(f"a.csv, row {row}", "is bad"), "a.csv")
        >>> print(found[4], found[5])
        a.csv, row 5: is bad. a.csv: has 2 more cells of this kind.
    """
    problems = [problem(item) for item in items[:_SHOWN]]
    more = len(items) - _SHOWN
    if more > 0:
        problems.append(Problem(where, rest or f"has {more} more cell{'s' * (more > 1)} of this kind"))
    return problems


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Names the nearest known word, or lists the known words if none is near.

    Example:
        >>> did_you_mean("wieght", ["weight", "kind"])
        "Did you mean 'weight'?"
        >>> did_you_mean("zzz", ["weight", "kind"])
        'Known: kind, weight.'
    """
    names = sorted(set(known))
    near = nearest(word, names)
    if near or not names:
        return near
    return f"Known: {listed(names, 30)}."


def nearest(word: str, known: Iterable[str]) -> str:
    """Names the nearest known word; nothing if none is near, where the known ones are too many to be of help.

    Example:
        >>> nearest("wieght", ["weight", "kind"])
        "Did you mean 'weight'?"
        >>> nearest("zzz", ["weight", "kind"])
        ''
    """
    names = sorted(set(known))
    alike = next((name for name in names if other_form(name, word)), None)
    if alike is not None:
        return f"Did you mean '{alike}'{other_form(alike, word)}?"
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    return f"Did you mean '{by_lower[near[0]]}'?" if near else ""


def other_form(text: str, shown: str) -> str:
    r"""What to say of a text beside one that looks the same; nothing if it looks otherwise, or is the same.

    Example:
        >>> other_form("cafe\u0301", "caf\u00e9"), other_form("cafe", "caf\u00e9")
        (' in another Unicode form (NFC, NFD)', '')
    """
    alike = text != shown and unicodedata.normalize("NFC", text) == unicodedata.normalize("NFC", shown)
    return " in another Unicode form (NFC, NFD)" if alike else ""


def _as_tuple(problems: Problem | Sequence[Problem]) -> tuple[Problem, ...]:
    return (problems,) if isinstance(problems, Problem) else tuple(problems)
