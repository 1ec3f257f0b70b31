"""How many rows of each source an epoch draws: exact numbers, known before it begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mtl_cli.schema import MixingMethod, MixingOptions


@dataclass(frozen=True)
class Mixing:
    """The shares of S sources; see ``schema.MixingOptions``.

    Args:
        method: What the shares follow.
        temperature: Of ``temperature``, at least 1.
        anneal_epochs: Of ``annealed``, which needs it: epochs from proportional to nearly equal shares.
        epoch: Rows of an epoch.

    Example:
        >>> Mixing("temperature", temperature=2, epoch=40).counts(np.array([100, 900]), 0).tolist()
        [10, 30]
        >>> Mixing("uniform", epoch="longest").counts(np.array([100, 900]), 0).tolist()
        [900, 900]
    """

    method: MixingMethod = MixingOptions.mixing
    temperature: float = MixingOptions.temperature
    anneal_epochs: int | None = MixingOptions.anneal_epochs
    epoch: Literal["total", "longest"] | int = MixingOptions.epoch

    def shares(self, sizes: np.ndarray, epoch: int) -> np.ndarray:
        """(S,) shares of the sources in epoch ``epoch`` (from 0), with sum 1."""
        if self.method == "annealed":
            if self.anneal_epochs is None:
                raise ValueError("annealed needs anneal_epochs")
            # PALs count from epoch 1 to E: exponent 1 - 0.8 (e - 1) / (E - 1)
            exponent = 1.0 - 0.8 * min(epoch / max(self.anneal_epochs - 1, 1), 1.0)
        else:
            exponent = {"proportional": 1.0, "temperature": 1.0 / self.temperature}.get(self.method, 0.0)
        weights = np.asarray(sizes, np.float64) ** exponent
        shares: np.ndarray = weights / weights.sum()
        return shares

    def counts(self, sizes: np.ndarray, epoch: int) -> np.ndarray:
        """(S,) rows that epoch ``epoch`` draws from each source, int64; a source may be gone through several times."""
        shares = self.shares(sizes, epoch)
        if self.epoch == "longest":
            needed: np.ndarray = np.rint(shares * (sizes / shares).max()).astype(np.int64)
            return needed
        rows = int(np.sum(sizes)) if self.epoch == "total" else self.epoch
        exact = shares * rows
        counts = np.floor(exact + 1e-9).astype(np.int64)  # 100 * (n / n) may come out as 99.999...
        most_left = np.argsort(-(exact - counts), kind="stable")[: rows - int(counts.sum())]
        counts[most_left] += 1
        return counts

    def drawn_before(self, sizes: np.ndarray, epoch: int) -> np.ndarray:
        """(S,) rows drawn from each source in all epochs before ``epoch``, int64."""
        if self.method != "annealed":
            return epoch * self.counts(sizes, 0)
        drawn = np.zeros(len(sizes), np.int64)
        for before in range(epoch):
            drawn += self.counts(sizes, before)
        return drawn
