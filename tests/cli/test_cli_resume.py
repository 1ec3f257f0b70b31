"""A run that was stopped, however it was stopped, goes on as if nothing had happened."""

import json
import os
import re
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from worlds import start, wait_for_lines

from mtl_cli.build import DATA_FORMAT
from mtl_cli.cli import run_command
from mtl_cli.loop import trainer
from mtl_cli.run import MetricsLog, RunFolder, settings_text
from mtl_cli.run.checkpoint import load

# State of every sort: dropout's generator, a schedule, weights that a method learns, checkpoints inside an epoch.
LONG = [
    "task=digits", "trainer.max_epochs=8", "trainer.checkpoint.every_n_steps=3", "encoder.dropout=0.3",
    "scheduler=cosine", "balancing=uncertainty", "hydra.run.dir=run", "data.batch_size=256",
    "encoder.hidden=[32]", "shared_dim=32",
]  # fmt: skip
QUICK = ["task=digits", "experiment=smoke", "encoder.hidden=[]", "shared_dim=16", "hydra.run.dir=run"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The run that nobody stopped."""
    folder = tmp_path_factory.mktemp("unbroken")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_command(LONG) == 0
    return folder / "run"


def _start(folder, arguments):
    command = [sys.executable, "-m", "mtl_cli", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "out.txt").open("w") as out, (folder / "err.txt").open("w") as err:
        return start(command, cwd=folder, stdout=out, stderr=err, env=environment)


def _stopped_by(number, folder, while_it_stands=lambda _: None):
    """Starts the long run and sends it a signal in its second or third epoch; returns the exit code."""
    process = _start(folder, LONG)
    try:
        wait_for_lines(process, folder / "run/metrics.jsonl", 3)
        process.send_signal(signal.SIGSTOP)
        while_it_stands(process)
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        return process.wait(timeout=60)
    finally:
        process.kill()


def _assert_same(run, unbroken):
    assert (run / "metrics.jsonl").read_bytes() == (unbroken / "metrics.jsonl").read_bytes()
    for name in ("best", "last"):
        one, other = (load(folder / "checkpoints" / f"{name}.pt") for folder in (run, unbroken))
        assert one["model"].keys() == other["model"].keys()
        assert all(torch.equal(value, other["model"][key]) for key, value in one["model"].items()), name
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (run, unbroken)]
    for key in ("metrics", "best", "epochs", "steps", "parameters", "data_fingerprint"):
        assert summaries[0][key] == summaries[1][key], key


def _bytes(run):
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def _status(run):
    return json.loads((run / "status.json").read_text())


def test_killed_run_goes_on_bit_for_bit(cli, tmp_path, unbroken):
    # RES-01, RES-02: nothing could be tidied up by the process itself. SWP-05: until then the folder is its own

    def others_are_refused(process):
        owner = rf"process {process.pid} on host \S+ since \S+"
        hint = r"Wait for it to end, or choose another folder\."
        for arguments in (LONG, [*LONG, "resume=auto"], ["resume=run"]):
            ended = cli(*arguments)
            assert ended.code == 2
            assert re.fullmatch(rf"\S*run: is in use by {owner}\. {hint}\n", ended.err)

    assert _stopped_by(signal.SIGKILL, tmp_path, others_are_refused) == -signal.SIGKILL
    assert _status(tmp_path / "run")["state"] == "running"
    assert not (tmp_path / "run/summary.json").exists()
    ended = cli(*LONG, "resume=auto")
    assert (ended.code, ended.err) == (0, "")
    assert re.search(r"^resumed after epoch \d+, step \d+$", ended.out, re.MULTILINE)
    _assert_same(tmp_path / "run", unbroken)


def _terminated(tmp_path, cli):
    """Another process gets a SIGTERM."""
    code = _stopped_by(signal.SIGTERM, tmp_path)
    return code, *((tmp_path / f"{name}.txt").read_text() for name in ("out", "err"))


def _control_c(tmp_path, cli):
    """This process gets a SIGINT in a step of the second epoch."""
    step, file, pressed = trainer.train_step, tmp_path / "run/metrics.jsonl", []

    def press(*arguments, **options):
        if not pressed and file.exists():
            pressed.append(True)
            os.kill(os.getpid(), signal.SIGINT)
        return step(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "train_step", press)
        return cli(*LONG)


def test_data_that_are_not_where_a_run_goes_on_are_told_with_their_folder(cli, customers, tmp_path, monkeypatch):
    assert cli("--config-dir", "conf", "task=customers", "hydra.run.dir=run", "trainer.max_epochs=1").code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    ended = cli(f"resume={tmp_path / 'run'}", "trainer.max_epochs=2")
    hint = f"The training read it from the folder {tmp_path}: run the command there."
    assert ended.code == 2
    assert ended.err == f"customers.csv: no such file, looked for {tmp_path}/elsewhere/customers.csv. {hint}\n"


@pytest.mark.parametrize(
    ("stop", "name", "code"), [(_terminated, "SIGTERM", 143), (_control_c, "SIGINT", 130)], ids=["SIGTERM", "SIGINT"]
)
def test_interrupted_run_says_how_to_go_on(cli, tmp_path, monkeypatch, unbroken, stop, name, code):
    # LOO-07. And: the folder alone is enough, from anywhere
    run = tmp_path / "run"
    ended, out, err = stop(tmp_path, cli)
    assert (ended, err) == (code, "")
    assert (_status(run)["state"], _status(run)["exit_code"]) == ("interrupted", code)
    assert f"\n{name}: finishing the step; once more to stop at once\n" in out
    assert out.endswith(f"\ninterrupted; go on with: mtl-train resume={run}\n")
    assert not (run / "summary.json").exists()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    ended = cli(f"resume={run}")
    assert (ended.code, ended.err) == (0, "")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    _assert_same(run, unbroken)


def test_warning_of_slurm_saves_and_a_requeued_line_goes_on(cli, tmp_path, unbroken):
    assert _stopped_by(signal.SIGUSR1, tmp_path) == 128 + signal.SIGUSR1
    assert (_status(tmp_path / "run")["state"], (tmp_path / "err.txt").read_text()) == ("interrupted", "")
    assert cli(*LONG, "resume=auto").code == 0
    _assert_same(tmp_path / "run", unbroken)


def test_second_control_c_stops_at_once_and_leaves_the_checkpoint_whole(cli, tmp_path, unbroken):
    # LOO-07. A step that takes for ever: the second signal must not wait for its end
    script = f"""
import sys, time
from pathlib import Path
import mtl_cli.loop.trainer as trainer
from mtl_cli.cli import run_command
step, file = trainer.train_step, Path("run/metrics.jsonl")

def slow(*arguments, **options):
    if file.exists() and file.read_text().count("\\n") >= 3:
        Path("slow").touch()
        time.sleep(60)
    return step(*arguments, **options)

trainer.train_step = slow
sys.exit(run_command({LONG!r}))
"""
    with (tmp_path / "out.txt").open("w") as out, (tmp_path / "err.txt").open("w") as err:
        process = start([sys.executable, "-c", script], cwd=tmp_path, stdout=out, stderr=err)
    try:
        while not (tmp_path / "slow").exists():
            assert process.poll() is None
            time.sleep(0.002)
        kept = (tmp_path / "run/checkpoints/last.pt").read_bytes()
        for _ in range(2):
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
    finally:
        process.kill()
    assert (tmp_path / "err.txt").read_text() == ""
    assert (tmp_path / "run/checkpoints/last.pt").read_bytes() == kept
    assert _status(tmp_path / "run")["state"] == "interrupted"
    assert cli("resume=run").code == 0
    _assert_same(tmp_path / "run", unbroken)


def test_stopped_before_the_first_step(tmp_path):
    # LOO-08
    process = _start(tmp_path, LONG)
    while not (tmp_path / "run/status.json").exists():
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert (tmp_path / "err.txt").read_text() == ""
    assert not (tmp_path / "run/summary.json").exists()
    assert _status(tmp_path / "run")["state"] == "interrupted"


def test_finished_run_has_nothing_to_do(cli, tmp_path):
    # RES-07
    assert cli(*QUICK).code == 0
    run = tmp_path / "run"
    before = _bytes(run)
    for arguments in (["resume=run"], [*QUICK, "resume=auto"], [*QUICK, "resume=run"]):
        ended = cli(*arguments)
        assert (ended.code, ended.err) == (0, "")
        assert re.fullmatch(r".*run: is done, nothing to do\n", ended.out)
        assert _bytes(run) == before


def test_finished_run_trains_on(cli, tmp_path):
    long = [*QUICK[:-1], "trainer.max_epochs=4"]
    assert cli(*long, "hydra.run.dir=unbroken").code == 0
    assert cli(*QUICK).code == 0
    first = json.loads((tmp_path / "run/summary.json").read_text())
    ended = cli("resume=run", "trainer.max_epochs=4")
    assert (ended.code, ended.err) == (0, "")
    assert "resumed after epoch 2, step 40" in ended.out
    _assert_same(tmp_path / "run", tmp_path / "unbroken")
    both = json.loads((tmp_path / "run/summary.json").read_text())  # the times are those of all parts
    assert both["train_seconds"] > first["train_seconds"]
    assert both["rows_per_second"] * both["train_seconds"] == pytest.approx(4 * both["rows"]["train"], rel=0.02)
    assert cli("resume=run").out.endswith("run: is done, nothing to do\n")


def test_inputs_are_read_as_when_the_run_began(cli, tmp_path):  # a later version may measure them otherwise
    assert cli(*QUICK).code == 0
    folder = RunFolder.open(tmp_path / "run")
    state = folder.read_sealed("data.json", DATA_FORMAT)
    mean = state["features"]["numeric"][0]["scaler"]["mean"]
    mean[0] += 1
    folder.write_sealed("data.json", state)
    assert cli("resume=run", "trainer.max_epochs=3").code == 0
    state = folder.read_sealed("data.json", DATA_FORMAT)
    assert state["features"]["numeric"][0]["scaler"]["mean"] == mean


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "foreign"])
def test_damaged_last_checkpoint_falls_back_to_the_newest_good_one(cli, tmp_path, damage):
    line = [*QUICK, "trainer.checkpoint.save_top_k=2", "trainer.max_epochs=3"]
    assert cli(*line, "hydra.run.dir=unbroken").code == 0
    assert cli(*line).code == 0
    checkpoints = tmp_path / "run/checkpoints"
    steps = {path.stem: load(path)["progress"]["step"] for path in checkpoints.glob("*.pt")}
    last = checkpoints / "last.pt"
    if damage == "gone":
        last.unlink()
    else:
        last.write_bytes({"cut": last.read_bytes()[:-100], "empty": b"", "foreign": b"hello"}[damage])
    (tmp_path / "run/summary.json").unlink()
    status = _status(tmp_path / "run")
    (tmp_path / "run/status.json").write_text(json.dumps({**status, "state": "running"}))  # it died while it wrote
    ended = cli("resume=run")
    assert (ended.code, ended.err) == (0, "")
    newest = max((step, name) for name, step in steps.items() if name != "last")
    assert f"resumed after epoch {newest[0] // 20}, step {newest[0]}\n" in ended.out
    assert re.search(
        r"run/checkpoints/last\.pt: .*Going on from run/checkpoints/(best|epoch-\d)\.pt instead", ended.out
    )
    _assert_same(tmp_path / "run", tmp_path / "unbroken")


def test_no_usable_checkpoint_is_refused_and_the_run_left_as_it_was(cli, tmp_path):
    assert cli(*QUICK).code == 0
    for path in (tmp_path / "run/checkpoints").glob("*.pt"):
        path.write_bytes(path.read_bytes()[:-100])
    before = {path: data for path, data in _bytes(tmp_path / "run").items() if path.name != "train.log"}
    ended = cli("resume=run", "trainer.max_epochs=5")
    assert ended.code == 2
    assert re.fullmatch(
        r"run/checkpoints/last\.pt: cannot be read as a checkpoint \(it is cut short\)\..*\n", ended.err
    )
    assert {path: data for path, data in _bytes(tmp_path / "run").items() if path.name != "train.log"} == before


def test_run_that_died_before_its_first_checkpoint_says_nothing_twice(cli, tmp_path):
    assert cli(*QUICK).code == 0
    run, rows = tmp_path / "run", (tmp_path / "run/metrics.jsonl").read_text()
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    (run / "summary.json").unlink()
    (run / "status.json").write_text(json.dumps({**_status(run), "state": "running"}))
    assert cli(*QUICK, "resume=auto").code == 0
    assert (run / "metrics.jsonl").read_text() == rows


def test_changed_data_are_noticed_and_the_run_left_as_it_was(cli, customers, tmp_path):
    line = ["--config-dir", "conf", "task=customers", "hydra.run.dir=run"]
    assert cli(*line).code == 0
    before = {path: data for path, data in _bytes(tmp_path / "run").items() if path.name != "train.log"}
    (tmp_path / "customers.csv").write_text(customers["customers.csv"].replace("c000,", "c999,"))
    for arguments in (["resume=run"], [*line, "resume=auto"]):
        ended = cli(*arguments, "trainer.max_epochs=3")
        assert ended.code == 2
        assert re.fullmatch(
            r"resume: \S*run: the data have changed since the run began \(fingerprint \w{12} -> \w{12}\)\. "
            r"Put customers\.csv back as they were, or start a new run\.\n",
            ended.err,
        )
        after = {path: data for path, data in _bytes(tmp_path / "run").items() if path.name != "train.log"}
        assert after == before


def test_a_finished_run_of_changed_data_is_not_done(cli, customers, tmp_path):
    line = ["--config-dir", "conf", "task=customers", "hydra.run.dir=run"]
    assert cli(*line).code == 0
    before = _bytes(tmp_path / "run")
    rows = customers["customers.csv"]
    (tmp_path / "customers.csv").write_text(rows[: rows.rindex("\n", 0, -1) + 1])  # one row less
    for arguments in (["resume=run"], [*line, "resume=auto"]):
        ended = cli(*arguments)
        assert (ended.code, ended.err.count("the data have changed since the run began")) == (2, 1)
        assert _bytes(tmp_path / "run") == before
    (tmp_path / "customers.csv").write_text(rows)
    assert cli(*line, "resume=auto").out.endswith("run: is done, nothing to do\n")


def test_cells_that_an_older_version_did_not_find_missing_are_told(cli, customers, tmp_path):
    line = ["--config-dir", "conf", "task=customers", "hydra.run.dir=run"]
    assert cli(*line).code == 0
    folder = RunFolder.open(tmp_path / "run")
    state = folder.read_sealed("data.json", DATA_FORMAT)
    row = state["features"]["rows"][0]
    found, row["missing"] = row["missing"], 7
    folder.write_sealed("data.json", state)
    before = {path: data for path, data in _bytes(tmp_path / "run").items() if path.name != "train.log"}
    ended = cli("resume=run", "trainer.max_epochs=3")
    assert (ended.code, ended.err) == (
        2,
        f"resume: run: the data are read otherwise than when the run began (missing cells of '{row['column']}': 7 -> "
        f"{found}). Go on with the version of mtl-train that it began with, or start a new run.\n",
    )
    assert {path: data for path, data in _bytes(tmp_path / "run").items() if path.name != "train.log"} == before


def test_stretched_schedule_says_the_rate_before_and_after(cli, tmp_path, records):
    # RES-04
    line = [*QUICK, "scheduler=cosine", "optimizer.lr=0.01"]
    assert cli(*line, "trainer.max_epochs=2").code == 0
    ended = cli("resume=run", "trainer.max_epochs=4")
    assert "learning rate at step 40: 0 before, 0.005 now; the schedule spans 80 steps now\n" in ended.out
    rates = [record["lr"] for record in records(tmp_path / "run", "train")]
    assert cli(*line, "trainer.max_epochs=4", "hydra.run.dir=unbroken").code == 0
    assert rates[2:] == [record["lr"] for record in records(tmp_path / "unbroken", "train")][2:]
    assert "learning rate" not in cli("resume=run", "trainer.max_epochs=4", "trainer.max_steps=80").out


def test_changes_are_refused(cli, tmp_path):
    assert cli(*QUICK, "trainer.max_epochs=1").code == 0
    run, before = tmp_path / "run", _bytes(tmp_path / "run")
    changes = ["optimizer.lr=0.5", "seed=1", "tasks.ink.weight=2", "trainer.max_epochs=3"]
    allowed = (
        "May change on resume: trainer.max_epochs, trainer.max_steps, trainer.max_time, trainer.early_stopping, "
        "trainer.checkpoint, trainer.device, trainer.threads, trainer.on_nonfinite, trainer.diagnostics_every, "
        "logger, extra. For anything else start a new run."
    )
    for arguments, named in (
        (["resume=run"], "run"),
        ([*QUICK, "resume=run"], "run"),
        ([*QUICK, "resume=auto"], str(run)),
    ):
        ended = cli(*arguments, *changes)
        assert ended.code == 2
        assert sorted(ended.err.splitlines()) == [
            f"resume: {named}: was made with another optimizer.lr (0.001 -> 0.5). {allowed}",
            f"resume: {named}: was made with another seed (0 -> 1). {allowed}",
            f"resume: {named}: was made with another tasks.ink.weight (not given -> 2). {allowed}",
        ]
        assert _bytes(run) == before
    ended = cli("resume=run", "only=[digit]")
    assert (ended.code, ended.err) == (2, f"resume: run: was made with another only (null -> ['digit']). {allowed}\n")


def test_tasks_in_another_order_are_refused_before_anything_is_read(cli, customers, write):
    head = "# @package _global_\ndata: {source: table, path: customers.csv, missing: ['', '?']}\n"
    tasks = ["churned: {kind: binary}", "size: {kind: multiclass}"]
    line = ["--config-dir", "conf", "task=mine", "trainer.max_epochs=1", "hydra.run.dir=run"]
    for order, code in ((tasks, 0), (tasks[::-1], 2)):
        write({"conf/task/mine.yaml": f"{head}tasks: {{{', '.join(order)}}}\n"})
        ended = cli(*line, *(["resume=run"] if code else []))
        assert ended.code == code
    assert ended.err.startswith("resume: run: was made with another order of tasks (churned, size -> size, churned). ")
    assert ended.out == ""


def test_a_run_that_stored_its_tasks_as_a_list_goes_on(cli, customers, write, tmp_path):  # as older versions did
    line = ["--config-dir", "conf", "task=customers", "trainer.max_epochs=1", "hydra.run.dir=run"]
    assert cli(*line).code == 0
    settings = RunFolder.open(tmp_path / "run").read_settings()
    listed = [{"name": name, **options} for name, options in settings["tasks"].items()]
    for epochs, again in ((2, ["resume=run"]), (3, [*line, "resume=run"])):
        write({"run/config.yaml": settings_text({**settings, "tasks": listed})})
        ended = cli(*again, f"trainer.max_epochs={epochs}")
        assert (ended.code, ended.err) == (0, "")
        assert RunFolder.open(tmp_path / "run").read_settings()["tasks"] == settings["tasks"]


def test_key_without_a_value_is_no_override_on_resume(cli, tmp_path):
    assert cli(*QUICK).code == 0
    for wrong in ("encoder=mlp", "experiment=smoke", "~extra", "~extra=note"):
        hint = "Write key=value."
        if not wrong.startswith("~"):
            hint = f"Give the task too: mtl-train task=NAME resume=RUN {wrong}"
        ended = cli("resume=run", wrong)
        assert (ended.code, ended.err) == (
            2,
            f"command line: '{wrong}' cannot be combined with resume=RUN alone. {hint}\n",
        )


def test_values_mean_the_same_with_a_task_and_beside_resume_alone(cli, tmp_path):
    assert cli(*QUICK, "trainer.max_epochs=1", "trainer.max_steps=null").code == 0
    values = ["trainer.max_time=10:00:00:00", "trainer.early_stopping={patience:5}", "extra.note=on", "extra.b='1'"]
    found = []
    for epochs, first in ((2, ["resume=run"]), (3, [*QUICK, "resume=run", "trainer.max_steps=null"])):
        ended = cli(*first, f"trainer.max_epochs={epochs}", *values)
        assert (ended.code, ended.err) == (0, "")
        settings = RunFolder.open(tmp_path / "run").read_settings()
        found.append((settings["trainer"]["max_time"], settings["trainer"]["early_stopping"], settings["extra"]))
    assert found[0] == found[1]
    assert found[0][0] == "10:00:00:00"


def test_another_folder_than_that_of_the_run_is_refused(cli, tmp_path):
    assert cli(*QUICK).code == 0
    before = _bytes(tmp_path / "run")
    for arguments in ([], QUICK[:-1]):
        ended = cli(*arguments, "resume=run", "hydra.run.dir=other", "trainer.max_steps=null")
        assert (ended.code, ended.err) == (
            2,
            "hydra.run.dir (command line): must be that of resume, in which the run goes on, got 'other' beside "
            "resume=run. Leave it out.\n",
        )
        assert cli(*arguments, "resume=run", f"hydra.run.dir='{tmp_path}/run'").code == 0
    assert ([path.name for path in tmp_path.iterdir()], _bytes(tmp_path / "run")) == (["run"], before)


def test_folder_that_is_no_run_is_refused(cli, write, tmp_path):
    write({"notes/readme.txt": "", "old/a/status.json": "{}"})
    before = sorted(tmp_path.rglob("*"))
    for arguments in ([], ["task=digits"]):
        for name, message in (
            ("nothing", "nothing: is not a run folder: there is no such folder."),
            ("notes", "notes: is not a run folder (no config.yaml or status.json); it holds: readme.txt."),
            ("notes/readme.txt", "notes/readme.txt: is not a run folder but a file. Name the folder: notes."),
            (
                "old",
                "old: is not a run folder (no config.yaml or status.json); it holds: a. "
                "These below it are runs: a; name one.",
            ),
            ("old/a", "old/a/config.yaml: no such file; it holds: status.json."),
        ):
            ended = cli(*arguments, f"resume={name}")
            assert (ended.code, ended.err) == (2, message + "\n")
    assert sorted(tmp_path.rglob("*")) == before


def test_resume_auto_begins_anew_where_there_is_nothing(cli, tmp_path):
    ended = cli(*QUICK, "resume=auto")
    assert (ended.code, ended.err) == (0, "")
    assert _status(tmp_path / "run")["state"] == "done"


def _interrupted(cli, monkeypatch, *arguments):
    """A run that a signal stops after its first step."""
    with monkeypatch.context() as patch:
        patch.setattr("mtl_cli.loop.trainer.Trainer._stop_signal", lambda _: signal.SIGTERM)
        assert cli(*arguments).code == 128 + signal.SIGTERM


def test_resume_auto_finds_the_run_with_its_own_configuration_among_others(cli, tmp_path, monkeypatch):
    line, each_time = [o for o in QUICK if not o.startswith("hydra.run.dir")], "hydra.run.dir=runs/${now:%H-%M-%S}"
    for seed in (0, 1):
        _interrupted(cli, monkeypatch, *line, f"seed={seed}", f"hydra.run.dir=runs/{seed}")
    ended = cli(*line, "seed=0", each_time, "resume=auto")
    assert (ended.code, ended.err) == (0, "")
    assert _status(tmp_path / "runs/0")["state"] == "done"
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["0", "1"]
    _interrupted(cli, monkeypatch, *line, "seed=2", "hydra.run.dir=runs/2")
    ended = cli(*line, "seed=3", each_time, "resume=auto")
    one, other = (f"runs/{seed} has another configuration (seed ({seed} -> 3))" for seed in (2, 1))
    assert f"resume=auto: {one}; {other}; starting anew" in ended.out.replace(f"{tmp_path}/", "")
    (new,) = (path for path in (tmp_path / "runs").iterdir() if path.name not in "012")
    assert _status(new)["state"] == "done"


def test_resume_auto_keeps_to_a_folder_that_is_given(cli, tmp_path, monkeypatch):
    """The run beside it has the same configuration, but is another job's."""
    line = [o for o in QUICK if not o.startswith("hydra.run.dir")]
    _interrupted(cli, monkeypatch, *line, "hydra.run.dir=runs/one")
    assert cli(*line, "hydra.run.dir=runs/other", "resume=auto").code == 0
    states = {name: _status(tmp_path / "runs" / name)["state"] for name in ("one", "other")}
    assert states == {"one": "interrupted", "other": "done"}


def test_a_signal_in_the_last_evaluation_lets_it_end_and_a_second_one_does_not(cli, tmp_path, monkeypatch):
    from mtl_cli.job.summary import evaluate_and_record

    def in_between(*arguments, count):
        for _ in range(count):
            signal.raise_signal(signal.SIGTERM)
        return evaluate_and_record(*arguments)

    for count, code, state in ((1, 0, "done"), (2, 130, "interrupted")):
        monkeypatch.setattr("mtl_cli.job.run_training.evaluate_and_record", partial(in_between, count=count))
        ended = cli(*[o for o in QUICK if not o.startswith("hydra.run.dir")], f"hydra.run.dir={state}")
        assert (ended.code, _status(tmp_path / state)["state"]) == (code, state)


def test_a_run_that_is_to_keep_no_best_any_more_ends_with_its_last_weights(cli, tmp_path):
    assert cli(*QUICK, "trainer.max_steps=null", "trainer.checkpoint.save_top_k=2").code == 0
    ended = cli("resume=run", "trainer.max_epochs=4", "trainer.checkpoint.save_top_k=0")
    assert ended.code == 0
    assert "weights of the last epoch, 4" in ended.out
    assert [file.name for file in (tmp_path / "run/checkpoints").iterdir()] == ["last.pt"]
    assert json.loads((tmp_path / "run/summary.json").read_text())["best"] is None


def test_resume_of_a_moved_run(cli, tmp_path):
    assert cli(*QUICK).code == 0
    (tmp_path / "run").rename(tmp_path / "kept")
    assert cli("resume=kept", "trainer.max_epochs=3").code == 0
    assert RunFolder.open(Path("kept")).is_done


def test_training_that_a_limit_ended_inside_an_epoch_goes_on_there(cli, tmp_path):
    line = [o for o in QUICK if not o.startswith("experiment")]
    line += ["data.batch_size=256", "trainer.max_epochs=3", "scheduler=constant"]  # five steps an epoch
    assert cli(*line, "trainer.max_steps=null", "hydra.run.dir=whole").code == 0
    assert cli(*line, "trainer.max_steps=6").code == 0
    assert json.loads((tmp_path / "run/summary.json").read_text())["epochs"] == 1.2
    ended = cli("resume=run", "trainer.max_steps=8")
    assert (ended.code, ended.err) == (0, "")
    assert "resumed after epoch 1, step 6" in ended.out
    assert cli("resume=run", "trainer.max_steps=null").code == 0
    found, whole = (MetricsLog(tmp_path / run / "metrics.jsonl").read() for run in ("run", "whole"))
    assert [record["step"] for record in found if record["split"] == "val"] == [5, 6, 8, 10, 15]
    assert [record for record in found if record["step"] not in (6, 8)] == whole
    one, other = (load(tmp_path / run / "checkpoints/last.pt") for run in ("run", "whole"))
    assert all(torch.equal(value, other["model"][key]) for key, value in one["model"].items())
    assert (one["early_stopping"], one["progress"]["epoch"]) == (other["early_stopping"], 3)


def test_a_value_that_is_not_a_number_is_no_change(cli):
    line = [*QUICK, "tasks.ink.missing_label=nan"]
    assert cli(*line, "trainer.max_epochs=1", "trainer.max_steps=null").code == 0
    ended = cli("resume=run", "trainer.max_epochs=2")
    assert (ended.code, ended.err) == (0, "")
