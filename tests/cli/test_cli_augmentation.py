"""Images that move in training: other movements each epoch, the same in every run of a seed, also after a stop."""

import numpy as np
import pytest

from mtl_cli.cli import run_command
from mtl_cli.model.encoders import conv

TASK = """# @package _global_
defaults: [{override /encoder: conv}]
data: {source: npz, path: images.npz, inputs: [x], batch_size: 8, split: {val: 0.25, test: 0.0}}
shared_dim: 4
encoder: {widths: [4], shift: 2, rotate: 20.0, zoom: 0.2}
tasks: {y: {kind: binary}}
trainer: {max_epochs: 3}
"""


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Trains on sixteen images; gives a checksum of what each training image became, epoch by epoch."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/task").mkdir(parents=True)
    (tmp_path / "conf/task/images.yaml").write_text(TASK)
    generator = np.random.default_rng(0)
    np.savez("images.npz", x=generator.integers(0, 255, (16, 8, 8), dtype=np.uint8), y=np.arange(16) % 2)
    sums, moved = [], conv._moved
    monkeypatch.setattr(
        conv, "_moved", lambda *args: sums.append((images := moved(*args)).double().sum((1, 2, 3))) or images
    )

    def run(*arguments):
        sums.clear()
        assert run_command(["--config-dir", "conf", "task=images", *arguments]) == 0
        batches = [batch.tolist() for batch in sums]
        # An epoch begins with a look at the gradients of its first batch, which sees what the step will see.
        looks, first, second = batches[::3], batches[1::3], batches[2::3]
        assert looks == first
        return [sorted(one + other) for one, other in zip(first, second, strict=True)]

    return run


def test_every_epoch_moves_the_images_anew_and_every_run_alike(trained):
    # DET-02
    epochs = trained("hydra.run.dir=first")
    assert [len(epoch) for epoch in epochs] == [12, 12, 12]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert trained("hydra.run.dir=second") == epochs
    assert trained("hydra.run.dir=other", "seed=1")[0] != epochs[0]


def test_a_resumed_run_moves_them_as_if_it_had_not_stopped(trained):
    epochs = trained("hydra.run.dir=whole")
    trained("hydra.run.dir=part", "trainer.max_epochs=1")
    assert trained("resume=part", "trainer.max_epochs=3") == epochs[1:]
