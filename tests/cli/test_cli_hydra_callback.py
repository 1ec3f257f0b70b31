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
