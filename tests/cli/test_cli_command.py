"""What a command ends with."""

import pytest

from mtl_cli.cli import command, session
from mtl_cli.errors import ConfigError, Problem, TrainingError


def test_what_ended_a_sweep_is_told_though_jobs_had_failed_before(monkeypatch):
    monkeypatch.setattr(session, "_current", session.Session())
    told = session.current().sweep.errors
    told.append("ValueError: no number")
    counted = "1 job failed; the train.log of each says why."
    assert command._explain(ValueError("no number\nin row 3"), []) == (1, counted)
    why = "OSError: a worker was killed (a bug? HYDRA_FULL_ERROR=1 shows where)"
    assert command._explain(OSError("a worker was killed"), []) == (1, f"{why}\n{counted}")


@pytest.mark.parametrize("broken", [TrainingError("leaderboard.csv: cannot be written."), OSError("no such disk")])
@pytest.mark.parametrize(("error", "code"), [(None, 1), (ConfigError(Problem("seed", "must be a number")), 2)])
def test_a_leaderboard_that_cannot_be_written_hides_no_error_and_is_one(cli, monkeypatch, broken, error, code):
    def carry_out(*_):
        if error is not None:
            raise error
        return 0

    def write_leaderboard():
        raise broken

    monkeypatch.setattr(command, "_carry_out", carry_out)
    monkeypatch.setattr(command, "write_leaderboard", write_leaderboard)
    ended = cli("-m", "task=digits")
    assert (ended.code, ended.err.splitlines()) == (code, [str(broken), *([str(error)] if error else [])])
