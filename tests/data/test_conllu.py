"""CoNLL-U: the words of a sentence and their labels, as the format has them."""

import gzip
from pathlib import Path

import polars as pl
import pytest

from mtl_cli.errors import ConfigError, DataError
from mtl_cli.registry import SOURCES

# The multiword token and the empty node are those of the format's own description (universaldependencies.org/format).
VAMONOS = """\
# sent_id = es-1
# text = vámonos al mar
1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tvamos\tir\tVERB\t_\tMood=Imp|Number=Plur\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\t_\tCase=Acc|Number=Plur\t1\tobj\t_\t_
3-4\tal\t_\t_\t_\t_\t_\t_\t_\t_
3\ta\ta\tADP\t_\t_\t5\tcase\t_\t_
4\tel\tel\tDET\t_\tGender=Masc\t5\tdet\t_\t_
5\tmar\tmar\tNOUN\t_\tGender=Masc|Number=Sing\t1\tobl\t_\tGloss=sea|SpaceAfter=No
"""
COFFEE = """\
1\tSue\tSue\tPROPN\t_\t_\t2\tnsubj\t_\t_
2\tlikes\tlike\tVERB\t_\t_\t0\troot\t_\t_
3\tcoffee\tcoffee\tNOUN\t_\t_\t2\tobj\t_\t_
3.1\tlikes\tlike\tVERB\t_\t_\t_\t_\t2:conj\t_
4\t_\t_\tSYM\t_\t_\t2\tdep\t_\t_
"""
COLUMNS = ["form", "lemma", "upos", "feats.Number", "deprel", "misc.Gloss"]


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def _read(text, name="x.conllu", **options):
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return SOURCES.build("conllu", path=name, **options).read()


def _error(text):
    with pytest.raises(DataError) as caught:
        _read(text)
    return str(caught.value)


@pytest.mark.parametrize("end", ["", "\n"])
def test_words_are_read_and_what_stands_between_them_is_told(end):
    table = _read(VAMONOS + "\n\n" + COFFEE + end, columns=COLUMNS)
    first, second = table.frame.rows(named=True)
    assert first == {
        "sent_id": "es-1", "form": ["vamos", "nos", "a", "el", "mar"], "lemma": ["ir", "nosotros", "a", "el", "mar"],
        "upos": ["VERB", "PRON", "ADP", "DET", "NOUN"], "feats.Number": ["Plur", "Plur", None, None, "Sing"],
        "deprel": ["root", "obj", "case", "det", "obl"], "misc.Gloss": [None] * 4 + ["sea"],
    }  # fmt: skip
    assert (second["sent_id"], second["form"], second["lemma"]) == (None, ["Sue", "likes", "coffee", "_"], ["Sue", "like", "coffee", "_"])  # fmt: skip  # noqa: E501
    assert table.notes == (
        "x.conllu: 2 multiword tokens, whose words are read.", "x.conllu: 1 empty node, left out.",
    )  # fmt: skip
    assert [table.where("upos", row) for row in (0, 1)] == [
        "x.conllu, column 'upos', row 1 (line 1)", "x.conllu, column 'upos', row 2 (line 12)",
    ]  # fmt: skip


def test_what_a_word_does_not_have_can_be_a_label():
    table = _read(VAMONOS, columns=["form", "feats.Gender", "feats"], blank="label")
    assert table.frame["feats.Gender"].to_list() == [["_", "_", "_", "Masc", "Masc"]]
    assert table.frame["feats"][0][2] == "_"


def test_zipped_files_byte_order_marks_and_pieces_are_the_same():
    expected = _read(VAMONOS + "\n" + COFFEE).frame
    for text, name in (
        ("\ufeff" + (VAMONOS + "\n" + COFFEE).replace("\n", "\r\n"), "y.conllu"),
        (gzip.compress((VAMONOS + "\n" + COFFEE).encode()), "z.conllu.gz"),
    ):
        assert _read(text, name).frame.equals(expected)
        pieces = list(SOURCES.build("conllu", path=name).chunks(1))
        assert pl.concat([piece.frame for piece in pieces]).equals(expected)
        assert pieces[1].where("upos", 0) == f"{name}, column 'upos', row 2 (line 11)"


def test_lines_that_are_no_words_are_named():
    assert _error("1\tSue\tSue\n1 x\n") == (
        "x.conllu, line 1: must have 10 fields, got 3: '1\\tSue\\tSue'. "
        "The fields of a word are separated by tabs, sentences by an empty line.\n"
        "x.conllu, line 2: must have 10 fields, got 1: '1 x'. "
        "The fields of a word are separated by tabs, sentences by an empty line."
    )
    word = "{}\tSue\tSue\tPROPN\t_\t_\t2\tnsubj\t_\t_\n"
    blank = "An empty line must stand before each sentence."
    assert _error("".join(map(word.format, (1, 2, 4, 5)))) == (
        f"x.conllu, line 3: must be word 3 of its sentence, got 4. {blank}"
    )
    assert (
        _error("".join(map(word.format, (1, 1, 2))))
        == f"x.conllu, line 2: must be word 2 of its sentence, got 1. {blank}"
    )
    assert _error(word.format("x")) == "x.conllu, line 1: must begin with the number of a word, got 'x'."
    assert _error(word.format("2-3")) == "x.conllu, line 1: a multiword token must begin at word 1, got 2-3."
    assert (
        _error(word.format(1).replace("PROPN", ""))
        == "x.conllu, line 1: has an empty field (upos). What is not known is _."
    )
    assert _error(word.format(1).encode() + b"2\t\xff") == (
        "x.conllu, line 2: is not utf-8 text, got byte 0xff. CoNLL-U is always UTF-8."
    )
    assert _error("# nothing\n\n") == "x.conllu: holds no sentences."


def test_fields_that_there_are_not_are_refused_before_reading():
    with pytest.raises(ConfigError) as caught:
        SOURCES.build("conllu", path="x", columns=["upso", "upos.X", "feats."])
    assert str(caught.value) == (
        "data.columns: there is no field 'upso'. Did you mean 'upos'?\n"
        "data.columns: there is no field 'upos.X'. Did you mean 'upos'?\n"
        "data.columns: there is no field 'feats.'. Did you mean 'feats'?\n"
        "data.columns: names no words, got ['upso', 'upos.X', 'feats.']. Add form, the input."
    )
