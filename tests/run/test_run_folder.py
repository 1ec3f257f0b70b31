"""A run folder has one owner, and never loses a run."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtl_cli.errors import RunError
from mtl_cli.run import RunFolder, find_resumable, is_locked, is_run_folder, remove_if_empty
from mtl_cli.run import folder as run_folder

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from mtl_cli.run import RunFolder
from mtl_cli.errors import RunError
sys.stdin.readline()
try:
    run = RunFolder.claim(sys.argv[1])
    run.set_status("running")
    print("won", flush=True)
except RunError as error:
    print(error, flush=True)
sys.stdin.readline()
"""


def _names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def _process(folder):
    command = [sys.executable, "-c", HOLD, str(folder)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT)


def _tell(process):
    process.stdin.write("\n")
    process.stdin.flush()


def _end(process):
    process.stdin.close()
    process.stdout.close()
    process.wait(timeout=10)


@pytest.fixture
def holder(tmp_path):
    """A live process that holds tmp_path/run."""
    process = _process(tmp_path / "run")
    _tell(process)
    assert process.stdout.readline() == "won\n"
    yield process
    process.kill()
    _end(process)


def _run(path, state, checkpoint=True):
    with RunFolder.claim(path) as run:
        run.set_status(state)
        if checkpoint:
            run.checkpoint("last").parent.mkdir()
            run.checkpoint("last").write_bytes(b"x")
    return path


def _message(call, *args, **kwargs):
    with pytest.raises(RunError) as error:
        call(*args, **kwargs)
    return str(error.value)


def test_importing_the_package_does_not_load_torch():
    code = "import sys, mtl_cli.run, mtl_cli.sweep; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_claim_makes_the_folder_and_release_leaves_no_lock(tmp_path):
    run = RunFolder.claim(tmp_path / "a" / "b")
    assert is_locked(tmp_path / "a" / "b")
    run.release()
    run.release()
    assert _names(tmp_path / "a" / "b") == []
    assert not is_locked(tmp_path / "a" / "b")


def test_a_folder_in_use_is_refused_naming_its_owner(tmp_path, holder):
    message = _message(RunFolder.claim, tmp_path / "run")
    pattern = (
        rf"{re.escape(str(tmp_path))}/run: is in use by process {holder.pid} on host \S+ "
        r"since 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\d\+00:00\. Wait for it to end, or choose another folder\."
    )
    assert re.fullmatch(pattern, message)
    assert "is in use by process" in _message(RunFolder.claim, tmp_path / "run", resume=True)


def test_the_lock_of_a_killed_process_is_gone(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait(timeout=10)
    assert (tmp_path / "run" / ".lock").exists()
    assert not is_locked(tmp_path / "run")
    with RunFolder.claim(tmp_path / "run", resume=True) as run:
        assert run.status["state"] == "running"
        assert run.status["pid"] == holder.pid


def test_a_forked_child_does_not_take_its_parents_lock_away(tmp_path):
    run = RunFolder.claim(tmp_path)
    code = (
        "import os, sys; from mtl_cli.run import RunFolder, is_locked; from pathlib import Path\n"
        "run = RunFolder.claim(sys.argv[1])\n"
        "child = os.fork()\n"
        "if not child:\n    run.release(); os._exit(0)\n"
        "os.waitpid(child, 0); sys.exit(not is_locked(Path(sys.argv[1])))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "other")], cwd=ROOT, check=False)
    run.release()
    assert done.returncode == 0


def test_of_four_processes_that_claim_one_folder_exactly_one_wins(tmp_path):
    for attempt in range(2):
        folder = tmp_path / str(attempt)
        processes = [_process(folder) for _ in range(4)]
        for process in processes:
            _tell(process)
        said = [process.stdout.readline().strip() for process in processes]
        winner = processes[said.index("won")]
        for process in processes:
            _end(process)
        others = [line for line in said if line != "won"]
        assert len(others) == 3
        for line in others:
            assert line.startswith(f"{folder}: is in use by process {winner.pid} on host ")


@pytest.mark.parametrize(
    ("state", "held"),
    [
        ("done", "a finished run (done)"),
        ("failed", "a failed run"),
        ("interrupted", "an interrupted run"),
        ("running", "an interrupted run (its process is gone)"),
    ],
)
def test_a_folder_with_a_run_is_refused_without_resume(tmp_path, state, held):
    path = _run(tmp_path / "run", state)
    assert _message(RunFolder.claim, path) == (
        f"{path}: holds {held}. Go on with it by resume={path}, or choose another folder."
    )
    assert not is_locked(path)
    with RunFolder.claim(path, resume=True) as run:
        assert run.status["state"] == state


def test_a_run_without_a_checkpoint_is_not_offered_for_resuming(tmp_path):
    path = _run(tmp_path / "run", "interrupted", checkpoint=False)
    assert _message(RunFolder.claim, path) == (
        f"{path}: holds an interrupted run. "
        "It has no checkpoint to go on from; choose another folder, or remove this one."
    )


@pytest.mark.parametrize("status", [None, "", "{", "[]", '{"state": "odd"}'])
def test_a_checkpoint_is_never_trained_over_even_if_the_status_is_lost(tmp_path, status):
    path = _run(tmp_path / "run", "running")
    (path / "status.json").unlink()
    if status is not None:
        (path / "status.json").write_text(status)
    assert _message(RunFolder.claim, path) == (
        f"{path}: holds a run whose status.json is missing or damaged. "
        f"Go on with it by resume={path}, or choose another folder."
    )


def test_a_folder_with_other_files_is_refused(tmp_path):
    for name in ("thesis.tex", "photo.jpg", "train.log", ".hidden"):
        (tmp_path / name).touch()
    assert _message(RunFolder.claim, tmp_path) == (
        f"{tmp_path}: holds files that are not a run's: photo.jpg, thesis.tex. Choose a new or empty folder."
    )
    assert not is_locked(tmp_path)


def test_a_report_of_a_failed_run_is_no_obstacle(tmp_path):
    (tmp_path / "report.html").touch()
    (tmp_path / "plots").mkdir()
    with RunFolder.claim(tmp_path) as folder:
        folder.clear()
    assert (tmp_path / "report.html").exists()


def test_what_is_there_before_a_run_starts_is_no_obstacle(tmp_path):
    (tmp_path / ".hydra").mkdir()
    for name in ("train.log", "config.yaml", "overrides", ".DS_Store"):
        (tmp_path / name).touch()
    RunFolder.claim(tmp_path).release()


def test_half_written_files_of_a_killed_process_are_removed(tmp_path):
    path = _run(tmp_path / "run", "running")
    (path / ".status.json.1-ab.mtl-tmp").touch()
    (path / "checkpoints" / ".last.pt.1-ab.mtl-tmp").touch()
    RunFolder.claim(path, resume=True).release()
    assert [p.name for p in path.rglob(".*")] == []


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "f").touch()
    assert _message(RunFolder.claim, tmp_path / "f") == f"{tmp_path}/f: is a file, not a folder. Choose another folder."
    assert _message(RunFolder.claim, tmp_path / "f" / "g") == (
        f"{tmp_path}/f/g: cannot be made, got 'Not a directory'. Choose another folder."
    )


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert _message(RunFolder.claim, tmp_path) == (
        f"{tmp_path}: cannot be locked, got 'Permission denied'. "
        "Choose a folder that can be written, on a disk that knows file locks."
    )


def test_only_a_run_can_be_resumed(tmp_path):
    missing = tmp_path / "no"
    assert _message(RunFolder.claim, missing, resume=True) == f"{missing}: cannot be resumed: there is no such folder."
    assert not missing.exists()
    _run(tmp_path / "job", "done")
    assert _message(RunFolder.claim, tmp_path, resume=True) == (
        f"{tmp_path}: cannot be resumed: it holds no run (no status.json); it holds: job. "
        "These below it are runs: job; name one."
    )


def test_status_keeps_when_the_run_started_and_forgets_the_last_error(tmp_path):
    with RunFolder.claim(tmp_path) as run:
        run.set_status("failed", error="disk full", exit_code=1)
        first = run.status
        time.sleep(0.002)
        run.set_status("running")
        second = run.status
    assert list(first) == ["format", "state", "pid", "host", "started", "updated", "error", "exit_code"]
    assert (first["format"], first["state"], first["pid"], first["error"]) == (1, "failed", os.getpid(), "disk full")
    assert second["started"] == first["started"] < second["updated"]
    assert "error" not in second
    assert not run.is_done


def test_status_takes_known_states_and_free_keys_only(tmp_path):
    run = RunFolder(tmp_path)
    with pytest.raises(ValueError, match=r"^state must be one of running, done, failed, interrupted, got 'odd'$"):
        run.set_status("odd")
    with pytest.raises(ValueError, match=r"^extra must not use the reserved keys pid$"):
        run.set_status("done", pid=3)


def test_config_and_overrides_come_back_as_written(tmp_path):
    run = RunFolder(tmp_path)
    run.write_config("seed: 0\n", ["seed=0", "tasks.a.weight=2", "+x=[1, 2]"])
    assert run.read_config() == "seed: 0\n"
    assert run.read_overrides() == ["seed=0", "tasks.a.weight=2", "+x=[1, 2]"]
    run.write_config("", [])
    assert run.read_overrides() == []


def test_json_of_a_run_comes_back_or_names_the_file(tmp_path):
    run = RunFolder(tmp_path)
    run.write_json("data.json", {"columns": ["a"]})
    assert run.read_json("data.json") == {"columns": ["a"]}
    assert _message(run.read_json, "summary.json") == f"{tmp_path}/summary.json: no such file; it holds: data.json."
    (tmp_path / "data.json").write_text("{")
    assert _message(run.read_json, "data.json").startswith(f"{tmp_path}/data.json: is damaged: no JSON (Expecting ")
    (tmp_path / "data.json").write_bytes(b"\xff\xfe")
    assert _message(run.read_json, "data.json") == f"{tmp_path}/data.json: is damaged: no UTF-8 text."
    (tmp_path / "status.json").write_text("{}")
    assert _message(lambda: run.status) == f"{tmp_path}/status.json: is damaged: it names no state of a run."


def test_a_sealed_file_is_read_only_as_it_was_written(tmp_path):
    run, told = RunFolder(tmp_path), f"{tmp_path}/data.json: "
    run.write_sealed("data.json", {"format": 1, "mean": 0.5})
    assert run.read_sealed("data.json", 1) == {"format": 1, "mean": 0.5}
    assert _message(run.read_sealed, "data.json", 2).startswith(
        f"{told}has format 1, this version of mtl-train reads 2."
    )
    written = run.read_json("data.json")
    run.write_json("data.json", {**written, "mean": 0.25})
    assert _message(run.read_sealed, "data.json", 1).startswith(f"{told}is damaged or edited: its checksum differs.")
    run.write_json("data.json", {"format": 1, "mean": 0.5})
    assert _message(run.read_sealed, "data.json", 1).startswith(f"{told}is damaged or edited: its checksum is missing.")
    run.write_json("data.json", [])
    assert _message(run.read_sealed, "data.json", 1) == f"{told}is damaged: it holds no mapping."


@pytest.mark.parametrize("name", ["../best", "a/b", ".hidden", ".."])
def test_a_checkpoint_lies_in_its_run(tmp_path, name):
    run = RunFolder(tmp_path)
    assert run.checkpoint("epoch-3") == tmp_path / "checkpoints" / "epoch-3.pt"
    assert _message(run.checkpoint, name) == f"{tmp_path}: the name of a checkpoint is a plain word, got {name!r}."


def test_clearing_leaves_what_no_run_wrote(tmp_path):
    run = _run(tmp_path / "run", "failed")
    (run / "notes.txt").write_text("mine")
    RunFolder(run).clear()
    assert [entry.name for entry in run.iterdir()] == ["notes.txt"]


def test_opening_needs_no_lock(tmp_path, holder):
    run = RunFolder.open(tmp_path / "run")
    assert run.status["state"] == "running"
    assert is_locked(run.path)


def test_opening_what_is_no_run_says_what_is_there(tmp_path):
    assert _message(RunFolder.open, tmp_path / "no") == f"{tmp_path}/no: is not a run folder: there is no such folder."
    assert _message(RunFolder.open, tmp_path) == (
        f"{tmp_path}: is not a run folder (no config.yaml or status.json); it is empty."
    )
    for number in range(10):
        (tmp_path / f"f{number}").touch()
    assert _message(RunFolder.open, tmp_path) == (
        f"{tmp_path}: is not a run folder (no config.yaml or status.json); "
        "it holds: f0, f1, f2, f3, f4, f5, f6, f7 and 2 more."
    )
    path = _run(tmp_path / "run", "done")
    assert _message(RunFolder.open, path / "checkpoints" / "last.pt") == (
        f"{path}/checkpoints/last.pt: is not a run folder but a file. Name the folder: {path}."
    )


def test_a_folder_counts_as_a_run_once_anything_of_a_run_is_in_it(tmp_path):
    (tmp_path / "plots").mkdir()
    assert not is_run_folder(tmp_path)
    (tmp_path / "train.log").touch()
    assert is_run_folder(tmp_path)


def test_every_file_of_a_run_is_described():
    assert [name for name in sorted(run_folder.OURS) if name not in run_folder.__doc__] == []


def test_empty_folders_are_removed_up_to_the_stop(tmp_path):
    deep = tmp_path / "runs" / "day" / "time"
    deep.mkdir(parents=True)
    (tmp_path / "runs" / "kept").touch()
    remove_if_empty(deep / "never-made", tmp_path)
    assert _names(tmp_path / "runs") == ["kept"]
    remove_if_empty(tmp_path / "runs", tmp_path)
    assert (tmp_path / "runs" / "kept").exists()
    (tmp_path / "runs" / "kept").unlink()
    remove_if_empty(tmp_path / "runs", tmp_path)
    assert _names(tmp_path) == []
    with pytest.raises(ValueError, match="is not below"):
        remove_if_empty(tmp_path, tmp_path)
    assert tmp_path.exists()


def test_unfinished_runs_are_found_the_newest_first(tmp_path):
    assert find_resumable(tmp_path / "no") == []
    for name, state, checkpoint in [
        ("a/old", "interrupted", True),
        ("a/new", "failed", True),
        ("b/without", "interrupted", False),
        ("b/done", "done", True),
        ("d/newest", "interrupted", True),
    ]:
        _run(tmp_path / name, state, checkpoint)
        time.sleep(0.002)
    _run(tmp_path / "c/damaged", "running")
    (tmp_path / "c/damaged/status.json").write_text("{")
    assert find_resumable(tmp_path) == [tmp_path / "d/newest", tmp_path / "a/new", tmp_path / "a/old"]
    assert find_resumable(tmp_path / "a" / "old") == [tmp_path / "a/old"]
    assert find_resumable(tmp_path / "b") == []


def test_a_killed_run_is_as_new_as_its_last_checkpoint(tmp_path):
    """Its status.json still says when it started."""
    first, second = (_run(tmp_path / name, "running", checkpoint=True) for name in ("first", "second"))
    for path, written in [(first, (1, 9)), (second, (2, 3))]:
        for name, seconds in zip(("status.json", "checkpoints/last.pt"), written, strict=True):
            os.utime(path / name, (seconds, seconds))
    assert find_resumable(tmp_path) == [first, second]
    os.utime(second / "status.json", (10, 10))
    assert find_resumable(tmp_path) == [second, first]


def test_a_run_with_a_live_process_is_not_found_until_it_dies(tmp_path, holder):
    (tmp_path / "run" / "checkpoints").mkdir()
    (tmp_path / "run" / "checkpoints" / "last.pt").touch()
    assert find_resumable(tmp_path) == []
    holder.kill()
    holder.wait(timeout=10)
    assert find_resumable(tmp_path) == [tmp_path / "run"]


def test_a_new_folder_is_made_durable_up_to_where_nothing_changed(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("mtl_cli.run.folder.sync_folder", synced.append)
    (tmp_path / "old").mkdir()
    long_ago = time.time() - 3600
    os.utime(tmp_path, (long_ago, long_ago))
    RunFolder.claim(tmp_path / "old/runs/digits/first").release()
    assert synced == [tmp_path / "old/runs/digits", tmp_path / "old/runs", tmp_path / "old"]
