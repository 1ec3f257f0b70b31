"""The example of two losses of two numbers: methods get where the papers and reference/methods.md say."""

import pytest
import torch

from mtl_cli.commands.entry import run
from mtl_cli.commands.toy import STARTS, losses, toy, walk


def test_losses_are_those_of_the_papers_code():
    # values of Toy.forward of github.com/AvivNavon/nash-mtl, experiments/toy/problem.py
    x = torch.tensor(STARTS, dtype=torch.float64)
    x1, x2 = x.unbind(1)
    f1 = torch.clamp((0.5 * (-x1 - 7) - torch.tanh(-x2)).abs(), 0.000005).log() + 6
    f2 = torch.clamp((0.5 * (-x1 + 3) + torch.tanh(-x2) + 2).abs(), 0.000005).log() + 6
    c1, c2 = torch.clamp(torch.tanh(x2 * 0.5), 0), torch.clamp(torch.tanh(-x2 * 0.5), 0)
    f1_sq = ((-x1 + 7).pow(2) + 0.1 * (-x2 - 8).pow(2)) / 10 - 20
    f2_sq = ((-x1 - 7).pow(2) + 0.1 * (-x2 - 8).pow(2)) / 10 - 20
    expected = torch.stack([f1 * c1 + f1_sq * c2, f2 * c1 + f2_sq * c2], 1)
    torch.testing.assert_close(losses(x), expected)


@pytest.mark.slow
def test_the_sum_gets_stuck_where_methods_on_gradients_do_not():
    # reference/methods.md 3, '2-D toy', by TorchJD: equal 3 of 5, the others stuck at x2 above 0; MGDA 5 of 5;
    # with UPGrad and PCGrad the rest are below the wall and on their way.
    ends = {
        name: [(path.reached, path.points[-1][1]) for path in found]
        for name, found in walk(["equal", "mgda", "upgrad", "pcgrad"], 10_000, 0.005).items()
    }
    assert [reached for reached, _ in ends["equal"]] == [False, True, False, True, True]
    assert ends["equal"][0][1] > 0
    assert ends["equal"][2][1] > 0
    assert all(reached for reached, _ in ends["mgda"])
    for name in ("upgrad", "pcgrad"):
        assert sum(reached for reached, _ in ends[name]) >= 3
        assert all(x2 < -5 for _, x2 in ends[name])


def test_page_and_count(tmp_path, capsys):
    assert run(toy, ["equal", "pcgrad", "rlw", "--steps", "20", "--out", str(tmp_path / "toy.html")]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "equal: 0 of 5 starts reach the front"
    text = (tmp_path / "toy.html").read_text()
    assert text.count("<svg") == 3
    assert text.count("<polyline") == 3 * 6
    assert "20 steps" in text


def test_a_page_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # a shell leaves the ~ of --out=~/x as it is
    assert run(toy, ["equal", "--steps", "1", "--out=~/toy.html"]) == 0
    assert (tmp_path / "toy.html").is_file()


def test_each_method_is_told_of_before_the_next_one_walks(tmp_path, capsys, monkeypatch):
    told = []

    def walk_and_listen(names, *rest):
        told.append(capsys.readouterr().out)
        return walk(names, *rest)

    monkeypatch.setattr("mtl_cli.commands.toy.walk", walk_and_listen)
    assert run(toy, ["equal", "mgda", "--steps", "5", "--out", str(tmp_path / "toy.html")]) == 0
    assert told == ["", "equal: 0 of 5 starts reach the front\n"]


@pytest.mark.parametrize("name", ["famo", "gradnorm", "uncertainty", "modo"])
def test_method_that_needs_a_model_is_refused(name, tmp_path, capsys):
    assert run(toy, [name, "--steps", "0", "--out", str(tmp_path / "toy.html")]) == 2
    error = capsys.readouterr().err
    assert f"METHOD: '{name}' needs more" in error
    assert "--steps: must be at least 1, got 0" in error
    assert not (tmp_path / "toy.html").exists()
