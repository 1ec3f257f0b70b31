"""Cells that are no plain numbers: what they look like, and what reads them."""

import pytest

from mtl_cli.notation import notation

COMMA, GROUPS = "a number with a decimal comma", "a number with signs between groups of digits"


@pytest.mark.parametrize(
    ("cell", "others", "like", "way_out"),
    [
        ("6,6", [], COMMA, 'data.decimal=","'),
        ("6,6", ["1.1.2024", "?"], COMMA, 'data.decimal=","'),
        ("1,234", ["1,5"], COMMA, 'data.decimal=","'),
        ("1,234", [], f"{COMMA} or between groups of digits", 'data.decimal="," or data.thousands=","'),
        ("1.299,99", [], COMMA, 'data.decimal="," and data.thousands="."'),
        ("1,299.99", [], GROUPS, 'data.thousands=","'),
        ("1 000", [], GROUPS, 'data.thousands=" "'),
        ("1'000", [], GROUPS, 'data.thousands="\'"'),
        ("1.299.000", [], GROUPS, 'data.decimal="," and data.thousands="."'),
        ("1,2,3", [], GROUPS, "data.decimal or data.thousands"),
        ("1.1.2024", ["6,6"], "a date", "a number of days"),
        ("12/31/2024", [], "a date", "a number of days"),
        ("2024-01-31 10:00", [], "a date", "a number of days"),
        ("59.5%", ["6,6"], "a percentage", "a number without the %"),
        ("-5,5 %", [], "a percentage", "a number without the %"),
    ],
)
def test_cell_is_told_as_what_it_looks_like(cell, others, like, way_out):
    looks = notation(cell, others)
    assert (looks.like, looks.settings or looks.instead) == (like, way_out)


@pytest.mark.parametrize("cell", ["?", "n.a.", "", "1-2-3-4", "1.1-2024", "12-34-56", "%", "5 % off"])
def test_other_cells_look_like_nothing(cell):
    assert notation(cell, ["6,6"]) is None
