"""One value in several spellings."""

import pytest

from mtl_cli.spelling import Spellings


@pytest.mark.parametrize(
    ("known", "text", "value"),
    [
        (["1", "2"], "1.0", "1"),
        (["1.0", "2.0"], "1", "1.0"),
        (["1", "2"], " +1.00 ", "1"),
        (["0.5"], ".50", "0.5"),
        (["01", "2"], "1", None),  # a code is no number
        (["1"], "01", None),
        (["1", "1.0"], "1.00", None),  # which of the two?
        (["1234567890123456789"], "1234567890123456789.0", "1234567890123456789"),
        (["a", "b"], "A", None),  # words may differ by case
        (["True", "False"], "true", "True"),
        (["True", "False"], "1", "True"),
        (["0", "1"], "no", "0"),
        (["yes", "no", "unknown"], "1", None),  # no truth values, there is a third
        (["1", "2", "3"], "True", None),
        ([], "1", None),
        (["Z\u00fcrich", "K\u00f6ln"], "Zu\u0308rich", "Z\u00fcrich"),  # letters and accents apart, as of macOS
        (["Zu\u0308rich"], "Z\u00fcrich", "Zu\u0308rich"),
        (["Zu\u0308rich", "Z\u00fcrich"], "Zurich", None),
    ],
)
def test_known_value_that_a_text_stands_for(known, text, value):
    assert Spellings(known).find([text]) == ({} if value is None else {text: value})
