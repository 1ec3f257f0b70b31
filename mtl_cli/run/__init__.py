"""What a run leaves on the disk: its folder, checkpoints, metrics and summary.

``mtl_cli.run.checkpoint`` is imported on its own, since it alone loads PyTorch.
"""

from mtl_cli.run.atomic import write_bytes, write_json, write_text
from mtl_cli.run.folder import RunFolder, SeenRunFolder, folder_error, is_run_folder
from mtl_cli.run.lock import is_locked
from mtl_cli.run.metrics_log import MetricsLog
from mtl_cli.run.package_versions import versions
from mtl_cli.run.plugin_code import changed_code, record_code, told_of_edits
from mtl_cli.run.search import find_resumable, remove_if_empty
from mtl_cli.run.settings import digest, flatten, settings_text

__all__ = [
    "MetricsLog",
    "RunFolder",
    "SeenRunFolder",
    "changed_code",
    "digest",
    "find_resumable",
    "flatten",
    "folder_error",
    "is_locked",
    "is_run_folder",
    "record_code",
    "remove_if_empty",
    "settings_text",
    "told_of_edits",
    "versions",
    "write_bytes",
    "write_json",
    "write_text",
]
