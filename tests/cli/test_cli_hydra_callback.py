"""What is done when a sweep starts."""

import pytest
from omegaconf import OmegaConf

from mtl_cli.cli import hydra_callback, session


@pytest.mark.parametrize(
    ("monitor", "of_checkpoint", "direction"),
    [
        ("mean", None, "maximize"),
        ("val/loss", None, "minimize"),
        ("mean", "val/loss", "minimize"),
        ("val/loss", "worst", "maximize"),
    ],
)
def test_search_goes_the_way_of_the_score_that_jobs_return(monkeypatch, monitor, of_checkpoint, direction):
    monkeypatch.setattr(session, "_current", session.Session())
    config = OmegaConf.create(
        {
            "monitor": monitor,
            "trainer": {"checkpoint": {"monitor": of_checkpoint}},
            "hydra": {
                "sweep": {"dir": "sweep"},
                "launcher": {"_target_": "one.Launcher"},
                "sweeper": {"_target_": "one.Sweeper", "direction": None},
                "overrides": {"task": [], "hydra": []},
            },
        }
    )
    hydra_callback.SweepCallback().on_multirun_start(config)
    assert config.hydra.sweeper.direction == direction


def _search_for_groups(tasks, given, **keys):
    """A sweep over groups of binary tasks, with these overrides on the command line."""
    return OmegaConf.create(
        {
            **keys,
            "tasks": {name: {"kind": "binary"} for name in tasks},
            "trainer": {"checkpoint": {"monitor": None}},
            "hydra": {
                "sweep": {"dir": "sweep"},
                "launcher": {"_target_": "one.Launcher"},
                "sweeper": {"_target_": "one.Sweeper", "params": {"only": "auto"}},
                "overrides": {"task": given, "hydra": []},
            },
        }
    )


@pytest.mark.parametrize(
    ("given", "only", "searched", "left"),
    [
        ([], None, "[a],[b],[c],[a,b],[a,c],[b,c],[a,b,c]", []),
        (["++only=[c,a]", "seed=0"], ["c", "a"], "[a],[c],[a,c]", ["seed=0"]),
        (["++only=null"], None, "[a],[b],[c],[a,b],[a,c],[b,c],[a,b,c]", []),
        (["++only=[c,a],[b]"], None, None, ["++only=[c,a],[b]"]),
        (["++only=[c,z]"], ["c", "z"], None, ["++only=[c,z]"]),
        (["++only=every_pair"], "every_pair", None, ["++only=every_pair"]),
    ],
)
def test_groups_are_of_the_tasks_that_the_command_line_names(monkeypatch, given, only, searched, left):
    monkeypatch.setattr(session, "_current", session.Session())
    config = _search_for_groups("abc", given, monitor="mean", only=only)
    hydra_callback.SweepCallback().on_multirun_start(config)
    assert config.hydra.sweeper.params.get("only") == searched
    assert config.hydra.overrides.task == left


@pytest.mark.parametrize(("given", "refused"), [([], True), (["monitor=mean,worst"], False)], ids=["set", "swept over"])
def test_a_monitor_of_one_task_is_refused_for_groups_without_it(monkeypatch, capsys, given, refused):
    command = session.Session()
    monkeypatch.setattr(session, "_current", command)
    config = _search_for_groups("ab", given, monitor="val/a/auroc")
    if refused:
        with pytest.raises(SystemExit) as end:
            hydra_callback.SweepCallback().on_multirun_start(config)
        assert (end.value.code, command.sweep.folder) == (2, None)
        assert capsys.readouterr().err.startswith("monitor: is 'val/a/auroc', a number of task 'a', and 1 of the 3 ")
    else:
        hydra_callback.SweepCallback().on_multirun_start(config)
        assert config.hydra.sweeper.params.only == "[a],[b],[a,b]"
