"""A run remembers what it was made with."""

import platform
from importlib import metadata

from mtl_cli.run import package_versions, versions


def test_versions_names_python_and_what_is_installed():
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["torch"] == metadata.version("torch")
    assert set(found) >= {"polars", "hydra-core", "omegaconf", "scikit-learn", "numpy", "pillow", "torchjd"}


def test_what_is_not_installed_is_left_out(monkeypatch):
    def version(name):
        if name == "polars":
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(package_versions, "_version", package_versions._version.__wrapped__)  # without its memory
    rest = ["hydra-core", "omegaconf", "scikit-learn", "numpy", "pillow", "torchjd"]
    assert list(versions()) == ["python", "torch", "mtl-train", *rest]
