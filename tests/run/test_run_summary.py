"""A run remembers what it was made with."""

import platform
from importlib import metadata

from mtl_cli.run import summary, versions


def test_versions_names_python_and_what_is_installed():
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["torch"] == metadata.version("torch")
    assert set(found) >= {"polars", "hydra-core", "omegaconf", "scikit-learn", "numpy"}


def test_what_is_not_installed_is_left_out(monkeypatch):
    def version(name):
        if name == "polars":
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(summary, "_version", summary._version.__wrapped__)  # without what it remembers
    assert list(versions()) == ["python", "torch", "mtl-train", "hydra-core", "omegaconf", "scikit-learn", "numpy"]
