"""What a command ends with."""

from mtl_cli.cli import command, session


def test_what_ended_a_sweep_is_told_though_jobs_had_failed_before(monkeypatch):
    monkeypatch.setattr(session, "_current", session.Session())
    told = session.current().sweep.errors
    told.append("ValueError: no number")
    counted = "1 job failed; the train.log of each says why."
    assert command._explain(ValueError("no number\nin row 3"), []) == (1, counted)
    why = "OSError: a worker was killed (a bug? HYDRA_FULL_ERROR=1 shows where)"
    assert command._explain(OSError("a worker was killed"), []) == (1, f"{why}\n{counted}")
