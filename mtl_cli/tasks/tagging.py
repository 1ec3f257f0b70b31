"""One of several classes for each token of a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mtl_cli.registry import KINDS
from mtl_cli.tasks.multiclass import Multiclass
from mtl_cli.types import ClassNames, ProperFraction


@KINDS.register("tagging")
class Tagging(Multiclass):
    """A class for each token of a row, with the cross-entropy of a softmax; the label column holds lists.

    Loss and metrics are means over the labelled tokens of the batch or split, however they are spread over its rows. A
    missing list, or a missing element of one, is a token without a label.

    Args:
        classes: The tags, in the order to show them; taken from the training rows if null.
        label_smoothing: In [0, 1): this much of the aim is spread evenly over all tags (Szegedy et al. 2016).

    Shape:
        C = number of classes, unnormalised log-probabilities of each token.

    Raises:
        ConfigError: ``classes`` repeats a tag.

    Example:
        >>> import torch
        >>> kind = Tagging(classes=["NOUN", "VERB"])
        >>> kind.loss(torch.zeros(1, 2, 3), torch.tensor([[0.0, 1.0, 1.0]]))
        tensor([[0.6931, 0.6931, 0.6931]])
    """

    formula: ClassVar[str] = "softmax(outputs): the chance of each class, for each token"
    metrics: ClassVar[Mapping[str, bool | None]] = {"accuracy": True, "f1_macro": True, "log_loss": False}
    per_token: ClassVar[bool] = True
    _other_number: ClassVar[str] = (
        "List the task's `classes`; or make a class of the tokens without a label, as `blank: label` does with the "
        "blanks of treebanks."
    )

    def __init__(self, *, classes: ClassNames | None = None, label_smoothing: ProperFraction = 0.0) -> None:
        super().__init__(classes=classes, label_smoothing=label_smoothing)
