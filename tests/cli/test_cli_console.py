"""What a leaderboard says of a job that failed."""

from mtl_cli.cli.console import one_line
from mtl_cli.errors import ConfigError, Problem, TrainingError


def test_the_hint_of_an_error_that_names_rows_is_whole():
    rows = ", ".join(f"customers.csv row {1000 + i}" for i in range(16))
    error = TrainingError(
        f"epoch 1, step 2: the loss of spend is not finite, in the batch of {rows}. Lower optimizer.lr."
    )
    assert one_line(error) == f"TrainingError: {error}"


def test_an_endless_error_is_cut_where_it_shows():
    assert one_line(ValueError("x" * 10_000)).endswith("xx…")


def test_several_mistakes_are_counted():
    error = ConfigError([Problem(key, "is wrong") for key in ("seed", "trainer.threads", "shared_dim")])
    assert one_line(error) == "ConfigError: seed: is wrong. (and 2 more)"
