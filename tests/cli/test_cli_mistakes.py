"""A mistake is one clear message: where, what is wrong, the way out. All at once, and nothing is left behind."""

import shlex
from pathlib import Path

import pytest

from mtl_cli.composition import check_overrides
from mtl_cli.errors import ConfigError
from mtl_cli.registry import KINDS, SOURCES, options_of
from mtl_cli.schema import TaskOptions

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = ", ".join(sorted(path.stem for path in (CONFIGS / "task").glob("*.yaml")))
KIND_NAMES = ", ".join(KINDS.names())
TASK_KEYS = ", ".join(
    sorted({"kind", *options_of(TaskOptions), *(key for name in KINDS.names() for key in KINDS.options(name))})
)
HEAD = "# @package _global_\n"
DATA = "data: {source: table, path: people.csv}\n"
TASKS = "tasks:\n  buys: {kind: binary}\n  income: {kind: regression}\n"
PEOPLE = "age,city,income,buys\n" + "".join(
    f"{20 + i},{'ab'[i % 2]},{1000 + 37 * i % 11},{'yes' if i % 3 else 'no'}\n" for i in range(30)
)


def _mistake(name, arguments, message, *, mine=None, experiment=None, files=None):
    """A command, its message, and what stands in the user's task file, experiment file and others."""
    texts = {"conf/task/mine.yaml": mine, "conf/experiment/big.yaml": experiment}
    written = {path: HEAD + text for path, text in texts.items() if text is not None}
    return pytest.param(arguments, message, {**written, **(files or {})}, id=name)


MISTAKES = [
    # memory
    _mistake(
        "streaming of what is no Parquet file",
        "--config-dir conf task=mine data.in_memory=false",
        (
            "data.in_memory (command line): cannot be false: people.csv is no Parquet file. Write it as Parquet once: "
            "polars.scan_csv('people.csv', infer_schema=False).sink_parquet('people.parquet')."
        ),
        mine=DATA + TASKS,
    ),
    _mistake(
        "streaming of a file of another format among several",
        "--config-dir conf task=mine data.in_memory=false data.path=[a.parquet,old/b.v2.jsonl]",
        (
            "data.in_memory (command line): cannot be false: old/b.v2.jsonl is no Parquet file. Write it as Parquet "
            "once: polars.scan_ndjson('old/b.v2.jsonl').sink_parquet('old/b.v2.parquet')."
        ),
        mine=DATA + TASKS,
    ),
    _mistake(
        "streaming of an embedded data set",
        "task=digits data.in_memory=false",
        (
            "data.in_memory (command line): cannot be false: data.source=sklearn is read whole. "
            "Write its rows as a Parquet file, for data.source=table."
        ),
    ),
    _mistake(
        "streaming of several sources",
        "--config-dir conf task=mine data.in_memory=false",
        (
            "data.in_memory (command line): cannot be false: several sources (data.sources) are read whole. "
            "Join them into one table (data.source=table)."
        ),
        mine="data: {sources: {a: {path: a.parquet}}}\n" + TASKS,
    ),
    _mistake(
        "streaming of numbers written in another way",
        "--config-dir conf task=mine data.in_memory=false data.path=a.parquet +data.decimal=','",
        (
            "data.in_memory (command line): cannot be false: data.decimal and data.thousands say how numbers are "
            "written as text, which is decided over all rows. Write the Parquet file with numbers as numbers."
        ),
        mine=DATA + TASKS,
    ),
    _mistake(
        "streaming of labelled tokens",
        "--config-dir conf task=mine data.in_memory=false data.path=a.parquet",
        (
            "data.in_memory (command line): cannot be false: task 'pos' labels tokens, which are read whole. "
            "Write data.in_memory=true."
        ),
        mine=DATA + "tasks:\n  pos: {kind: tagging}\n",
    ),
    _mistake(
        "nothing but weights of 0",
        "task=digits only=[even,digit] tasks.digit.weight=0 tasks.even.weight=0",
        (
            "tasks.digit.weight (command line): is 0 for all tasks, and nothing would be trained. "
            "Write a weight above 0 for some."
        ),
    ),
    _mistake(
        "nothing but auxiliary tasks",
        "task=digits only=[digit] tasks.digit.auxiliary=true",
        (
            "tasks.digit.auxiliary (command line): is true for all tasks, and there is none to judge by. "
            "Write false for those you care for."
        ),
    ),
    _mistake(
        "another word for streaming",
        "task=digits data.in_memory=no",
        "data.in_memory (command line): must be auto or true or false, got 'no'.",
    ),
    # keys
    _mistake(
        "a misspelt key on the command line",
        "task=digits trainer.max_epoch=3",
        "trainer.max_epoch (command line): unknown key. Did you mean 'max_epochs'?",
    ),
    _mistake("a misspelt key at the top", "task=digits sed=3", "sed (command line): unknown key. Did you mean 'seed'?"),
    _mistake(
        "a misspelt key after a plus",
        "task=digits +trainer.max_epoch=3",
        "trainer.max_epoch (command line): unknown key. Did you mean 'max_epochs'?",
    ),
    _mistake(
        "a key that other tools have",
        "task=digits trainer.epochs=3",
        "trainer.epochs (command line): unknown key. Did you mean 'max_epochs'?",
    ),
    _mistake(
        "a key like none",
        "task=digits +zzz=3",
        (
            "zzz (command line): unknown key. Known: balancing, data, dry_run, encoder, extra, freeze, init_from, "
            "input_dim, logger, monitor, only, optimizer, plugins, resume, scheduler, seed, shared_dim, sharing, "
            "stop_on_failure, tasks, trainer."
        ),
    ),
    _mistake(
        "a task's name where its path belongs",
        "task=digits digit.weight=3",
        "digit (command line): unknown key. Did you mean 'tasks.digit'?",
    ),
    _mistake(
        "a key of no choice",
        "task=digits sharing.dropout=0.1",
        "sharing.dropout (command line): unknown key. Known: name.",
    ),
    _mistake(
        "a misspelt key in the task file",
        "--config-dir conf task=mine",
        "input_dims (conf/task/mine.yaml, line 3): unknown key. Did you mean 'input_dim'?",
        mine=DATA + "input_dims: 3\n" + TASKS,
    ),
    _mistake(
        "a misspelt key of the data",
        "--config-dir conf task=mine",
        "data.batchsize (conf/task/mine.yaml, line 2): unknown key. Did you mean 'batch_size'?",
        mine="data: {source: table, path: people.csv, batchsize: 3}\n" + TASKS,
    ),
    _mistake(
        "a misspelt key of a task",
        "--config-dir conf task=mine",
        "tasks.buys.wieght (conf/task/mine.yaml, line 4): unknown key. Did you mean 'weight'?",
        mine=DATA + "tasks:\n  buys: {kind: binary, wieght: 5}\n",
    ),
    _mistake(
        "a misspelt option of a kind",
        "--config-dir conf task=mine",
        "tasks.income.los (conf/task/mine.yaml, line 6): unknown key. Did you mean 'loss'?",
        mine=DATA + "tasks:\n  income:\n    kind: regression\n    los: mae\n",
    ),
    _mistake(
        "a misspelt key in an experiment",
        "--config-dir conf task=digits experiment=big",
        ("optimizer.learning_rate (conf/experiment/big.yaml, line 5): unknown key. Did you mean 'optimizer.lr'?"),
        experiment="trainer:\n  max_epochs: 3\noptimizer:\n  learning_rate: 0.1\n",
    ),
    _mistake(
        "a misspelt key in the user's own choice of a group",
        "--config-dir conf task=mine balancing=my",
        "balancing.alhpa (conf/balancing/my.yaml, line 2): unknown key. Known: loss_scale, name.",
        mine=DATA + TASKS,
        files={"conf/balancing/my.yaml": "name: equal\nalhpa: 3\n"},
    ),
    # folders
    *(
        _mistake(
            f"{what} in a file",
            f"task=digits {arguments}",
            "people.csv/run: cannot be made, got 'Not a directory'. Choose another folder.",
        )
        for what, arguments in [
            ("a run", "hydra.run.dir=people.csv/run"),
            ("a dry run", "hydra.run.dir=people.csv/run dry_run=true"),
            ("a sweep", "-m hydra.sweep.dir=people.csv/run"),
        ]
    ),
    _mistake(
        "a file for a folder",
        "task=digits hydra.run.dir=people.csv",
        "people.csv: is a file, not a folder. Choose another folder.",
    ),
    *(
        _mistake(
            f"a file that ours would hide, with {flag}",
            f"{flag}conf task=digits",
            "conf/task/digits.yaml: would be ignored: mtl-train ships a file of that name. Give yours another name.",
            files={"conf/task/digits.yaml": DATA + TASKS},
        )
        for flag in ("--config-dir=", "-cd=")
    ),
    _mistake(
        "two folders of configuration files",
        "--config-dir conf task=mine -cd=more",
        "--config-dir: must be given once, got conf and more. Put the files of both into one folder.",
        mine=DATA + TASKS,
    ),
    # groups and choices
    _mistake(
        "a misspelt group", "task=digits sharig=hard", "sharig (command line): unknown key. Did you mean 'sharing'?"
    ),
    _mistake(
        "a misspelt choice",
        "task=digits sharing=hrad",
        "sharing (command line): there is no sharing 'hrad'. Did you mean 'hard'?",
    ),
    _mistake("a misspelt task", "task=digit", "task (command line): there is no task 'digit'. Did you mean 'digits'?"),
    _mistake("no task", "seed=1", f"task: must be chosen. Known: {SHIPPED}. Example: mtl-train task=digits"),
    _mistake(
        "task=null", "task=null", f"task (command line): must be the name of a choice, got null. Known: {SHIPPED}."
    ),
    _mistake(
        "a task file that is called like a number",
        "--config-dir conf task=2024",
        "task (command line): must be the name of a choice, got 2024. Quote it: 'task=\"2024\"'.",
        files={"conf/task/2024.yaml": DATA + TASKS},
    ),
    _mistake(
        "such a file in a sweep",
        "--config-dir conf -m task=digits,true",
        "task (command line): must be the name of a choice, got true. Quote it: 'task=\"true\"'.",
        files={"conf/task/true.yaml": DATA + TASKS},
    ),
    _mistake(
        "a group chosen twice",
        "task=digits +encoder=mlp",
        ("encoder: is chosen twice. In a file, write `- override /encoder: ...`; on the command line, without +."),
    ),
    _mistake(
        "a launcher that is not installed",
        "task=digits hydra/launcher=job",
        "hydra/launcher: there is no 'job'. Known: basic, stacked.",
    ),
    _mistake(
        "a misspelt group in a defaults list",
        "--config-dir conf task=mine",
        "conf/task/mine.yaml: overrides the group 'encodr', which there is not. Did you mean 'encoder'?",
        mine="defaults:\n  - override /encodr: mlp\n" + DATA + TASKS,
    ),
    _mistake(
        "a misspelt choice in a defaults list",
        "--config-dir conf task=mine",
        "encoder (conf/task/mine.yaml, line 3): there is no encoder 'mpl'. Did you mean 'mlp'?",
        mine="defaults:\n  - override /encoder: mpl\n" + DATA + TASKS,
    ),
    _mistake(
        "a defaults list without slash",
        "--config-dir conf task=mine",
        (
            "conf/task/mine.yaml: overrides the group 'task/encoder', which there is not. Write `- override "
            "/encoder: ...`, with a slash."
        ),
        mine="defaults:\n  - override encoder: mlp\n" + DATA + TASKS,
    ),
    _mistake(
        "a defaults list without override",
        "--config-dir conf task=mine",
        ("encoder: is chosen twice. In a file, write `- override /encoder: ...`; on the command line, without +."),
        mine="defaults:\n  - /encoder: mlp\n" + DATA + TASKS,
    ),
    _mistake(
        "a defaults list that is text",
        "--config-dir conf task=mine",
        (
            "conf/task/mine.yaml: cannot be read (Invalid defaults list in 'task/mine', defaults must be a "
            "list (got str))."
        ),
        mine="defaults: encoder\n" + DATA + TASKS,
    ),
    _mistake(
        "a file that includes itself",
        "--config-dir conf task=mine",
        ("the configuration refers to itself without end. Look at `defaults:` lists and ${...} in your files."),
        mine="defaults:\n  - /task: mine\n" + DATA + TASKS,
    ),
    _mistake(
        "an encoder given as text in a file",
        "--config-dir conf task=mine",
        (
            "encoder (conf/task/mine.yaml, line 3): must be a mapping with a name, got 'mlp'. In a file, "
            "write it in the defaults list: `- override /encoder: mlp`. On the command line: encoder=mlp."
        ),
        mine=DATA + "encoder: mlp\n" + TASKS,
    ),
    # types
    _mistake(
        "text for a whole number", "task=digits seed=abc", "seed (command line): must be a whole number, got 'abc'."
    ),
    _mistake(
        "a fraction for a whole number",
        "task=digits trainer.max_epochs=3.5",
        "trainer.max_epochs (command line): must be a whole number, got 3.5.",
    ),
    _mistake(
        "text for a number",
        "task=digits optimizer.lr=fast",
        "optimizer.lr (command line): must be a number, got 'fast'.",
    ),
    _mistake(
        "text for true or false",
        "task=digits data.shuffle=maybe",
        "data.shuffle (command line): must be true or false, got 'maybe'.",
    ),
    _mistake(
        "a number for a list",
        "task=digits encoder.hidden=64",
        "encoder.hidden (command line): must be a list, got 64. Write [64].",
    ),
    _mistake(
        "text in a list of numbers",
        "task=digits encoder.hidden=[64,wide]",
        "encoder.hidden[1] (command line): must be a whole number, got 'wide'.",
    ),
    _mistake(
        "a number for text", "task=digits monitor=3", "monitor (command line): must be text, got 3. Write it in quotes."
    ),
    _mistake(
        "false for a mapping",
        "task=digits trainer.early_stopping=false",
        "trainer.early_stopping (command line): must be a mapping, got False.",
    ),
    _mistake(
        "a key below a number",
        "task=digits optimizer.lr.x=3",
        "optimizer.lr (command line): must be a number, got {'x': 3}.",
    ),
    _mistake(
        "null where a value is needed",
        "task=digits seed=null",
        "seed (command line): must be a whole number, got null.",
    ),
    _mistake(
        "nothing after a colon",
        "--config-dir conf task=mine",
        "data.batch_size (conf/task/mine.yaml, line 2): must be a whole number, got null.",
        mine="data: {source: table, path: people.csv, batch_size: }\n" + TASKS,
    ),
    _mistake(
        "the text None",
        "task=digits trainer.max_steps=None",
        "trainer.max_steps (command line): is the text 'None', not an empty value. Write max_steps=null.",
    ),
    # values that are still to come
    _mistake(
        "three question marks",
        "--config-dir conf task=mine",
        "data.path (conf/task/mine.yaml, line 4): must be set, got ???. Example: data.path=...",
        mine="data:\n  source: table\n  path: ???\n" + TASKS,
    ),
    _mistake(
        "three question marks where there is a default",
        "--config-dir conf task=mine experiment=big shared_dim=8",
        (
            "data.path (conf/task/mine.yaml, line 2): must be set, got ???. Example: data.path=...\n"
            "optimizer.lr (conf/task/mine.yaml, line 3): must be set, got ???. Example: optimizer.lr=..."
        ),
        mine="data: {source: table, path: '???', batch_size: '???'}\noptimizer: {lr: '???'}\nshared_dim: ???\n" + TASKS,
        experiment="data: {batch_size: 8}\n",
    ),
    *(
        _mistake(
            f"three question marks below {header!r}",
            "--config-dir conf task=mine",
            f"optimizer.lr (conf/task/mine.yaml, line {line}): must be set, got ???. Example: optimizer.lr=...",
            files={"conf/task/mine.yaml": header + "optimizer: {lr: '???'}\n" + DATA + TASKS},
        )
        for header, line in (("#@package _global_\n", 2), ("#  @package   _global_\n", 2), ("\n" + HEAD, 3))
    ),
    _mistake(
        "three question marks in a group that is chosen",
        "--config-dir conf task=mine encoder=mlp",
        "encoder.dropout (conf/task/mine.yaml, line 2): must be set, got ???. Example: encoder.dropout=...",
        mine="encoder: {dropout: '???'}\n" + DATA + TASKS,
    ),
    _mistake(
        "hours that no number holds",
        f"task=digits trainer.max_time={'9' * 400}:00:00",
        f"trainer.max_time (command line): must be seconds or HH:MM:SS, got '{'9' * 400}:00:00'. Example: 01:30:00.",
    ),
    _mistake(
        "an interpolation of nothing",
        "--config-dir conf task=mine",
        (
            "shared_dim (conf/task/mine.yaml, line 2): cannot be resolved, got '${paths.root}' "
            "(Interpolation key 'paths.root' not found)."
        ),
        mine="shared_dim: ${paths.root}\n" + DATA + TASKS,
    ),
    _mistake(
        "an interpolation inside a text",
        "--config-dir conf task=mine",
        (
            "data.path (conf/task/mine.yaml, line 2): cannot be resolved, got '${root}/people.csv' "
            "(Interpolation key 'root' not found)."
        ),
        mine="data: {source: table, path: '${root}/people.csv'}\n" + TASKS,
    ),
    _mistake(
        "an interpolation of itself",
        "--config-dir conf task=mine",
        (
            "shared_dim (conf/task/mine.yaml, line 2): cannot be resolved, got '${shared_dim}' (Recursive "
            "interpolation detected)."
        ),
        mine="shared_dim: ${shared_dim}\n" + DATA + TASKS,
    ),
    _mistake(
        "an interpolation on the command line",
        "task=digits shared_dim=${nothing}",
        ("shared_dim (command line): cannot be resolved, got '${nothing}' (Interpolation key 'nothing' not found)."),
    ),
    _mistake(
        "an interpolation without end",
        "--config-dir conf task=mine",
        "shared_dim (conf/task/mine.yaml, line 2): cannot be read (no viable alternative at input '${a').",
        mine="shared_dim: ${a\n" + DATA + TASKS,
    ),
    _mistake(
        "an empty path",
        "--config-dir conf task=mine data.path=''",
        "data.path: is an empty name. Name a file.",
        mine=DATA + TASKS,
    ),
    # ranges
    _mistake("a negative seed", "task=digits seed=-1", "seed (command line): must be in [0, 9.22337e+18], got -1."),
    _mistake(
        "a seed of more than 64 bits",
        f"task=digits seed={2**63}",
        f"seed (command line): must be in [0, 9.22337e+18], got {2**63}.",
    ),
    _mistake(
        "a dropout of 1", "task=digits encoder.dropout=1", "encoder.dropout (command line): must be in [0, 1), got 1.0."
    ),
    _mistake(
        "a negative rate",
        "task=digits optimizer.lr=-0.1",
        "optimizer.lr (command line): must be greater than 0, got -0.1.",
    ),
    _mistake(
        "a negative weight in a file",
        "--config-dir conf task=mine",
        "tasks.buys.weight (conf/task/mine.yaml, line 4): must be at least 0, got -1.0.",
        mine=DATA + "tasks:\n  buys: {kind: binary, weight: -1}\n",
    ),
    # tasks
    _mistake(
        "a misspelt kind",
        "--config-dir conf task=mine",
        "tasks.buys.kind (conf/task/mine.yaml, line 4): unknown kind 'binar'. Did you mean 'binary'?",
        mine=DATA + "tasks:\n  buys: {kind: binar}\n",
    ),
    _mistake(
        "a kind of other tools",
        "--config-dir conf task=mine",
        (f"tasks.buys.kind (conf/task/mine.yaml, line 4): unknown kind 'classification'. Known: {KIND_NAMES}."),
        mine=DATA + "tasks:\n  buys: {kind: classification}\n",
    ),
    _mistake(
        "no kind",
        "--config-dir conf task=mine",
        (f"tasks.buys.kind (conf/task/mine.yaml, line 4): must be given. Known: {KIND_NAMES}."),
        mine=DATA + "tasks:\n  buys: {target: buys}\n",
    ),
    _mistake(
        "type for kind",
        "--config-dir conf task=mine",
        (
            "tasks.buys.kind (conf/task/mine.yaml, line 4): must be given. Did you write 'type' for it? "
            f"Known: {KIND_NAMES}.\n"
            f"tasks.buys.type (conf/task/mine.yaml, line 4): unknown key. Known: {TASK_KEYS}."
        ),
        mine=DATA + "tasks:\n  buys: {type: binary}\n",
    ),
    _mistake(
        "a misspelt task on the command line",
        "task=digits tasks.diigt.weight=2",
        (
            f"tasks.diigt.kind (command line): must be given. Known: {KIND_NAMES}. "
            "Or is it another task? Did you mean 'digit'?"
        ),
    ),
    _mistake(
        "a task without options",
        "--config-dir conf task=mine",
        (
            "tasks.buys (conf/task/mine.yaml, line 4): must be a mapping of options, got null. Example: "
            "buys: {kind: binary}."
        ),
        mine=DATA + "tasks:\n  buys:\n  income: {kind: regression}\n",
    ),
    _mistake(
        "a task that is text",
        "--config-dir conf task=mine",
        (
            "tasks.buys (conf/task/mine.yaml, line 4): must be a mapping of options, got 'binary'. Example: "
            "buys: {kind: binary}."
        ),
        mine=DATA + "tasks:\n  buys: binary\n",
    ),
    _mistake(
        "a dot in a task's name",
        "--config-dir conf task=mine",
        (
            "tasks.a.b (conf/task/mine.yaml, line 4): cannot be the name of a task, got 'a.b'. Allowed: "
            "letters, digits, _, -, + and spaces, not starting with a digit, and not loss, mean, worst. The "
            "column goes into `target`."
        ),
        mine=DATA + "tasks:\n  a.b: {kind: binary, target: buys}\n",
    ),
    _mistake(
        "a slash in a task's name",
        "--config-dir conf task=mine",
        (
            "tasks.a/b (conf/task/mine.yaml, line 4): cannot be the name of a task, got 'a/b'. Allowed: "
            "letters, digits, _, -, + and spaces, not starting with a digit, and not loss, mean, worst. The "
            "column goes into `target`."
        ),
        mine=DATA + "tasks:\n  a/b: {kind: binary, target: buys}\n",
    ),
    _mistake(
        "a task without a name",
        "--config-dir conf task=mine",
        (
            "tasks. (conf/task/mine.yaml, line 4): cannot be the name of a task, got ''. Allowed: letters, "
            "digits, _, -, + and spaces, not starting with a digit, and not loss, mean, worst. The column "
            "goes into `target`."
        ),
        mine=DATA + "tasks:\n  '': {kind: binary, target: buys}\n",
    ),
    _mistake(
        "a reserved name of a task",
        "--config-dir conf task=mine",
        (
            "tasks.mean (conf/task/mine.yaml, line 4): cannot be the name of a task, got 'mean'. Allowed: "
            "letters, digits, _, -, + and spaces, not starting with a digit, and not loss, mean, worst. The "
            "column goes into `target`."
        ),
        mine=DATA + "tasks:\n  mean: {kind: binary, target: buys}\n",
    ),
    *(
        _mistake(
            f"a number for the name of a task{where}",
            "--config-dir conf task=mine",
            (
                "tasks.25400 (conf/task/mine.yaml, line 4): cannot be the name of a task, got 25400. Allowed: "
                "letters, digits, _, -, + and spaces, not starting with a digit, and not loss, mean, worst. The "
                "column goes into `target`."
            ),
            mine=DATA + tasks,
        )
        for where, tasks in (
            ("", "tasks:\n  25400: {kind: binary}\n"),
            (" in a list", "tasks:\n  - {name: 25400, kind: binary}\n"),
        )
    ),
    _mistake(
        "a task called on",
        "--config-dir conf task=mine",
        (
            "tasks.True (conf/task/mine.yaml, line 4): the name of a task must be text, got True (what YAML "
            "makes of on, off, yes, no). Write it in quotes."
        ),
        mine=DATA + "tasks:\n  on: {kind: binary, target: buys}\n",
    ),
    _mistake(
        "a task called on in a list",
        "--config-dir conf task=mine",
        (
            "tasks[0].name (conf/task/mine.yaml, line 4): the name of a task must be text, got True (what "
            "YAML makes of on, off, yes, no). Write it in quotes."
        ),
        mine=DATA + "tasks:\n  - {name: on, kind: binary, target: buys}\n",
    ),
    _mistake(
        "a name twice in a list of tasks",
        "--config-dir conf task=mine",
        "tasks[1] (conf/task/mine.yaml, line 5): the name 'buys' is taken by tasks[0].",
        mine=DATA + "tasks:\n  - {name: buys, kind: binary}\n  - {name: buys, kind: regression, target: income}\n",
    ),
    _mistake(
        "a name twice in a mapping of tasks",
        "--config-dir conf task=mine",
        "conf/task/mine.yaml, line 5: is not valid YAML (found duplicate key buys).",
        mine=DATA + "tasks:\n  buys: {kind: binary}\n  buys: {kind: regression, target: income}\n",
    ),
    _mistake(
        "no name in a list of tasks",
        "--config-dir conf task=mine",
        (
            "tasks[0] (conf/task/mine.yaml, line 4): must be a mapping with a name, got {'kind': 'binary', "
            "'target': 'buys'}. Example: {name: income, kind: binary}."
        ),
        mine=DATA + "tasks:\n  - {kind: binary, target: buys}\n",
    ),
    _mistake(
        "a misspelt key in a list of tasks",
        "--config-dir conf task=mine",
        "tasks.buys.wieght (conf/task/mine.yaml, line 6): unknown key. Did you mean 'weight'?",
        mine=DATA + "tasks:\n  - name: buys\n    kind: binary\n    wieght: 2\n",
    ),
    _mistake(
        "a name on the command line for a list of tasks",
        "--config-dir conf task=mine tasks.buys.weight=2",
        (
            "command line: 'buys' cannot be set in a list. Write tasks as a mapping from names to options, "
            "then tasks.NAME.key=value works."
        ),
        mine=DATA + "tasks:\n  - {name: buys, kind: binary}\n",
    ),
    _mistake(
        "a mapping laid over a list of tasks",
        "--config-dir conf task=mine experiment=big",
        (
            "conf/experiment/big.yaml: gives a list where a mapping stands, or the other way round. Both "
            "files must agree."
        ),
        mine=DATA + "tasks:\n  - {name: buys, kind: binary}\n",
        experiment="tasks:\n  buys: {weight: 2}\n",
    ),
    _mistake(
        "tasks as text",
        "--config-dir conf task=mine",
        (
            "tasks (conf/task/mine.yaml, line 3): must be a mapping from task names to options, got 'buys'. "
            "Example: tasks: {income: {kind: binary}}."
        ),
        mine=DATA + "tasks: buys\n",
    ),
    _mistake(
        "an empty mapping of tasks",
        "--config-dir conf task=mine",
        ("tasks (conf/task/mine.yaml, line 3): no task is declared. Example: tasks: {income: {kind: binary}}."),
        mine=DATA + "tasks: {}\n",
    ),
    _mistake(
        "no tasks at all",
        "--config-dir conf task=mine",
        "tasks: no task is declared. Example: tasks: {income: {kind: binary}}.",
        mine=DATA,
    ),
    _mistake(
        "a task taken out that is not there",
        "task=digits ~tasks.nothing",
        "~tasks.nothing (command line): cannot be taken out: there is no such key.",
    ),
    _mistake(
        "only an unknown task", "task=digits only=[digt]", "only (command line): no task 'digt'. Did you mean 'digit'?"
    ),
    _mistake(
        "only no task",
        "task=digits only=[]",
        "only (command line): leaves no task, got []. Write only=null for all tasks.",
    ),
    _mistake(
        "only as text", "task=digits only=digit", "only (command line): must be a list, got 'digit'. Write [digit]."
    ),
    # keys that must agree
    _mistake(
        "an unknown monitor",
        "task=digits monitor=val/digit/acuracy",
        (
            "monitor (command line): there is no number 'val/digit/acuracy' to monitor. Did you mean "
            "'val/digit/accuracy'?"
        ),
    ),
    _mistake(
        "a monitor of a task left out",
        "task=digits only=[even] monitor=val/digit/accuracy",
        (
            "monitor (command line): 'val/digit/accuracy' is of a task that is not trained, since only=['even']. "
            "Write monitor=mean, or add the task."
        ),
    ),
    _mistake(
        "an unknown monitor of early stopping",
        "task=digits trainer.early_stopping.monitor=val/digits/accuracy",
        (
            "trainer.early_stopping.monitor (command line): there is no number 'val/digits/accuracy' to "
            "monitor. Did you mean 'val/digit/accuracy'?"
        ),
    ),
    _mistake(
        "a checkpoint by the test split",
        "task=digits trainer.checkpoint.monitor=test/mean",
        ("trainer.checkpoint.monitor (command line): there is no number 'test/mean' to monitor. Did you mean 'mean'?"),
    ),
    _mistake(
        "a weight of an unknown task",
        "task=digits balancing=fixed balancing.weights.digits=2",
        "balancing.weights.digits (command line): no task 'digits'. Did you mean 'digit'?",
    ),
    _mistake(
        "an unknown primary task",
        "task=digits balancing=auto_lambda balancing.primary=[digt,even]",
        "balancing.primary (command line): no task 'digt'. Did you mean 'digit'?",
    ),
    _mistake(
        "primary tasks that are not trained",
        "task=digits balancing=auto_lambda balancing.primary=[digit] only=[even,ink]",
        "balancing.primary: only=['even', 'ink'] leaves none of ['digit'].",
    ),
    _mistake(
        "an unknown scale of losses",
        "task=digits balancing=famo balancing.loss_scale=initail",
        "balancing.loss_scale (command line): must be one of none, initial, got 'initail'. Did you mean 'initial'?",
    ),
    _mistake(
        "gradients observed where nothing is shared",
        "task=digits balancing=gradnorm sharing=separate",
        (
            "balancing (command line): 'gradnorm' needs gradients of shared parameters, and sharing "
            "'separate' has none. Use balancing=equal, or a sharing with shared parameters (sharing=hard)."
        ),
    ),
    _mistake(
        "gradients combined where nothing is shared",
        "task=digits balancing=pcgrad sharing=separate",
        (
            "balancing (command line): 'pcgrad' needs gradients of shared parameters, and sharing "
            "'separate' has none. Use balancing=equal, or a sharing with shared parameters (sharing=hard)."
        ),
    ),
    _mistake(
        "gradients of features of a batch in pieces",
        "task=digits balancing=upgrad balancing.gradients_on=features trainer.accumulate_grad_batches=2",
        (
            "balancing.gradients_on (command line): 'features' need all rows of a step at once. "
            "Write balancing.gradients_on=parameters, or trainer.accumulate_grad_batches=1."
        ),
    ),
    _mistake(
        "a rank above the number of tasks, which is told before the data are looked for",
        "--config-dir conf task=mine sharing=low_rank sharing.rank=4 optimizer.lr=-1",
        (
            "optimizer.lr (command line): must be greater than 0, got -1.0.\n"
            "sharing.rank (command line): must be at most the number of tasks (2), got 4. "
            "A full rank shares nothing already; see sharing=separate."
        ),
        mine="data: {source: table, path: nowhere.csv}\n" + TASKS,
    ),
    _mistake(
        "training without end",
        "task=digits trainer.max_epochs=null",
        ("trainer (command line): never ends: max_epochs, max_steps and max_time are all null. Set one of them."),
    ),
    _mistake(
        "a time that is none",
        "task=digits trainer.max_time=soon",
        "trainer.max_time (command line): must be seconds or HH:MM:SS, got 'soon'. Example: 01:30:00.",
    ),
    _mistake(
        "a time before now",
        "task=digits trainer.max_time=-3",
        "trainer.max_time (command line): must be seconds or HH:MM:SS, got -3.0. Example: 01:30:00.",
    ),
    _mistake(
        "warm-up longer than the training",
        "task=digits scheduler=cosine scheduler.warmup_steps=10 trainer.max_steps=10",
        "scheduler.warmup_steps (command line): must be less than trainer.max_steps (10), got 10.",
    ),
    _mistake(
        "warm-up that is no number",
        "task=digits scheduler.warmup_steps=null trainer.max_steps=10",
        "scheduler.warmup_steps (command line): must be a whole number, got null.",
    ),
    _mistake(
        "an unknown device",
        "task=digits trainer.device=gpu",
        "trainer.device (command line): must be auto, cpu, cuda, cuda:N or mps, got 'gpu'.",
    ),
    _mistake(
        "an unknown precision",
        "task=digits trainer.precision=16-mixed",
        ("trainer.precision (command line): must be one of 32, bf16-mixed, got '16-mixed'. Did you mean 'bf16-mixed'?"),
    ),
    # the command line itself
    _mistake(
        "an equals sign in a value",
        "task=digits resume=runs/epoch=3-step=9",
        (
            "command line: cannot read the value of 'resume=runs/epoch=3-step=9'. Quote it: "
            "'resume=\"runs/epoch=3-step=9\"'."
        ),
    ),
    _mistake(
        "a list that does not end",
        "task=digits only=[digit,even",
        "command line: cannot read the value of 'only=[digit,even'. Set it in a file, or write a list as "
        '[a,"b=c"], with quotes around what is no plain word.',
    ),
    _mistake(
        "a list in quotes",
        'task=digits only="[digit,even]"',
        "only (command line): must be a list, got '[digit,even]'. Quote its items, not the whole.",
    ),
    _mistake(
        "a sign that cannot be in a key",
        "task=digits tasks.größe.weight=2",
        "command line: cannot read the key of 'tasks.größe.weight=2'. Set it in a file: on the command line a key is "
        "of letters from a to z, digits, '_', '-' and dots.",
    ),
    _mistake("a word without equals sign", "task=digits seed", "command line: 'seed' is no override. Write key=value."),
    _mistake("a value without key", "task=digits =3", "command line: '=3' is no override. Write key=value."),
    _mistake(
        "two values for one run",
        "task=digits seed=0,1",
        ("command line: 'seed=0,1' gives several values for one run. For a sweep add -m; for a list write seed=[0,1]."),
    ),
    _mistake(
        "an unknown flag",
        "task=digits --seed=1",
        "--seed: unknown flag. Keys are set without dashes: seed=1. Flags: mtl-train --hydra-help.",
    ),
    _mistake(
        "--config-dir without a folder",
        "task=digits --config-dir",
        "--config-dir: needs a value. Write --config-dir VALUE.",
    ),
    _mistake(
        "--config-dir that is not there",
        "--config-dir config task=mine",
        "--config-dir: there is no folder 'config' in {cwd}.",
        mine=DATA + TASKS,
    ),
    _mistake(
        "--config-dir too deep",
        "--config-dir conf/task task=mine",
        "task (command line): there is no task 'mine'. Write --config-dir conf, the folder above task/.",
        mine=DATA + TASKS,
    ),
    _mistake(
        "--config-name of nothing", "task=digits --config-name nothing", "--config-name: there is no nothing.yaml."
    ),
    _mistake(
        "a plugin that is not there",
        "task=digits plugins=[my_plugins.nothing] balancing.name=mine shared_dim=0",  # balancing may be in it
        (
            "plugins (command line): cannot import 'my_plugins.nothing' (No module named 'my_plugins'). Is "
            "it installed, or on PYTHONPATH?\n"
            "shared_dim (command line): must be at least 1, got 0."
        ),
    ),
    _mistake(
        "a plugin in a folder that Python does not search",
        "task=digits plugins=[my_plugins.own]",
        (
            "plugins (command line): cannot import 'my_plugins.own' (No module named 'my_plugins'). It is in this "
            "folder: write `export PYTHONPATH=$PWD` first."
        ),
        files={"my_plugins/own.py": ""},
    ),
    _mistake(
        "a plugin of one file that Python does not search",
        "task=digits plugins=[my_plugins]",
        (
            "plugins (command line): cannot import 'my_plugins' (No module named 'my_plugins'). It is in this "
            "folder: write `export PYTHONPATH=$PWD` first."
        ),
        files={"my_plugins.py": ""},
    ),
    _mistake(
        "a plugin as text",
        "task=digits plugins=my_plugins.nothing",
        "plugins (command line): must be a list, got 'my_plugins.nothing'. Write [my_plugins.nothing].",
    ),
    _mistake(
        "a misspelt choice in a sweep",
        "-m task=digits sharing=hard,hrad",
        "sharing (command line): there is no sharing 'hrad'. Did you mean 'hard'?",
    ),
    _mistake(
        "a misspelt key in a sweep", "-m task=digits sed=0,1", "sed (command line): unknown key. Did you mean 'seed'?"
    ),
    _mistake("a misspelt key of hydra", "task=digits hydra.run.dri=x", "hydra.run.dri (command line): unknown key."),
    # files
    _mistake(
        "an open bracket in YAML",
        "--config-dir conf task=mine",
        "conf/task/mine.yaml, line 3: is not valid YAML (expected ',' or '}', but got ':').",
        mine="data: {source: table\ntasks: [\n",
    ),
    _mistake(
        "a tab in YAML",
        "--config-dir conf task=mine",
        ("conf/task/mine.yaml, line 3: is not valid YAML (found character '\\t' that cannot start any token)."),
        mine="data:\n\tsource: table\n",
    ),
    _mistake(
        "broken YAML in an experiment",
        "--config-dir conf task=digits experiment=big",
        "conf/experiment/big.yaml, line 2: is not valid YAML (mapping values are not allowed here).",
        experiment="trainer: max_epochs: 3\n",
    ),
    _mistake(
        "a task file without its first line",
        "--config-dir conf task=mine",
        ("conf/task/mine.yaml, line 1: must be `# @package _global_`. Without it, what the file says has no effect."),
        files={"conf/task/mine.yaml": DATA + TASKS},
    ),
    _mistake(
        "a header of three words",
        "--config-dir conf task=mine",
        (
            "conf/task/mine.yaml: has the header `# @package _global_ too`, which is no key and one value. "
            "Write `# @package _global_`."
        ),
        files={"conf/task/mine.yaml": "# @package _global_ too\n" + DATA + TASKS},
    ),
    _mistake(
        "a task file called yml",
        "--config-dir conf task=mine",
        "task (command line): there is no task 'mine'. Rename conf/task/mine.yml to mine.yaml.",
        files={"conf/task/mine.yml": DATA + TASKS},
    ),
    _mistake(
        "a task file with a name of ours",
        "--config-dir conf task=digits",
        ("conf/task/digits.yaml: would be ignored: mtl-train ships a file of that name. Give yours another name."),
        files={"conf/task/digits.yaml": DATA + TASKS},
    ),
    # data
    _mistake(
        "no source",
        "--config-dir conf task=mine",
        f"data.source: must be given. Known: {', '.join(SOURCES.names())}.",
        mine=TASKS,
    ),
    _mistake(
        "a misspelt source",
        "--config-dir conf task=mine",
        "data.source (conf/task/mine.yaml, line 2): unknown source 'tabel'. Did you mean 'table'?",
        mine="data: {source: tabel, path: people.csv}\n" + TASKS,
    ),
    _mistake(
        "data as text",
        "--config-dir conf task=mine",
        (
            "data (conf/task/mine.yaml, line 2): must be a mapping, got 'people.csv'. It needs at least "
            "`source` (table or sklearn)."
        ),
        mine="data: people.csv\n" + TASKS,
    ),
    _mistake(
        "no path",
        "--config-dir conf task=mine",
        "data.path: must be given, got null. Write data.path=FILE, or data.train and data.val.",
        mine="data: {source: table}\n" + TASKS,
    ),
    _mistake(
        "path and train",
        "--config-dir conf task=mine",
        "data.path: cannot be given together with data.train. Keep one of the two forms.",
        mine="data: {source: table, path: people.csv, train: people.csv}\n" + TASKS,
    ),
    _mistake(
        "a misspelt file",
        "--config-dir conf task=mine",
        "persons.csv: no such file, looked for {cwd}/persons.csv. Did you mean 'people.csv'?",
        mine="data: {source: table, path: persons.csv}\n" + TASKS,
    ),
    _mistake(
        "a task without a column",
        "--config-dir conf task=mine",
        "tasks.byus.target: no column 'byus' in people.csv. Did you mean 'buys'?",
        mine=DATA + "tasks:\n  byus: {kind: binary}\n",
    ),
    _mistake(
        "a target without a column",
        "--config-dir conf task=mine",
        "tasks.buys.target: no column 'Buys' in people.csv. Did you mean 'buys'?",
        mine=DATA + "tasks:\n  buys: {kind: binary, target: Buys}\n",
    ),
    _mistake(
        "a target among the inputs",
        "--config-dir conf task=mine",
        (
            "data.inputs[1]: column 'income' cannot be an input, it is the target of task 'income'. Take it "
            "out of data.inputs, or write data.allow_inputs=[income] if the model is meant to see it."
        ),
        mine="data: {source: table, path: people.csv, inputs: [age, income]}\n" + TASKS,
    ),
    _mistake(
        "another input_dim than the data's",
        "--config-dir conf task=mine",
        (
            "input_dim: is 7, but the data give 2 (1 number: age; 1 category: city). Write input_dim=null to "
            "take it from the data."
        ),
        mine=DATA + "input_dim: 7\n" + TASKS,
    ),
    # several at once
    _mistake(
        "mistakes in the file and on the command line",
        "--config-dir conf task=mine optimizer.lr=-1 trainer.max_time=soon balancing.beta=2",
        (
            "shared_dim (conf/task/mine.yaml, line 3): must be at least 1, got 0.\n"
            "balancing.beta (command line): unknown key. Known: loss_scale, name. "
            "It is an option of balancing=db_mtl, gradvac, moco.\n"
            "optimizer.lr (command line): must be greater than 0, got -1.0.\n"
            "data.batch_size (conf/task/mine.yaml, line 2): must be a whole number, got 'many'.\n"
            "tasks.buys.kind (conf/task/mine.yaml, line 5): unknown kind 'binery'. Did you mean 'binary'?\n"
            "tasks.buys.wieght (conf/task/mine.yaml, line 5): unknown key. Did you mean 'weight'?\n"
            "tasks.a/b (conf/task/mine.yaml, line 6): cannot be the name of a task, got 'a/b'. Allowed: "
            "letters, digits, _, -, + and spaces, not starting with a digit, and not loss, mean, worst. The "
            "column goes into `target`.\n"
            "trainer.max_time (command line): must be seconds or HH:MM:SS, got 'soon'. Example: 01:30:00."
        ),
        mine="data: {source: table, path: people.csv, batch_size: many}\n"
        "shared_dim: 0\n"
        "tasks:\n"
        "  buys: {kind: binery, wieght: 2}\n"
        "  a/b: {kind: binary}\n",
    ),
    _mistake(
        "several overrides that cannot be read",
        "task=digits sed=1 resume=a=b seed=0,1",
        (
            "sed (command line): unknown key. Did you mean 'seed'?\n"
            "command line: cannot read the value of 'resume=a=b'. Quote it: 'resume=\"a=b\"'.\n"
            "command line: 'seed=0,1' gives several values for one run. For a sweep add -m; for a list write "
            "seed=[0,1]."
        ),
    ),
    _mistake(
        "several columns that are not there",
        "--config-dir conf task=mine",
        (
            "tasks.byus.target: no column 'byus' in people.csv. Did you mean 'buys'?\n"
            "tasks.incom.target: no column 'incom' in people.csv. Did you mean 'income'?"
        ),
        mine=DATA + "tasks:\n  byus: {kind: binary}\n  incom: {kind: regression}\n",
    ),
]


@pytest.mark.parametrize(("arguments", "message", "files"), MISTAKES)
def test_mistake_is_told(cli, write, tmp_path, arguments, message, files):
    write({"people.csv": PEOPLE, **files})
    before = sorted(tmp_path.rglob("*"))
    ended = cli(*arguments.split())
    assert ended.err == message.replace("{cwd}", str(tmp_path)) + "\n"
    assert ended.code == 2
    assert ended.out == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("given", "what", "written"),
    [
        ("only=[ja nein,Umsatz ü]", "its items", 'only=[ja nein,"Umsatz ü"]'),
        ("only=[Größe (m²)],[visits]", "its items", 'only=["Größe (m²)"],[visits]'),
        ("only=['a,ü',it's,x\"y]", "its items", """only=['a,ü',"it's","x\\"y"]"""),
        ("data.inputs=[{name: Größe, type: category}]", "its items", 'data.inputs=[{name: "Größe", type: category}]'),
        ("data.path=Größe=1.csv", "it", 'data.path="Größe=1.csv"'),
    ],
)
def test_an_override_that_cannot_be_read_is_told_with_a_way_to_write_it(given, what, written):
    with pytest.raises(ConfigError) as told:
        check_overrides([given], multirun=True, groups={})
    hint = f"Quote {what}: {shlex.quote(written)}."
    assert str(told.value) == f"command line: cannot read the value of '{given}'. {hint}"
    check_overrides([written], multirun=True, groups={})


def test_one_of_several_processes_that_cannot_find_the_others_is_refused(cli, monkeypatch, tmp_path):
    """It would train the whole run; one that is alone (WORLD_SIZE=1) is an ordinary run."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    ended = cli("task=digits")
    assert ended.code == 2
    assert ended.err == (
        "WORLD_SIZE: is 2, for a training in so many processes, and RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT are not "
        "set. Start them with torchrun --no-python --nproc-per-node 2 mtl-train ..., or unset WORLD_SIZE.\n"
    )
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("WORLD_SIZE", "many")
    assert cli("task=digits").err.startswith("WORLD_SIZE: must be a whole number, got 'many'.")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert cli("task=digits", "sharing=hrad").err.startswith("sharing (command line): there is no sharing 'hrad'.")


def test_workers_are_named_as_what_there_is_not(cli):
    # DET-04: results cannot depend on their number
    assert cli("task=digits", "data.num_workers=4").err == (
        "data.num_workers (command line): unknown key. There are no workers: rows are sliced in memory, or read ahead "
        "by one thread, which changes no result. trainer.threads sets the CPU threads.\n"
    )
