"""Checkpoints: written whole or not at all, read without ever running code from the file.

A file is a ``torch.save`` archive of ``{"format", "mtl_train", "checksum", "state"}``. The state holds tensors and
plain Python values only, so that PyTorch's restricted reader (``weights_only=True``) is enough. The checksum
covers every value of the state: PyTorch does not check the archive's own ones, and a flipped bit in a weight
would go unnoticed.
"""

from __future__ import annotations

import errno
import hashlib
import pickle
import pickletools
import re
import shutil
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from mtl_cli import __version__
from mtl_cli.errors import DiskError, Problem, RunError
from mtl_cli.run.atomic import replacing, sync_folder, write_error

FORMAT = 1
_PLAIN = (int, float, str, bool, type(None))
# A Python name: a text file that happens to look like a pickle has other things in that place.
_FOREIGN_GLOBAL = re.compile(r"GLOBAL [A-Za-z_]\w*(\.[\w<>]+)* (was not an allowed|whose module)")


def save(path: Path, state: dict[str, Any], *copies: Path) -> None:
    """Writes a checkpoint. One that was there stays whole if this fails.

    Args:
        path: The file; its folder is made if need be, the one above must exist.
        copies: More files in that folder that are to hold the same, written after it, in this order.
        state: Tensors, int, float, str, bool and None, in dicts (keys text or int), lists and tuples, nested at will.

    Raises:
        TypeError: The state holds anything else; names its place.
        TrainingError: The file cannot be written (full disk); names the path and the reason.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(Path(folder) / "last.pt", {"step": 3, "model": {"bias": torch.zeros(2)}})
        ...     load(Path(folder) / "last.pt")
        {'step': 3, 'model': {'bias': tensor([0., 0.])}}
    """
    plain = _plain(state, "state")
    content = {"format": FORMAT, "mtl_train": __version__, "checksum": checksum(plain), "state": plain}
    try:
        if not path.parent.is_dir():  # not its parents: a run folder that is gone must not come back half empty
            path.parent.mkdir(exist_ok=True)
            sync_folder(path.parent.parent)
    except OSError as error:
        raise write_error(path, error) from error
    try:
        with replacing(path) as file:
            torch.save(content, file)
        for copy in copies:
            with replacing(copy) as file, path.open("rb") as written:
                shutil.copyfileobj(written, file)
    except RuntimeError as error:
        # PyTorch's archive writer hides the system's error (full disk) behind one of its own.
        if isinstance(error.__context__, OSError):
            raise write_error(path, error.__context__) from error
        raise


def load(path: Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Reads a checkpoint: exactly the state that was saved.

    Args:
        path: The file.
        map_location: Device that the tensors are put on.

    Raises:
        RunError: There is no such file; it is damaged or no checkpoint; it holds objects that could run code (they
            never do); or another version of this package made it. Each names the file.
    """
    if not path.is_file():
        raise RunError(_no_file(path))
    content = _read(path, map_location)
    if not isinstance(content, dict) or "state" not in content or "format" not in content:
        raise RunError(_unreadable(path, "it has no format number: made by another program"))
    _refuse_other_format(path, content)
    state = content["state"]
    if not isinstance(state, dict) or content.get("checksum") != _checksum_or_none(state):
        hint = "Use another checkpoint, or train again."
        raise RunError(Problem(str(path), "is damaged: checksum differs", hint))
    return state


def checksum(state: Any) -> str:
    """SHA-256, in hex, over every value of a checkpoint's state: types, shapes, bytes, keys and their order.

    Raises:
        TypeError: The state holds something that a checkpoint must not hold.

    Example:
        >>> checksum({"a": 1}) == checksum({"a": 1}), checksum({"a": 1}) == checksum({"a": 1.0})
        (True, False)
    """
    digest = hashlib.sha256()
    _feed(digest, state)
    return digest.hexdigest()


def _feed(digest: hashlib._Hash, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise TypeError("a checkpoint cannot hold a tensor that is larger than its memory")
        digest.update(f"tensor {value.dtype} {tuple(value.shape)};".encode())
        # Seen as bytes: NumPy knows no bfloat16.
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    elif isinstance(value, dict):
        digest.update(f"dict {len(value)};".encode())
        for key, item in value.items():
            _feed(digest, key)
            _feed(digest, item)
    elif isinstance(value, list | tuple):
        digest.update(f"{type(value).__name__} {len(value)};".encode())
        for item in value:
            _feed(digest, item)
    elif type(value) in _PLAIN:
        digest.update(f"{type(value).__name__} {value!r};".encode("utf-8", "surrogatepass"))
    else:
        raise TypeError(f"a checkpoint cannot hold {type(value).__name__}")


def _plain(value: Any, where: str) -> Any:
    """A copy of the containers with detached tensors; refuses what the restricted reader could not read back."""
    if type(value) in (dict, OrderedDict):
        for key in value:
            if type(key) not in (str, int):
                raise TypeError(f"{where}: a checkpoint's keys must be text or int, got {key!r}")
        return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item, f"{where}[{i}]") for i, item in enumerate(value))
    if isinstance(value, torch.Tensor):
        return _plain_tensor(value, where)
    if type(value) in _PLAIN:  # exact types: a NumPy float is a float too, and would be pickled as an object
        return value
    allowed = "tensors, int, float, str, bool, None, and dict, list or tuple of them"
    raise TypeError(f"{where}: a checkpoint holds only {allowed}, got {type(value).__module__}.{type(value).__name__}")


def _plain_tensor(value: torch.Tensor, where: str) -> torch.Tensor:
    tensor = value.detach()
    if type(tensor) is not torch.Tensor or tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        raise TypeError(f"{where}: a checkpoint holds only plain dense tensors, got {type(value).__name__}")
    tensor = tensor.resolve_conj().resolve_neg()
    # torch.save writes the whole memory that a view looks into; one row of a large table would cost the table.
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _checksum_or_none(state: Any) -> str | None:
    try:
        return checksum(state)
    except TypeError:
        return None


def _read(path: Path, map_location: str | torch.device) -> Any:
    if path.stat().st_size == 0:
        raise RunError(_unreadable(path, "the file is empty"))
    if _is_packed(path):
        raise RunError(_unreadable(path, "its content is compressed, as no checkpoint's is"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old pickle protocols; we say it in our own words
            return torch.load(path, map_location=map_location, weights_only=True)
    except OSError as error:
        if error.errno == errno.EINVAL:  # the reader was sent to a place that the file does not have
            raise RunError(_unreadable(path, _reason(path, error))) from error
        raise DiskError.of_reading(path, error) from error
    except (MemoryError, torch.OutOfMemoryError):
        raise  # the machine's fault, not the file's
    except Exception as error:  # a damaged file can make the reader fail with any error
        if _wants_code(path, error):
            hint = "Use only checkpoints that mtl-train wrote."
            what = "holds Python objects that could run code; refused"
            raise RunError(Problem(str(path), what, hint)) from error
        raise RunError(_unreadable(path, _reason(path, error))) from error


def _is_packed(path: Path) -> bool:
    """Whether a file may unpack to more than it is: PyTorch stores tensors as they are."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False  # not even an archive: what reads it says so


def _wants_code(path: Path, error: Exception) -> bool:
    """Whether the reader stopped at a Python object; a look at the file, nothing in it is run."""
    if isinstance(error, pickle.UnpicklingError) and _FOREIGN_GLOBAL.search(str(error)):
        return True
    # A bare pickle can fail on something else first (a protocol that PyTorch does not read).
    return not zipfile.is_zipfile(path) and _names_objects(path)


def _names_objects(path: Path) -> bool:
    """Whether a file is a pickle, of any protocol, that asks for an object of some module."""
    try:
        with path.open("rb") as file:
            return any(_asks_for_object(opcode.name, argument) for opcode, argument, _ in pickletools.genops(file))
    except (OSError, ValueError):  # the second: no pickle, or not further
        return False


def _asks_for_object(opcode: str, argument: object) -> bool:
    if opcode in ("GLOBAL", "INST"):  # text can look like these: "config: 1" starts with the sign for GLOBAL
        return re.fullmatch(r"[\w.]+ [\w.]+", str(argument)) is not None
    return opcode == "STACK_GLOBAL"


def _reason(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        start = file.read(2)
    if start != b"PK":
        return "it is no PyTorch file"
    if not zipfile.is_zipfile(path):
        return "it is cut short"
    if isinstance(error, pickle.UnpicklingError):
        return "its content is damaged"  # PyTorch's text advises to load the file unsafely
    lines = str(error).splitlines() or [""]
    return f"its content is damaged: {type(error).__name__} {lines[0][:80]}".strip()


def _no_file(path: Path) -> Problem:
    if path.is_dir():
        return Problem(str(path), "is a folder, not a checkpoint")
    others = sorted(other.name for other in path.parent.glob("*.pt"))
    return Problem(str(path), "no such file", f"Checkpoints there: {', '.join(others) or 'none'}.")


def _unreadable(path: Path, reason: str) -> Problem:
    hint = "Use another checkpoint, or train again."
    return Problem(str(path), f"cannot be read as a checkpoint ({reason})", hint)


def _refuse_other_format(path: Path, content: dict[str, Any]) -> None:
    found, version = content["format"], content.get("mtl_train")
    if type(found) is not int:
        raise RunError(_unreadable(path, "its format is no whole number"))
    if found == FORMAT:
        return
    age, hint = ("a newer", "Update mtl-train.") if found > FORMAT else ("an older", "Train again.")
    what = f"made by {age} version of mtl-train: format {found}, this one reads {FORMAT}"
    raise RunError(Problem(str(path), what, f"It was written by mtl-train {version}. {hint}"))
