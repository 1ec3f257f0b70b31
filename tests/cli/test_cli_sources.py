"""Several sources from the task file to the summary, and every mistake in them."""

import json
import random

import polars as pl
import pytest

from mtl_cli import load_run
from mtl_cli.commands import evaluate, export, predict
from mtl_cli.commands.entry import run

HEAD = "# @package _global_\n"
TWO = """\
data:
  sources:
    books: {path: books.csv, rename: {item: book}}
    movies: {path: movies.csv, rename: {item: movie}, split: {val: 0.3}}
  batch_size: 32
shared_dim: 8
encoder: {hidden: [8]}
trainer: {max_epochs: 2}
tasks:
  stars: {kind: regression}
  liked: {kind: binary, target: label, source: books}
  seen: {kind: binary, target: label, source: [movies]}
"""
RUN = "--config-dir conf task=mine hydra.run.dir=run"


@pytest.fixture
def mine(write):
    """Two files with the same users, and a task file over both."""
    draw = random.Random(0)
    rows = [f"u{draw.randint(0, 9)},{draw.randint(50, 90)},i{draw.randint(0, 9)},{i % 5},{i % 2}\n" for i in range(90)]
    files = {
        "books.csv": "user,pages,item,stars,label\n" + "".join(rows[:60]),
        "movies.csv": "user,minutes,item,stars,label\n" + "".join(rows[60:]),
        "conf/task/mine.yaml": HEAD + TWO,
    }
    write(files)
    return files


def test_rows_labels_and_numbers_of_two_sources(cli, mine, tmp_path, records):
    ended = cli(*RUN.split(), "data.source_as_input=true", "data.mixing=uniform", "data.epoch=longest")
    assert (ended.code, ended.err) == (0, "")
    assert "books      48    6     6              48  liked, stars" in ended.out
    assert "movies     18    9     3              48  seen, stars" in ended.out
    assert "note: movies: no column 'pages', 'book': an input of its own says so in these rows." in ended.out
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["rows"] == {"train": 66, "val": 15, "test": 9}
    assert summary["rows_seen"] == {"books": 96, "movies": 96}
    assert [(r["rows/books"], r["rows/movies"]) for r in records(tmp_path / "run", "train")] == [(48, 48), (96, 96)]
    assert {"test/stars@books/rmse", "test/stars@movies/rmse", "test/seen/auroc"} <= set(summary["metrics"])
    assert "test/seen@movies/auroc" not in summary["metrics"]
    features = json.loads((tmp_path / "run/data.json").read_text())["features"]
    assert [column["name"] for column in features["categorical"]] == ["user", "book", "movie", "source"]
    assert features["optional"] == ["pages", "book", "minutes", "movie"]


def test_rows_of_a_batch_that_is_left_out_are_not_told_as_drawn(cli, mine, tmp_path):
    ended = cli(*RUN.split(), "data.mixing=round_robin", "data.batch_size=15", "data.drop_last=true", "dry_run=true")
    told = [line.split()[:5] for line in ended.out.splitlines() if line.startswith(("books  ", "movies  "))]
    assert told == [["books", "48", "6", "6", "30"], ["movies", "18", "9", "3", "30"]]  # of 33 of each


def test_source_without_a_label_of_a_task_that_is_trained_is_told_with_its_share(cli, mine):
    dry = [*RUN.split(), "dry_run=true", "data.mixing=uniform"]
    assert (
        "note: source 'movies' has no training label for any task, and gives 33 of the 66 rows of the first epoch. "
        "To spare them, leave it out, with the tasks and inputs that it alone has.\n"
    ) in cli(*dry, "only=[liked]").out
    assert "has no training label" not in cli(*dry, "only=[stars]").out


def test_shares_that_fall_to_the_last_epoch_stay_those_of_the_run_when_it_trains_longer(cli, mine, tmp_path):
    mixing = ["data.mixing=annealed", "data.epoch=longest"]
    whole = ["--config-dir", "conf", "task=mine", "hydra.run.dir=whole", *mixing, "data.anneal_epochs=2"]
    assert cli(*whole, "trainer.max_epochs=3").code == 0
    assert cli(*RUN.split(), *mixing, "trainer.max_epochs=2").code == 0
    assert load_run(tmp_path / "run").config.data.anneal_epochs == 2
    assert cli(*RUN.split(), *mixing, "trainer.max_epochs=3", "resume=auto").code == 0
    assert load_run(tmp_path / "run").config.data.anneal_epochs == 2
    same = [(tmp_path / folder / "metrics.jsonl").read_bytes() for folder in ("whole", "run")]
    assert same[0] == same[1]
    refused = cli("resume=run", "data.anneal_epochs=4")
    assert "was made with another data.anneal_epochs (2 -> 4). May change" in refused.err


def test_source_is_an_input_where_the_inputs_are_a_list_without_it(cli, mine, tmp_path):
    ended = cli(*RUN.split(), "data.source_as_input=true", "data.inputs=[user, pages, minutes]")
    assert (ended.code, ended.err) == (0, "")
    features = json.loads((tmp_path / "run/data.json").read_text())["features"]
    assert [column["name"] for column in features["categorical"]] == ["user", "source"]


def test_source_given_alone_under_sources_is_the_same_run(cli, mine, tmp_path, write):
    head = "stars: {kind: regression}\n"
    write({"conf/task/one.yaml": f"{HEAD}data: {{source: table, path: books.csv, exclude: [label]}}\ntasks:\n  {head}"})
    text = f"{HEAD}data: {{sources: {{b: {{path: books.csv}}}}, exclude: [label]}}\ntasks:\n  {head}"
    write({"conf/task/same.yaml": text})
    for name in ("one", "same"):
        arguments = ["--config-dir", "conf", f"task={name}", "trainer.max_epochs=2", f"hydra.run.dir={name}"]
        assert cli(*arguments).code == 0
    one, same = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("one", "same"))
    assert one["metrics"] == same["metrics"]
    assert (one["rows_seen"], same["rows_seen"]) == ({}, {"b": 2 * one["rows"]["train"]})


MISTAKES = {
    "a source and sources": (
        {"sources:\n": "source: sklearn\n  sources:\n"},
        "data.source (conf/task/mine.yaml, line 3): cannot be given together with data.sources, got 'sklearn'. "
        "Write it in each source.",
    ),
    "a key of one source above all": (
        {"batch_size: 32": "path: books.csv"},
        "data.path (conf/task/mine.yaml, line 6): unknown key. Write it in each source: data.sources.NAME.path.",
    ),
    "a misspelt key of a source": (
        {"rename: {item: book}": "renam: {}"},
        "data.sources.books.renam (conf/task/mine.yaml, line 4): unknown key. Did you mean 'rename'?",
    ),
    "an unknown kind of source": (
        {"{path: books.csv": "{source: tabel, path: books.csv"},
        "data.sources.books.source (conf/task/mine.yaml, line 4): unknown source 'tabel'. Did you mean 'table'?",
    ),
    "a task of an unknown source": (
        {"source: books": "source: boks"},
        "tasks.liked.source (conf/task/mine.yaml, line 12): no source 'boks'. Did you mean 'books'?",
    ),
    "a task of no source": (
        {"source: books": "source: []"},
        "tasks.liked.source (conf/task/mine.yaml, line 12): is an empty list. "
        "Write null for every source that has the target column.",
    ),
    "no file": (
        {"path: books.csv": "path: null"},
        "data.sources.books.path: must be given, got null. Write data.path=FILE, or data.train and data.val.",
    ),
    "a column to rename that is not there": (
        {"{item: movie}": "{itm: movie}"},
        "data.sources.movies.rename.itm: no column 'itm' in movies.csv. Did you mean 'item'?",
    ),
    "labels that no source has": (
        {"target: label, source: books": "target: labels"},
        "tasks.liked.target: no column 'labels' in books.csv, movies.csv. Did you mean 'label'?",
    ),
    "labels that the source has not": (
        {"target: label, source: books": "target: minutes, source: books"},
        "tasks.liked.target: no column 'minutes' in books.csv. Known: book, label, pages, stars, user.",
    ),
    "a split that one source has not": (
        {"split: {val: 0.3}": "split: {column: fold}"},
        "data.sources.movies.split.column: no column 'fold' in movies.csv. "
        "Known: label, minutes, movie, stars, user.",
    ),
    "a source without validation rows": (
        {"split: {val: 0.3}": "split: {val: 0}"},
        "movies.csv: no validation rows, got 30 rows split at random (0 val, 0.1 test, seed 0). "
        "Change data.split, or give more rows.",
    ),
    "a method that there is not": (
        {"batch_size: 32": "mixing: unifrm"},
        "data.mixing (conf/task/mine.yaml, line 6): must be one of proportional, uniform, temperature, annealed, "
        "round_robin, got 'unifrm'. Did you mean 'uniform'?",
    ),
    "an epoch without a row of a source": (
        {"batch_size: 32": "epoch: 1"},
        "data.epoch: is 1, which leaves no row for source movies in an epoch. "
        "Give more rows, or another data.mixing.",
    ),
    "annealing without an end": (
        {"batch_size: 32": "mixing: annealed", "max_epochs: 2": "max_epochs: null, max_steps: 3"},
        "data.anneal_epochs (conf/task/mine.yaml, line 2): must be given where trainer.max_epochs is null, got null.",
    ),
    "an empty list of sources": (
        {"sources:\n    books: {path: books.csv, rename: {item: book}}\n    movies: {path: movies.csv, rename: "
         "{item: movie}, split: {val: 0.3}}": "sources: {}"},
        "data.sources (conf/task/mine.yaml, line 3): must be a mapping from names to options, got {}. "
        "Example: sources: {books: {path: books.csv}, movies: {path: movies.csv}}.",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_one_message(cli, mine, tmp_path, changes, message):
    text = HEAD + TWO
    for old, new in changes.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    (tmp_path / "conf/task/mine.yaml").write_text(text)
    ended = cli(*RUN.split())
    assert ended.code == 2
    assert message in ended.err.splitlines()
    assert not (tmp_path / "run").exists()


def test_clashing_types_name_both_files(cli, mine, tmp_path, write):
    rows = "".join(f'{{"user": {i % 9}, "stars": {i % 5}, "label": {i % 2}}}\n' for i in range(30))
    write(
        {
            "movies.jsonl": rows,
            "conf/task/mine.yaml": HEAD + TWO.replace("movies.csv, rename: {item: movie}", "movies.jsonl"),
        }
    )
    ended = cli(*RUN.split())
    assert ended.code == 2
    assert (
        "movies.jsonl, column 'user': has type Int64, but String in books.csv. "
        "Store the column in one way, or rename it: data.sources.movies.rename={user: OTHER}."
    ) in ended.err.splitlines()


def test_source_of_a_task_without_sources(cli):
    ended = cli("task=digits", "tasks.even.source=books", "data.source_as_input=true")
    assert ended.code == 2
    assert ended.err.splitlines() == [
        "tasks.even.source (command line): needs data.sources, got none. All rows come from one source: leave it out.",
        "data.source_as_input (command line): needs data.sources, got none. Write false.",
    ]


SHOP = """\
data:
  sources:
    a: {source: interactions, path: a.parquet, candidates: a_lists.parquet, rename: {item: a_item, label: a}}
    b: {source: interactions, path: b.parquet, candidates: b_lists.parquet, rename: {item: b_item, label: b}}
  inputs: [{name: user, type: category}, {name: a_item, type: category}, {name: b_item, type: category}]
  split: {column: split}
  batch_size: 64
shared_dim: 8
tasks:
  a: {kind: binary, ranking: {group: list, k: 3}}
  b: {kind: binary, ranking: {group: list, k: 3}}
optimizer: {lr: 0.01}
trainer: {max_epochs: 4}
"""


@pytest.fixture
def shop(tmp_path, write):
    """Users of two groups take even or odd items; lists of one they like and four they do not."""
    draw = random.Random(0)
    for shop, items in (("a", 20), ("b", 12)):
        took, lists = [], []
        for user in range(40):
            mine = draw.sample(range(user % 2, items, 2), 5)
            took += [(f"u{user}", item, "train") for item in mine[:3]]
            for split, item in (("valid", mine[3]), ("test", mine[4])):
                took.append((f"u{user}", item, split))
                lists.append((f"u{user}", split, [item, *draw.sample(range(1 - user % 2, items, 2), 4)]))
        pl.DataFrame(took, ["user", "item", "split"], orient="row").write_parquet(tmp_path / f"{shop}.parquet")
        lists = pl.DataFrame(lists, ["user", "split", "candidates"], orient="row")
        lists.write_parquet(tmp_path / f"{shop}_lists.parquet")
    write({"conf/task/mine.yaml": HEAD + SHOP})


def test_lists_are_ranked_and_negatives_drawn_anew_in_each_epoch(cli, shop, tmp_path):
    arguments = [*RUN.split(), "encoder=fm"]
    ended = cli(*arguments, "trainer.max_epochs=40")
    assert (ended.code, ended.err) == (0, "")
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["rows"] == {"train": 2 * 600, "val": 2 * 200, "test": 2 * 200}
    assert summary["primary"] == {"a": "ndcg@3", "b": "ndcg@3"}
    assert summary["metrics"]["test/a/hr@3"] >= 0.9  # 0.6 by chance
    assert summary["metrics"]["test/b/hr@3"] >= 0.9


@pytest.mark.parametrize("encoder", ["fm", pytest.param("graph", marks=pytest.mark.slow)])
def test_run_with_drawn_negatives_goes_on_bit_for_bit(cli, shop, tmp_path, encoder):
    for folder, epochs in (("whole", 4), ("parts", 2)):
        run = ["--config-dir", "conf", "task=mine", f"encoder={encoder}", f"hydra.run.dir={folder}"]
        assert cli(*run, f"trainer.max_epochs={epochs}").code == 0
    assert cli("resume=parts", "trainer.max_epochs=4").code == 0
    whole, parts = ((tmp_path / folder / "metrics.jsonl").read_bytes() for folder in ("whole", "parts"))
    assert whole == parts


def test_graph_holds_what_was_taken_in_training_and_nothing_else(cli, shop, tmp_path):
    assert cli(*RUN.split(), "encoder=graph").code == 0
    features = load_run(tmp_path / "run").features
    names = [column.name for column in features.categorical]
    assert [[names[i] for i in links.columns] for links in features.links] == [["user", "a_item"], ["user", "b_item"]]
    for links, item in zip(features.links, ("a", "b"), strict=True):
        users, items = (features.categorical[i].values for i in links.columns)
        found = {(users[u - 1], int(items[i - 1])) for u, i in links.codes.T}
        took = pl.read_parquet(tmp_path / f"{item}.parquet").filter(pl.col("split") == "train")
        assert found == set(took.select("user", "item").rows())
        assert links.codes.shape == (2, len(found))


def test_pairs_of_user_and_item_are_predicted_and_evaluated_as_they_stand(cli, shop, tmp_path, capsys):
    assert cli(*RUN.split(), "encoder=fm", "trainer.max_epochs=2").code == 0
    asked = pl.DataFrame({"user": ["u3", "u4", "stranger"], "item": [5, 999, 5], "label": [1, 0, 0]})
    asked.write_csv(tmp_path / "asked.csv")
    given = ["run", "--source", "a", "--data", "asked.csv", "--out"]
    assert run(predict.predict, [*given, "pairs.csv"]) == 0
    predicted = load_run(tmp_path / "run").predict(asked.rename({"item": "a_item"}), id="", source="a")
    assert pl.read_csv(tmp_path / "pairs.csv")["a_prob_1"].to_list() == pytest.approx(predicted["a_prob_1"].to_list())
    capsys.readouterr()
    assert run(evaluate.evaluate, [*given, "metrics.json"]) == 2  # a ranking needs lists
    assert "list" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")  # torch.export warns of itself
def test_graph_is_in_the_run_folder(cli, shop, tmp_path):
    arguments = [*RUN.split(), "encoder=graph", "optimizer.weight_decay=0.5"]
    assert cli(*arguments).code == 0
    trained = load_run(tmp_path / "run")
    again = trained.evaluate_split("test")[1].evaluation.flat("test")
    summary = json.loads((tmp_path / "run/summary.json").read_text())["metrics"]
    assert {key: summary[key] for key in again} == pytest.approx(again, rel=1e-6)
    asked = pl.DataFrame({"user": ["u3", "u4", "stranger"], "a_item": [5, 999, 5]})
    before = trained.predict(asked, id="", source="a")
    for file in tmp_path.glob("*.parquet"):
        file.unlink()
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    moved = load_run(tmp_path / "elsewhere")
    assert moved.predict(asked, id="", source="a").equals(before)
    # who is unknown takes nothing from the graph: two strangers are one
    others = moved.predict(asked.with_columns(user=pl.lit("another")), id="", source="a")
    assert others[2, "a_prob_1"] == before[2, "a_prob_1"] == others[0, "a_prob_1"]
    # and mtl-export, which compares its outputs with the model's, has it in the program
    assert run(export.export, ["elsewhere", "--out", "model.pt2"]) == 0
    assert "links" not in json.loads((tmp_path / "model.json").read_text())["preprocessing"]


def test_graph_of_columns_that_are_not_there(cli, shop):
    ended = cli(*RUN.split(), "encoder=graph", "encoder.user=usr", "encoder.items=[a_item,b_itm]")
    assert ended.code == 2
    assert ended.err.splitlines() == [
        "encoder.user: no input 'usr' that is a category. Did you mean 'user'?",
        "encoder.items[1]: no input 'b_itm' that is a category. Did you mean 'b_item'?",
    ]
    ended = cli(*RUN.split(), "encoder=graph", "data.inputs=[user]")
    assert ended.err.splitlines() == ["encoder.items: need another categorical input than the user, 'user'."]
    ended = cli(*RUN.split(), "encoder=graph", "encoder.items=[a_item,b_item,a_item]")
    assert ended.err.splitlines() == ["encoder.items: name a column twice, got ['a_item', 'b_item', 'a_item']."]


def test_graph_needs_all_training_rows_in_memory(cli, tmp_path, write):
    frame = pl.DataFrame({"user": ["a", "b"] * 20, "item": ["x", "y", "z", "z"] * 10, "took": [1, 0, 0, 1] * 10})
    frame.write_parquet(tmp_path / "took.parquet")
    task = "data: {source: table, path: took.parquet}\ntasks: {took: {kind: binary}}\n"
    write({"conf/task/mine.yaml": f"{HEAD}encoder: {{layers: 1}}\n{task}"})
    ended = cli(*RUN.split(), "encoder=graph", "data.in_memory=false")
    assert (ended.code, ended.err) == (
        2, "data.in_memory (command line): cannot be false: encoder=graph reads what all training rows tie together. "
        "Write data.in_memory=true, or use another encoder.\n",
    )  # fmt: skip
    assert cli(*RUN.split(), "encoder=graph", "trainer.max_epochs=1").code == 0
    links = load_run(tmp_path / "run").features.links
    assert [own.codes.tolist() for own in links] == [[[1, 2], [1, 3]]]  # a took x, b took z


def test_ranking_needs_a_binary_task_and_its_column(cli, shop, tmp_path):
    text = HEAD + SHOP.replace("a: {kind: binary", "a: {kind: regression")
    (tmp_path / "conf/task/mine.yaml").write_text(text)
    ended = cli(*RUN.split())
    assert (ended.code, ended.err) == (
        2, "tasks.a.ranking (conf/task/mine.yaml, line 11): needs kind binary, got regression.\n"
    )  # fmt: skip
    (tmp_path / "conf/task/mine.yaml").write_text(
        HEAD + SHOP.replace("b: {kind: binary, ranking: {group: list", "b: {kind: binary, ranking: {group: lst")
    )
    ended = cli(*RUN.split())
    assert ended.code == 2
    assert ended.err.startswith("tasks.b.ranking.group: no column 'lst' in a.parquet")
    assert ended.err.endswith("Did you mean 'list'?\n")
