"""Days and moments written as text: what counts as one."""

from __future__ import annotations

import polars as pl

# ISO 8601, also with a blank for the T, without seconds, and with single digits, as spreadsheets write them.
_TIME = r"[ T](?<hour>\d{1,2}:\d\d)(?<second>:\d\d(?:\.\d+)?)?(?<offset>Z|[+-]\d\d(?::?\d\d)?)?"
_ISO = rf"^\s*(?<day>\d{{4}}-\d{{1,2}}-\d{{1,2}})(?:{_TIME})?\s*$"


def parse_dates(text: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Reads days (``2024-12-31``) and moments (``2024-12-31 23:59``, ``2024-12-31T23:59:59.5``).

    A moment with ``Z`` or an offset such as ``+02:00`` is the moment in UTC; one without is taken as it stands.

    Args:
        text: N texts; null where missing.

    Returns:
        N moments, null where missing or bad; and whether each text is bad: spelt otherwise, or in no calendar.

    Example:
        >>> read, bad = parse_dates(pl.Series(["2024-12-31T01:30+02:00", "2024-02-30", None, "31.12.2024"]))
        >>> str(read[0]), bad.to_list()
        ('2024-12-30 23:30:00', [False, True, False, True])
    """
    parts = text.str.extract_groups(_ISO).struct.unnest()
    time = [pl.col("hour").fill_null("0:00"), pl.col("second").fill_null(":00"), pl.col("offset").fill_null("Z")]
    spelt = parts.select(pl.concat_str(pl.col("day"), pl.lit("T"), *time)).to_series()
    read = spelt.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", time_unit="us", strict=False).dt.replace_time_zone(None)
    return read, text.is_not_null() & read.is_null()


def spelt_as_date(text: str) -> bool:
    """Whether a text is spelt as ``parse_dates`` reads them, whatever the calendar says.

    Example:
        >>> spelt_as_date("2024-02-30"), spelt_as_date("30.2.2024")
        (True, False)
    """
    return bool(pl.Series([text]).str.contains(_ISO)[0])


def with_and_without_offset(text: pl.Series) -> bool:
    """Whether some of the moments have an offset and others none, so that what those others mean cannot be told.

    Example:
        >>> with_and_without_offset(pl.Series(["2024-12-31 23:59Z", "2024-12-31 23:59", None]))
        True
        >>> with_and_without_offset(pl.Series(["2024-12-31 23:59", "2024-12-31"]))
        False
    """
    time = text.filter(text.str.contains(":"))
    offset = time.str.contains(r":.*[Z+-]")
    return bool(offset.any() and not offset.all())
