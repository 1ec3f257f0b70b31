"""Forward passes that bring their own backward pass.

For small steps autograd costs more than the arithmetic. Modules on the hot path therefore have ``with_backward``:
what they put out, without a graph, and a function that takes the gradient by it and adds to ``parameter.grad``. Any
module has it by autograd; a module that writes its derivative out overrides it, with the same result (hooks on the
modules inside it are not called then).

Methods that compare the gradients of tasks need them apart. A module that gives features common to all tasks may have
``with_jacobian``: the gradients of all tasks go through it together, one product per layer, instead of one backward
pass for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Backward = Callable[[Tensor], None]  # gradient by what was put out (owned by the function: it may be overwritten)

#: Gradients (k, B, D) of k tasks by the features (owned: they may be overwritten), and where to write those by some
#: parameters, (k, *shape of the parameter) each: all parameters of the module, or those of its last layers.
Jacobian = Callable[[Tensor, Mapping[nn.Parameter, Tensor]], None]


class no_graph:
    """``torch.no_grad()`` in fewer calls, for passes that are written out: a small step opens it several times.

    Example:
        >>> x = torch.ones(1, requires_grad=True)
        >>> with no_graph():
        ...     (2 * x).requires_grad
        False
    """

    def __enter__(self) -> None:
        self._before = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)

    def __exit__(self, *_: object) -> None:
        torch._C._set_grad_enabled(self._before)


def with_backward(module: nn.Module, inputs: Any) -> tuple[Tensor, Backward]:
    """Output of ``module`` and its backward pass: its own if it has one, else by autograd."""
    own = getattr(module, "with_backward", None)
    return by_autograd(module, inputs) if own is None else own(inputs)


def by_autograd(module: nn.Module, inputs: Any) -> tuple[Tensor, Backward]:
    """Output of ``module`` on inputs that take no gradient, and its backward pass by autograd."""
    output: Tensor = module(inputs)
    return output.detach(), lambda gradient: into_graph(output, gradient)


def into_graph(output: Tensor, gradient: Tensor) -> None:
    """Autograd's backward pass; none where all that made ``output`` is frozen."""
    if output.requires_grad:
        torch.autograd.backward(output, gradient)
