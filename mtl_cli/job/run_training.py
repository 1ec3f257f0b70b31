"""Training a run, alone or with others step by step; and the dry run, which tries all of it."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from mtl_cli.build import Data, build_data
from mtl_cli.data import Features
from mtl_cli.job.describe import describe
from mtl_cli.job.resuming import finding_data, go_on, read_as_begun, refuse_other_data, stored_columns, tell_edits
from mtl_cli.job.setting_up import set_up
from mtl_cli.job.stop_signals import signals
from mtl_cli.job.summary import evaluate_and_record
from mtl_cli.job.trackers import Trackers
from mtl_cli.loop import Trainer
from mtl_cli.loop.progress import Limits
from mtl_cli.processes import ALONE, ProcessGroup
from mtl_cli.report_text import format_number
from mtl_cli.run import RunFolder, digest, record_code
from mtl_cli.run.atomic import write_error
from mtl_cli.schema import RunConfig
from mtl_cli.steps import Clock, Steps, run_alone
from mtl_cli.trained import load_run

log = logging.getLogger(__name__)


def train(
    config: RunConfig,
    folder: RunFolder,
    *,
    resume: bool,
    processes: ProcessGroup = ALONE,
) -> float | None:
    """Trains in a claimed folder whose config is written.

    Args:
        config: The configuration.
        folder: The folder.
        resume: Go on from ``checkpoints/last.pt`` if there is one.
        processes: Those that train together.

    Returns:
        The best value of what is monitored, None if it was never defined.

    Raises:
        UserError: The data or the checkpoint cannot be used.
        TrainingError: Training could not go on.
        Interrupted: A signal asked to stop; the state is saved.
    """
    return run_alone(training(config, folder, resume=resume, processes=processes))


def training(
    config: RunConfig,
    folder: RunFolder,
    *,
    resume: bool,
    interrupted: Callable[[], int | None] | None = None,
    late: Callable[[int], None] = lambda _: None,
    read: Callable[[RunConfig, Features | None], Data] = build_data,
    bar: bool = True,
    processes: ProcessGroup = ALONE,
    clock: Clock = time.monotonic,
) -> Steps[float | None]:
    """``train``, for whoever makes the steps: of one run, or of several together.

    Args:
        config: The configuration.
        folder: The folder.
        resume: Go on from ``checkpoints/last.pt`` if there is one.
        interrupted: Gives the number of a signal that asked to stop, or None; by default this listens for signals.
        late: Told the number of one that came when the last step was made, or in the evaluation after it: the run ends
            as if there had been none.
        read: Reads the data.
        bar: Whether to show a progress bar.
        processes: Those that train together.
        clock: The time that the run takes.
    """
    with Trackers(config, folder) as trackers:
        started = clock()
        with signals() if interrupted is None else nullcontext(interrupted) as asked:
            with processes.alike():
                folder.set_status("running")
                settings = digest(folder.read_settings())
                begun = resume and bool(folder.checkpoints())
                origin = None if begun or config.init_from is None else load_run(config.init_from, device="cpu")
                columns = stored_columns(config, folder) if begun else None
                config = read_as_begun(config, folder) if begun else config
                with finding_data(folder):
                    run = set_up(
                        config, folder, asked, origin=origin, columns=columns, read=read, bar=bar, processes=processes,
                        clock=clock,
                    )  # fmt: skip
                if resume:
                    refuse_other_data(run)
            hint = f"All of them must find {run.data.table.files} as they were for the first."
            processes.refuse_difference(lambda: run.data.table.fingerprint, "data", hint)
            folder.write_sealed("data.json", run.data.state(config))
            if begun:
                tell_edits(run)
            record_code(folder, config.plugins)
            log.info("%s", describe(run))
            if run.start is not None:
                folder.write_json("init.json", run.start.to_json())
            if begun:
                go_on(run.trainer)
            else:
                _empty_logs(run.trainer)
            trackers.follow(run)
            yield from run.trainer.steps()
            summary = evaluate_and_record(run, run.trainer.stopwatch.seconds())
            summary |= {"seconds": round(clock() - started, 3), "config": settings}
            folder.write_json("summary.json", summary)
            folder.set_status("done", exit_code=0)
            too_late = asked()  # the training is over, and what is left is sooner done than begun anew
        trackers.final = {key: value for key, value in summary["metrics"].items() if key.startswith("test/")}
        log.info("run folder: %s", folder.path)
        if too_late is not None:
            late(too_late)
        return run.trainer.scores.best.score


def audit(config: RunConfig, folder: Path) -> None:
    """``dry_run=true``: everything that can fail is tried, and nothing is left behind.

    Reads the data, prints what there is, makes one training and one evaluation step, writes a checkpoint where the
    run would be and reads it back.
    """
    with _scratch(folder) as scratch, RunFolder.claim(scratch / "run") as claimed:
        origin = None if config.init_from is None else load_run(config.init_from, device="cpu")
        run = set_up(config, claimed, lambda: None, Limits(epochs=None, steps=1, seconds=None), origin=origin)
        log.info("%s", describe(run, whole=True))
        trainer = run.trainer
        trainer.fit()
        trainer.checkpoints.load("last")
        evaluation = trainer.evaluate(trainer.val)
        flops = f"{run.flops_per_row():,} FLOPs per row in matrix products and convolutions"
        log.info("forward pass: %s", flops)
        log.info("one training step, one evaluation, one checkpoint written and read: all well")
        log.info("validation loss after one step: %s", format_number(evaluation.loss))
    log.info("dry run: nothing was kept")


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder for a while, on the very disk that the run would write to."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        scratch = tempfile.TemporaryDirectory(dir=folder, prefix=".dry-run-")
    except OSError as error:
        raise write_error(folder, error) from error
    with scratch as path:
        yield Path(path)


def _empty_logs(trainer: Trainer) -> None:
    """Removes the records of a process that died before its first checkpoint."""
    trainer.diagnostics.truncate(0)
    trainer.metrics.truncate(0)
