"""All that an architecture says of how its tasks share is on the page, in the Markdown, and a file of plots."""

import json
import re
from html import unescape
from xml.etree import ElementTree

import pytest
import torch
from worlds import encoder_world, write_run

from mtl_cli.commands.entry import run
from mtl_cli.commands.report import report
from mtl_cli.model.encoders import EncoderMaker
from mtl_cli.model.findings import as_json
from mtl_cli.registry import ENCODERS, SHARINGS
from mtl_cli.run import RunFolder

TASKS = ["c", "a <b> & | c", "b"]  # in the order of the training
ORDER = ["a <b> & | c", "b", "c"]  # in the user's order
CLOSE = {"rel": 1e-3, "abs": 1e-4}  # numbers of the page have four digits
SILENT = {"adapter", "esmm", "hard", "hyper", "mtan", "separate"}  # no few numbers of theirs say how tasks share


def _findings(name):
    """What an architecture says after an evaluation."""
    torch.manual_seed(0)
    spec, rows = encoder_world(ENCODERS.load("mlp").reads)
    maker = EncoderMaker(lambda spec, width: ENCODERS.build("mlp", spec, width, hidden=[6]), spec, 4)
    sharing = SHARINGS.build(name, maker, TASKS)
    with torch.no_grad():  # away from the zeros that some start from
        for parameter in sharing.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    sharing.eval()(rows)
    return as_json(sharing.report(TASKS))


def _numbers(finding):
    """Each number by the names of its row and its column."""
    rows, columns = ([n if isinstance(n, str) else " ".join(n) for n in finding[axis]] for axis in ("rows", "columns"))
    assert len({*rows}) == len(rows)
    assert len({*columns}) == len(columns)
    cells = {
        (row, column): value
        for row, values in zip(rows, finding["values"], strict=True)
        for column, value in zip(columns, values, strict=True)
    }
    return {place: value for place, value in cells.items() if value is not None}


def _drawn(figure):
    """The numbers that the cells of a heat map give."""
    tips = (unescape(tip).rpartition(": ") for tip in re.findall("<title>(.*?)</title>", figure))
    return {place: float(number) for place, _, number in tips}


def _written(markdown):
    """The numbers of a table in Markdown."""
    lines = [line[2:-2] for line in markdown.splitlines() if line.startswith("| ")]
    (_, *columns), _, *rows = ([cell.replace("\\|", "|") for cell in re.split(r"(?<!\\) \| ", line)] for line in lines)
    return {
        (row.strip(), column): float(cell)
        for row, *cells in rows
        for column, cell in zip(columns, cells, strict=True)
        if cell.strip()
    }


@pytest.fixture
def told(request, tmp_path, capsys):
    """What an architecture says, and what of it there is to see: the page, the Markdown, the files of plots."""
    said = _findings(request.param)
    write_run(tmp_path / "run", tasks=ORDER)
    RunFolder(tmp_path / "run").write_json("sharing.json", said)
    shown = {}
    for form in ("html", "md", "svg"):
        assert run(report, [str(tmp_path / "run"), "--format", form]) == 0
        shown[form] = capsys.readouterr().out
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    return json.loads(json.dumps(said))["findings"], page, shown["md"], tmp_path / "run/plots"


@pytest.mark.parametrize("told", [n for n in SHARINGS.names() if n not in SILENT], indirect=True)
def test_all_that_an_architecture_says_is_shown(told):
    findings, page, markdown, plots = told
    assert findings, "says nothing of how its tasks share; if there is nothing to say, name it in SILENT"
    for key in ("name", "title"):
        assert len({finding[key] for finding in findings}) == len(findings)
    figures = [figure for figure in page.split("<figure>") if 'class="told"' in figure]
    tables = markdown.split("\n### ")[1:]
    for finding, figure, table in zip(findings, figures, tables, strict=True):
        numbers = _numbers(finding)
        for what in (finding["title"], finding["meaning"], *finding["notes"]):
            assert f">{what}<" in unescape(figure)
            assert what in table
        assert _drawn(figure) == pytest.approx({", ".join(place): value for place, value in numbers.items()}, **CLOSE)
        written = _written(table)
        assert written == pytest.approx(numbers, **CLOSE)
        rows = dict.fromkeys(row for row, _ in written)
        assert [row for row in rows if row in ORDER] == [task for task in ORDER if task in rows]
        file = re.sub(r"\W+", "-", finding["name"])
        drawing = "".join(ElementTree.parse(plots / f"{file}.svg").getroot().itertext())
        assert finding["title"] in drawing


@pytest.mark.parametrize("name", sorted(SILENT))
def test_those_that_say_nothing_are_known(name):
    assert _findings(name) == {"findings": []}
