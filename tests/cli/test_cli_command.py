"""What a command ends with."""

import pytest

from mtl_cli.cli import command, session, sweep_end
from mtl_cli.errors import ConfigError, Problem, TrainingError


def test_what_ended_a_sweep_is_told_though_jobs_had_failed_before(monkeypatch):
    monkeypatch.setattr(session, "_current", session.Session())
    told = session.current().sweep.errors
    told.append("ValueError: no number")
    counted = "1 job failed; the train.log of each says why."
    assert command._explain(ValueError("no number\nin row 3"), []) == (1, counted)
    why = "OSError: a worker was killed (a bug? HYDRA_FULL_ERROR=1 shows where)"
    assert command._explain(OSError("a worker was killed"), []) == (1, f"{why}\n{counted}")


def test_model_that_no_memory_holds_is_no_bug(cli):
    ended = cli("task=digits", "shared_dim=99999999999999", "dry_run=true")
    assert ended.code == 1
    assert ended.err.endswith(" (not enough memory; HYDRA_FULL_ERROR=1 shows where)\n")


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


@pytest.mark.parametrize("code", [None, 143])
def test_a_signal_while_the_leaderboard_is_made_ends_the_command_as_any_other(cli, monkeypatch, code):
    def write_leaderboard():
        session.current().exit_code = code
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_carry_out", lambda *_: 0)
    monkeypatch.setattr(command, "write_leaderboard", write_leaderboard)
    ended = cli("-m", "task=digits")
    assert (ended.code, ended.err) == (code or 130, "")


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """A sweep whose jobs run in processes that a launcher starts, and whose folder is not made yet."""
    sweep = session.SweepState(folder=tmp_path / "sweep", in_this_process=False)
    monkeypatch.setattr(session, "_current", session.Session(sweep=sweep, started=0.0))
    return sweep


def test_a_sweep_whose_folder_could_not_be_made_has_no_jobs_to_tell_of(elsewhere):
    assert (sweep_end.told_of_failures(), sweep_end.told_of_unfinished()) == (None, None)
    assert command._explain(OSError("no such disk"), [])[1].startswith("OSError: no such disk")


def test_a_job_whose_status_cannot_be_read_hides_no_other(elsewhere, write):
    write({"sweep/a/status.json": "{", "sweep/b/status.json": '{"state": "failed", "error": "why"}'})
    assert sweep_end.told_of_failures() == "1 job failed; the train.log of each says why."
    elsewhere.in_this_process = True
    elsewhere.in_use += [elsewhere.folder / "a"]
    assert sweep_end.told_of_unfinished().startswith("1 job is in use by another process and not done yet.")
