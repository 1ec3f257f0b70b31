"""From files to numbers: SOURCE -> ``Table`` -> ``split_rows`` -> ``Features`` -> ``Inputs``.

Nothing is dropped, filled or renamed in silence: what cannot be read as it stands is an error that names file,
column, row and value, and what was decided is in ``notes`` and ``Features.report()``.

Example:
    >>> from mtl_cli.registry import SOURCES
    >>> table = SOURCES.build("sklearn", dataset="iris").read()
    >>> splits = split_rows(table, SplitOptions(stratify="species"))
    >>> features = Features.fit(table, FeatureOptions(), splits.train, {"species": "target of task 'species'"})
    >>> features.input_dim, features.transform(table)[0].numeric.shape
    (4, torch.Size([150, 4]))
"""

from mtl_cli.data.features import FeatureOptions, Features
from mtl_cli.data.sources.base import Source
from mtl_cli.data.splits import SplitOptions, Splits, split_rows
from mtl_cli.data.table import AnyTable, Table

__all__ = ["AnyTable", "FeatureOptions", "Features", "Source", "SplitOptions", "Splits", "Table", "split_rows"]
