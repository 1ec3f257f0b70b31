"""Whether data can stay in their files while a run trains, or have to be read whole."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from mtl_cli.registry import ENCODERS, KINDS, SOURCES
from mtl_cli.schema.components import class_attribute
from mtl_cli.schema.config import SourceConfig, TaskConfig


def why_whole(
    sources: Mapping[str, SourceConfig], tasks: Mapping[str, TaskConfig], encoder: str
) -> tuple[str, str] | None:
    """Why data have to be read whole, and what to do about it; None if they can be streamed.

    Example:
        >>> from mtl_cli.schema import Component, SplitOptions
        >>> source = SourceConfig(Component("table", {"path": "a.csv"}), SplitOptions())
        >>> why_whole({"": source}, {}, "mlp")[0]
        'a.csv is no Parquet file'
    """
    if "" not in sources:
        return "several sources (data.sources) are read whole", "Join them into one table (data.source=table)."
    name, options = sources[""].component.name, sources[""].component.options
    if name != "table":
        return f"data.source={name} is read whole", "Write its rows as a Parquet file, for data.source=table."
    given = [options[key] for key in ("path", "train", "val", "test") if options.get(key) is not None]
    files = [file for value in given for file in ([value] if isinstance(value, str) else value)]
    other = next((file for file in files if not file.lower().endswith((".parquet", ".pq"))), None)
    if other is not None:
        return f"{other} is no Parquet file", _as_parquet(other, options)
    if options.get("decimal", ".") != "." or options.get("thousands") is not None:
        what = "data.decimal and data.thousands say how numbers are written as text, which is decided over all rows"
        return what, "Write the Parquet file with numbers as numbers."
    tokens = [task for task, config in tasks.items() if class_attribute(KINDS, config.kind.name, "per_token", False)]
    if tokens:
        return f"task '{tokens[0]}' labels tokens, which are read whole", "Write data.in_memory=true."
    if class_attribute(ENCODERS, encoder, "reads_links", False):
        what = f"encoder={encoder} reads what all training rows tie together"
        return what, "Write data.in_memory=true, or use another encoder."
    return None


def _as_parquet(file: str, options: Mapping[str, Any]) -> str:
    """How a table in another format becomes a Parquet file; without being read whole, where its encoding allows it."""
    path = PurePath(file)
    name = re.sub(r"\.(gz|zst)$", "", path.name, flags=re.IGNORECASE)
    stem, dot, suffix = name.rpartition(".")
    target = str(path.parent / f"{stem if dot else name}.parquet")
    scan, write, arguments = "scan_csv", "sink_parquet", [repr(file)]
    if suffix.lower() in ("jsonl", "ndjson"):
        scan = "scan_ndjson"
    elif suffix.lower() in ("arrow", "feather"):
        scan = "scan_ipc"
    else:
        arguments += _text_arguments(suffix.lower(), options)
        if not _is_utf8(encoding := options.get("encoding", "utf-8")):
            scan, write = "read_csv", "write_parquet"
            arguments.append(f"encoding={encoding!r}")
    return f"Write it as Parquet once: polars.{scan}({', '.join(arguments)}).{write}({target!r})."


def _text_arguments(suffix: str, options: Mapping[str, Any]) -> list[str]:
    """How the cells of a text file are told apart, and that they stay the text that they are."""
    found = ["infer_schema=False"]
    sep = options.get("sep") or ("\t" if suffix == "tsv" else ",")
    sep = class_attribute(SOURCES, "table", "spelt", {}).get(sep, sep)
    if sep != ",":
        found.append(f"separator={sep!r}")
    if not options.get("header", True):
        found.append(f"has_header=False, new_columns={options.get('columns')!r}")
    return found


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")
