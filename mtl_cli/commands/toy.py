"""``mtl-toy``: how methods move on two losses of two numbers, as a page with their paths.

A command of its own and no experiment of ``mtl-train``: there are no rows, no labels and no heads here, the losses are
below zero, and five points walk at once. It calls the same methods as the training does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from mtl_cli.balancing import GradientBalancing, LossBalancing
from mtl_cli.commands.entry import Parser, check_out, leave, run
from mtl_cli.errors import ConfigError, Problem, did_you_mean
from mtl_cli.paths import expanded
from mtl_cli.registry import BALANCINGS
from mtl_cli.report import Plot, picture_report, svg
from mtl_cli.run import write_text
from mtl_cli.sweep.table import Column

_HELP = """The two-dimensional example of CAGrad (Liu et al. 2021) and Nash-MTL (Navon et al. 2022), five starts.

Two losses of two numbers have a wall between two of the starts and the front, where neither loss can fall without the
other rising: x2 about -8.4, x1 between -7 and 7. On the wall their gradients conflict and differ in length, and the sum
gets stuck. It shows what a method does, not how it trains a model.
"""
METHODS = ("equal", "pcgrad", "mgda", "cagrad", "nash_mtl", "upgrad")
STARTS = ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0))  # of the code of Nash-MTL
LOWEST = 5e-6  # below it the logarithm is cut off, as there
FRONT = ((-7.0, -8.36), (7.0, -8.36))  # between the bottoms of the two bowls
_SHOWN = 150  # points of a path in the picture


@dataclass(frozen=True)
class Path2D:
    """Where one method went from one start.

    Args:
        points: (x1, x2) after each step, the start first.
    """

    points: Sequence[tuple[float, float]]

    @property
    def reached(self) -> bool:
        """Whether it ends on the front."""
        x1, x2 = self.points[-1]
        return abs(x1) <= 7.1 and -8.7 <= x2 <= -8.1


def walk(names: Sequence[str], steps: int, lr: float) -> dict[str, list[Path2D]]:
    """The paths of each method from all starts, with Adam: a step for every point at once.

    Args:
        names: Methods on gradients, or that weight losses by numbers alone.
        steps: Steps of Adam.
        lr: Its learning rate.

    Example:
        >>> paths = walk(["mgda"], 10, 0.005)["mgda"]
        >>> len(paths), len(paths[0].points)
        (5, 11)
    """
    methods = [BALANCINGS.build(name, 2) for name in names for _ in STARTS]
    x = torch.tensor(STARTS * len(names), requires_grad=True)
    optimizer, tasks = torch.optim.Adam([x], lr=lr), torch.arange(2)
    points = [x.tolist()]
    for _ in tqdm(range(steps), unit="step", disable=None, mininterval=0.5):
        found = losses(x)  # (n, 2); each row depends on its own point alone, so that sums give single gradients
        rows = [torch.autograd.grad(found[:, task].sum(), x, retain_graph=task == 0)[0] for task in (0, 1)]
        updates = []
        for method, jacobian, loss in zip(methods, torch.stack(rows, 1), found.detach(), strict=True):
            if isinstance(method, GradientBalancing):
                updates.append(method.aggregate(jacobian, loss, tasks)[0])
            else:
                updates.append(method.weights(loss, tasks) @ jacobian)
        x.grad = torch.stack(updates)
        optimizer.step()
        points.append(x.tolist())
    paths = [Path2D([(x1, x2) for x1, x2 in path]) for path in zip(*points, strict=True)]
    return {name: paths[i * len(STARTS) : (i + 1) * len(STARTS)] for i, name in enumerate(names)}


def _plain(name: str) -> bool:
    """Whether a method needs no more than the losses and gradients of one point."""
    kind = BALANCINGS.load(name)
    if kind.extra_passes or kind.samples > 1:
        return False
    if issubclass(kind, LossBalancing):
        return kind.linear and kind.observes == "nothing" and not BALANCINGS.build(name, 2).has_parameters
    return issubclass(kind, GradientBalancing)


def losses(x: Tensor) -> Tensor:
    """The two losses (n, 2) at n points (n, 2)."""
    x1, x2 = x.unbind(1)
    pull = x2.tanh()
    above, below = (0.5 * x2).tanh().clamp(min=0), (-0.5 * x2).tanh().clamp(min=0)
    walls = (0.5 * (-x1 - 7) + pull, 0.5 * (-x1 + 3) - pull + 2)
    found = []
    for wall, middle in zip(walls, (7, -7), strict=True):
        bowl = ((middle - x1).square() + 0.1 * (x2 + 8).square()) / 10 - 20
        found.append((wall.abs().clamp(min=LOWEST).log() + 6) * above + bowl * below)
    return torch.stack(found, 1)


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point of ``mtl-toy``. Ends the process with the exit code."""
    leave(run(toy, argv))


def toy(argv: Sequence[str]) -> None:
    """Walks, says of each method how many starts reach the front, and writes the page.

    Raises:
        ConfigError: An argument cannot be used.
        TrainingError: The page cannot be written.
    """
    parser = Parser("mtl-toy", _HELP, "mtl-toy mgda upgrad --steps 20000")
    parser.add_argument("methods", nargs="*", default=METHODS, metavar="METHOD", help=f"default: {' '.join(METHODS)}")
    parser.add_argument("--steps", type=int, default=10_000, metavar="N", help="of Adam; default: 10000")
    parser.add_argument("--lr", type=float, default=5e-3, metavar="RATE", help="its learning rate; default: 0.005")
    parser.add_argument("--out", default="toy.html", metavar="FILE", help="the page; default: toy.html")
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --out if it exists")
    arguments = parser.parse_args(argv)
    problems = check_out(arguments.out, (".html",), arguments.overwrite, None)
    _check(problems, arguments.methods, arguments.steps, arguments.lr)
    paths: dict[str, list[Path2D]] = {}
    for name in dict.fromkeys(arguments.methods):  # one after the other: a line for each as soon as it is known
        paths |= walk([name], arguments.steps, arguments.lr)
        reached = sum(path.reached for path in paths[name])
        print(f"{name}: {reached} of {len(paths[name])} starts reach the front", flush=True)
    write_text(expanded(arguments.out), _page(paths, arguments.steps, arguments.lr))
    print(arguments.out)


def _check(problems: list[Problem], methods: Sequence[str], steps: int, lr: float) -> None:
    for name in dict.fromkeys(methods):
        if name not in BALANCINGS.names():
            problems.append(Problem("METHOD", f"no method '{name}'", did_you_mean(name, BALANCINGS.names())))
        elif not _plain(name):
            what = f"'{name}' needs more than the losses and gradients of two numbers"
            problems.append(Problem("METHOD", what, f"Try {', '.join(METHODS)}."))
    if steps < 1:
        problems.append(Problem("--steps", f"must be at least 1, got {steps}"))
    if not lr > 0:
        problems.append(Problem("--lr", f"must be greater than 0, got {lr}"))
    if problems:
        raise ConfigError(problems)


def _page(paths: Mapping[str, Sequence[Path2D]], steps: int, lr: float) -> str:
    starts = [f"({x1:g}, {x2:g})" for x1, x2 in STARTS]
    table = [Column("method", [*paths])]
    for i, start in enumerate(starts):
        ends = [found[i] for found in paths.values()]
        shown = [_place(*p.points[-1]) + (" *" if p.reached else "") for p in ends]
        table.append(Column(f"from {start}", [*shown]))
    table.append(Column("reached", [sum(path.reached for path in found) for found in paths.values()]))
    plots = []
    for name, found in paths.items():
        series = [
            svg.Series(start, [*path.points[:: max(1, steps // _SHOWN)], path.points[-1]])
            for start, path in zip(starts, found, strict=True)
        ]
        plots.append(Plot(f"paths-{name}", name, svg.lines([*series, svg.Series("front", FRONT)], "x1", "x2")))
    told = f"Adam, lr {lr:g}, {steps:,} steps. Where each path ends; * is on the front."
    return picture_report("Two losses of two numbers", told, table, plots).page()


def _place(x1: float, x2: float) -> str:
    return f"({round(x1, 2) + 0.0:.2f}, {round(x2, 2) + 0.0:.2f})"  # never -0.00


if __name__ == "__main__":
    main()
