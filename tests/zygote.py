"""Forks a child for each command line of mtl-train: real processes without the time that imports take.

Run as a script. Each line of its standard input is a job (JSON), each line of its standard output says how it ended:

    {"folder": DIR, "arguments": [...]}       runs mtl-train there; DIR/out.txt and DIR/err.txt get what it prints
    ... "seconds": 0.2                        SIGKILL after that time
    ... "event": 17, "half": false            SIGKILL before its 17th change of a file below DIR (see ``Changes``)
    {"code": 0, "seconds": 1.2, "events": ["open run/status.json", ...]}    code < 0: killed by that signal

Nothing of this is in the product: the child has the functions of ``os`` that it changes files with replaced before it
starts. It kills itself with SIGKILL, so that nothing of the process can tidy up.
"""

import importlib
import json
import os
import pkgutil
import signal
import sys
import time
import traceback
from pathlib import Path


class Changes:
    """Counts what a process does to the files below a folder, and kills it before one of these events.

    An event is a call of open (for writing), flush (all of a file is written), write, pwrite, fsync, replace, truncate,
    unlink, mkdir or rmdir. Killed before each of them in turn, a run has been killed in every state that its
    files pass through.

    Args:
        root: The folder.
        last: Number of the event, from 1, that it does not live to; None: it lives.
        half: Does half of that event, if it writes.
    """

    def __init__(self, root, last=None, half=False):
        self.root, self.last, self.half, self.events = str(root), last, half, []

    def install(self):
        """Replaces the functions of ``os``."""
        for name in ("replace", "truncate", "unlink", "mkdir", "rmdir"):
            setattr(os, name, self._counted(name, getattr(os, name), lambda first, *rest: rest[0] if rest else first))
        for name in ("fsync", "ftruncate"):
            setattr(os, name, self._counted(name, getattr(os, name), self._of))
        for name in ("write", "pwrite"):
            setattr(os, name, self._counted(name, getattr(os, name), self._of, halves=True))
        real_open, real_fdopen = os.open, os.fdopen

        def counted_open(path, flags, *rest, **options):
            if flags & (os.O_WRONLY | os.O_RDWR):
                self._event("open", path)
            return real_open(path, flags, *rest, **options)

        def counted_fdopen(descriptor, *rest, **options):
            return _File(real_fdopen(descriptor, *rest, **options), self)

        os.open, os.fdopen = counted_open, counted_fdopen

    def _counted(self, name, real, path_of, halves=False):
        def call(*arguments, **options):
            path = path_of(*arguments[: 2 if name == "replace" else 1])
            if halves and self._event(name, path, may_write_half=True):
                real(arguments[0], arguments[1][: len(arguments[1]) // 2], *arguments[2:])
                self._die()
            if not halves:
                self._event(name, path)
            return real(*arguments, **options)

        return call

    @staticmethod
    def _of(descriptor, *_):
        return Path(f"/proc/self/fd/{descriptor}").readlink()

    def _event(self, name, path, may_write_half=False):
        """Counts, and dies if it is time; true where the caller is to do half of it and die."""
        path = os.path.abspath(path)  # noqa: PTH100  links stay
        if not path.startswith(self.root + os.sep):
            return False
        self.events.append(f"{name} {path[len(self.root) + 1 :]}")
        if len(self.events) != self.last:
            return False
        if may_write_half and self.half:
            return True
        return self._die()

    @staticmethod
    def _die():
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)  # never: the signal is on its way


class _File:
    """A file whose flush is an event; half of it: what would be on the disk if the system had got half of the data."""

    def __init__(self, file, changes):
        self._file, self._changes = file, changes

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def __getattr__(self, name):
        return getattr(self._file, name)

    def flush(self):
        path = self._changes._of(self._file.fileno())
        if self._changes._event("flush", path, may_write_half=True):
            self._file.flush()
            self._file.truncate(self._file.tell() // 2)
            self._changes._die()
        self._file.flush()


# Loaded when first needed, which takes seconds
_LATE = ("sklearn.datasets", "sklearn.metrics", "torch._dynamo", "torch.fx.experimental.symbolic_shapes")


def _import_everything():
    import torch
    from hydra.core.plugins import Plugins

    import mtl_cli

    for name in _LATE:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(mtl_cli.__path__, "mtl_cli."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    Plugins.instance()  # looks through all installed packages
    torch.set_num_threads(1)


def _child(job):
    from mtl_cli.cli import run_command

    os.chdir(job["folder"])
    for number, name in ((1, "out.txt"), (2, "err.txt")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    changes = Changes(job["folder"], job.get("event"), job.get("half", False))
    changes.install()
    try:
        code = run_command(job["arguments"])
    except BaseException:
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    Path("events.json").write_text(json.dumps(changes.events))
    os._exit(code)


def _wait(child, seconds):
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if end is not None and time.monotonic() >= end:
            os.kill(child, signal.SIGKILL)
            end = None
        time.sleep(0.001)


def _main():
    _import_everything()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        job, started = json.loads(line), time.monotonic()
        child = os.fork()
        if child == 0:
            _child(job)
        code = _wait(child, job.get("seconds"))
        file = Path(job["folder"]) / "events.json"
        events = json.loads(file.read_text()) if file.exists() else []
        file.unlink(missing_ok=True)
        print(json.dumps({"code": code, "seconds": time.monotonic() - started, "events": events}), flush=True)
    os._exit(0)  # nothing to tidy up: that would take seconds


if __name__ == "__main__":
    _main()
