"""Names of jobs are safe, readable and stable."""

import re

import pytest

from mtl_cli.sweep import job_name


def test_the_order_the_plus_signs_and_hydras_own_settings_do_not_count():
    name = job_name(["sharing=mmoe", "seed=1"])
    assert re.fullmatch(r"seed-1-sharing-mmoe-[0-9a-f]{8}", name)
    assert job_name(["seed=1", "sharing=mmoe"]) == name
    assert job_name(["++seed=1", "+sharing=mmoe", "hydra.job.num=3", "+hydra/launcher=joblib", "seed=1"]) == name


def test_no_overrides_is_the_default():
    assert job_name([]) == job_name(["hydra.verbose=true", ""]) == "default"


@pytest.mark.parametrize(
    "override", ["only=[a,b]", "data.path=/tmp/ä b.csv", "~logger", "x='a/../b'", ".x=1", "x=\n", "y=" + "long" * 50]
)
def test_names_are_safe_and_short(override):
    name = job_name([override])
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*-[0-9a-f]{8}", name)
    assert len(name) <= 69


def test_different_overrides_never_share_a_name():
    lists = [["a=x"], ["a=X"], ["a=-x"], ["a=[x]"], ["a=(x)"], ["a=" + "x" * 70], ["a=" + "x" * 71], ["a=x", "b=1"]]
    names = [job_name(overrides).lower() for overrides in lists]
    assert len(set(names)) == len(names)
    assert job_name(["hydrated=1"]) != "default"


def test_what_tells_jobs_apart_comes_before_a_long_path():
    common = ["data.path=/a/long/path/to/some/folder/of/data/adult.parquet", "task=adult", "experiment=compare_sharing"]
    names = [job_name([*common, f"sharing={sharing}", "seed=0"]) for sharing in ("hard", "mmoe")]
    assert [name[:20] for name in names] == ["seed-0-sharing-hard-", "seed-0-sharing-mmoe-"]


def test_the_task_is_in_the_name_where_the_trainer_has_long_options():
    common = ["experiment=compare_sharing", "trainer.max_epochs=20", "trainer.early_stopping.patience=5", "seed=0"]
    names = [job_name([*common, "sharing=separate", f"task={task}"]) for task in ("digits", "park")]
    assert [name[:35] for name in names] == [
        "seed-0-sharing-separate-task-digits", "seed-0-sharing-separate-task-park-e",
    ]  # fmt: skip
