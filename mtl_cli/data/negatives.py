"""Negatives of implicit feedback, drawn anew for every epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

TRIES = 100  # drawings for a row before its user counts as one who took (nearly) everything


@dataclass(frozen=True, eq=False)
class Negatives:
    """Training rows that get another item each epoch, uniformly among those that its user did not take there.

    Where there is none, the row keeps the item of the first drawing, which its user took in no split.

    A candidate with label 0 counts as taken: it is there as a row already. What the user took in validation and test
    rows does not: training that never drew it would tell what is asked for there.

    Args:
        rows: (M,) int64, places in the training rows.
        column: Position of the item in ``Inputs.categorical``.
        users: (M,) int64 codes of their users.
        first: (M,) int64 codes of the items of the first drawing.
        items: (I,) int64 codes to draw from, also those of items that only the first drawing met.
        taken: Sorted ``user * span + item`` of the training rows that were read, whatever their label.
        span: More than any item's code.
    """

    rows: np.ndarray
    column: int
    users: np.ndarray
    first: np.ndarray
    items: np.ndarray
    taken: np.ndarray
    span: int

    @classmethod
    def of(cls, rows: np.ndarray, column: int, users: np.ndarray, codes: np.ndarray) -> Negatives:
        """The negatives among the training rows of one source.

        Args:
            rows: (M,) the drawn rows among N training rows.
            column: Position of the item's column.
            users: (N,) codes of the users; of rows of other sources below 0.
            codes: (N,) codes of the items.
        """
        own = users >= 0
        read = own.copy()
        read[rows] = False
        span = int(codes.max()) + 1
        taken = np.unique(users[read] * span + codes[read])
        return cls(rows, column, users[rows], codes[rows], np.unique(codes[own]), taken, span)

    def draw(self, seed: int, epoch: int) -> np.ndarray:
        """(M,) item codes of epoch ``epoch``, a function of seed and epoch."""
        generator = np.random.default_rng([seed, epoch, self.column])
        codes = self.items[generator.integers(len(self.items), size=len(self.rows))]
        again = np.arange(len(self.rows))
        for _ in range(TRIES):
            again = again[np.isin(self.users[again] * self.span + codes[again], self.taken)]
            if not len(again):
                return codes
            codes[again] = self.items[generator.integers(len(self.items), size=len(again))]
        codes[again] = self.first[again]
        return codes

    def write(self, categorical: torch.Tensor, seed: int, epoch: int) -> None:
        """Puts the items of an epoch into the codes (N, number of columns) of the training rows."""
        device = categorical.device
        codes = torch.from_numpy(self.draw(seed, epoch)).to(device)
        categorical[torch.from_numpy(self.rows).to(device), self.column] = codes
