"""Messages, and whose fault it is."""

import pytest

from mtl_cli.errors import (
    ConfigError,
    DataError,
    MTLError,
    Problem,
    RunError,
    TrainingError,
    UserError,
    did_you_mean,
    nearest,
    unexpected,
)


def test_problem_says_where_what_and_the_way_out():
    assert str(Problem("seed", "must be a whole number, got 'x'")) == "seed: must be a whole number, got 'x'."
    assert str(Problem("seed", "is bad", "Write seed=0.")) == "seed: is bad. Write seed=0."


@pytest.mark.parametrize("error", [UserError, ConfigError, DataError, RunError])
def test_error_shows_all_its_problems(error):
    problems = [Problem("a", "is bad"), Problem("b", "is worse", "Mend it.")]
    assert str(error(problems)) == "a: is bad.\nb: is worse. Mend it."
    assert error(problems).problems == tuple(problems)
    assert str(error(problems[0])) == "a: is bad."
    assert error(problems[0]).problems == (problems[0],)
    assert str(error("plain text")) == "plain text"
    assert error("plain text").problems == ()


def test_a_failed_training_is_not_the_users_error():
    assert issubclass(TrainingError, MTLError)
    assert not issubclass(TrainingError, UserError)
    assert all(issubclass(error, UserError) for error in (ConfigError, DataError, RunError))


class OutOfMemoryError(RuntimeError):
    """As PyTorch calls that of a GPU."""


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError(), "not enough memory;"),
        (OutOfMemoryError("CUDA out of memory"), "not enough memory;"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "not enough memory;"),
        (RuntimeError("shapes do not match"), "a bug?"),
    ],
)
def test_want_of_memory_is_no_bug(error, cause):
    assert unexpected(error) == f"({cause} HYDRA_FULL_ERROR=1 shows where)"


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("wieght", ["weight", "kind"], "Did you mean 'weight'?"),
        ("WEIGHT", ["weight", "kind"], "Did you mean 'weight'?"),
        ("churn", ["Churn", "spend"], "Did you mean 'Churn'?"),
        ("zzz", ["weight", "kind", "kind"], "Known: kind, weight."),
        ("zzz", [], ""),
        (
            "gr\u00f6\u00dfe",
            ["gro\u0308\u00dfe"],
            "Did you mean 'gro\u0308\u00dfe' in another Unicode form (NFC, NFD)?",
        ),
        ("!", [f"c{i:02}" for i in range(35)], f"Known: {', '.join(f'c{i:02}' for i in range(30))} and 5 more."),
    ],
)
def test_nearest_known_word_is_offered(word, known, hint):
    assert did_you_mean(word, known) == hint


def test_nearest_of_words_that_can_be_gone_through_once():
    assert nearest("wieght", iter(["weight", "kind"])) == "Did you mean 'weight'?"
