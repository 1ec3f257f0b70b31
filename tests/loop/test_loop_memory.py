"""Memory does not grow with the length of a run."""

from worlds import held_bytes, make_learner, make_trainer, three_kind_rows, three_kinds

from mtl_cli.run import RunFolder


def test_a_later_epoch_holds_what_an_early_one_held(tmp_path):  # LOO-06
    seen = {}

    def after_step():
        if trainer.progress.epoch in (3, 9) and trainer.progress.step_in_epoch == 0:
            seen[trainer.progress.epoch] = held_bytes()

    learner = make_learner(three_kinds(), sharing="mmoe", balancing="uncertainty")
    with RunFolder.claim(tmp_path / "run") as folder:
        trainer = make_trainer(folder, learner, three_kind_rows(), epochs=10, interrupted=after_step)
        trainer.fit()
    assert seen[3] == seen[9] > 0
