"""What is remembered of the files that a source names."""

import os

import pytest

from mtl_cli.data.file_states import file_states
from mtl_cli.schema import Component, SourceConfig, SplitOptions


def _states(name, **options):
    return file_states({"": SourceConfig(Component(name, options), SplitOptions())})


@pytest.fixture(autouse=True)
def _files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place, name in enumerate(("a.csv", "b.csv", "images/cat/1.png", "images/dog/2.png")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x" * (place + 1))
        os.utime(path, ns=(0, place + 10))


def test_files_of_all_options_that_name_some_have_a_state():
    assert _states("table", train=["a.csv", "b.csv"], val="c.csv", sep="a.csv") == {"a.csv": [1, 10], "b.csv": [2, 11]}
    assert _states("interactions", path="a.csv", candidates="b.csv") == {"a.csv": [1, 10], "b.csv": [2, 11]}
    assert _states("sklearn", dataset="iris") == {}


def test_a_folder_has_the_state_of_what_is_in_it():
    assert _states("image_folder", path="images") == {"images": [7, 13]}
    os.utime("images/cat/1.png", ns=(0, 99))
    assert _states("image_folder", path="images") == {"images": [7, 99]}
