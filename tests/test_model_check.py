"""`trilemma-bench check-model`: a good plugin passes, and each fault gets its sentence."""

from __future__ import annotations

import pytest
from commands import call

GOOD = """
import torch
from trilemma_bench import Trainable

class Mine(Trainable):
    def __init__(self, data):
        super().__init__(data)
        self.network = torch.nn.Linear(2, 2)
        self.shift = torch.nn.Parameter(torch.randn(2))
        self.calls = self.trained = 0

    def optimizers(self):
        return {"network": torch.optim.Adam(self.network.parameters(), lr=1e-3)}

    def training_step(self, batch, step, optimizers):
        self.trained += 1
        loss = (self.network(batch + torch.randn_like(batch)) - batch).square().mean()
        optimizers["network"].zero_grad()
        loss.backward()
        optimizers["network"].step()
        return {"loss": loss.detach()}

    def evaluations(self):
        return 1

    def sample(self, count, rng):
        return self.network(torch.randn(count, 2, generator=rng))
"""

ABSENT = """
from trilemma_bench import Dataset, DataSpec
from trilemma_bench.errors import TrilemmaError

class Absent(Dataset):
    name, spec, default_protocol = "absent", DataSpec((2,)), "points"

    def load(self, split):
        raise TrilemmaError("put them there")
"""


def check(tmp_path, code):
    plugin = tmp_path / "mine.py"
    plugin.write_text(code)
    return call("check-model", "--model", f"{plugin}:Mine", "--dataset", "gaussians25")


def test_a_good_model_passes_every_check(tmp_path):
    done = check(tmp_path, GOOD)
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.output.splitlines()] == ["ok"] * 5


def test_evaluations_that_are_not_counted_have_to_be_stated(tmp_path):
    stated = GOOD.replace("return self.network(torch", "return self.network.forward(torch")
    folders = [tmp_path / name for name in ("stated", "unknown")]
    for folder in folders:
        folder.mkdir()
    assert check(folders[0], stated).exit_code == 0
    assert "state them in evaluations()" in check(folders[1], stated.replace("return 1\n", "return None\n")).output


def test_missing_data_are_no_fault_of_the_model(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(GOOD + ABSENT)
    done = call("check-model", "--model", f"{plugin}:Mine", "--dataset", f"{plugin}:Absent")
    assert done.exit_code == 1
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["ok"] * 2
    assert done.stderr == "error: put them there\n"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (", generator=rng", "", "sample draws from torch's global generator"),
        ("return self.network(torch.randn(", "self.calls += 1\n        return self.calls + self.network(torch.randn(",
         "two draws of one seed differ"),
        ("torch.randn(count, 2,", "torch.randn(count + 1, 2,", "returned 7×2 where 6 samples were asked for"),
        ("return 1\n", "return 2\n", "evaluations() says 2 a sample, and 1 were counted"),
        ("[\"network\"].step()", "[\"network\"]", "6 steps left self.network as it was"),
        ("loss = (", "self.calls += 1\n        loss = self.calls * (", "interrupted and resumed gives another network"),
        ("return self.network(torch", "return self.shift + self.network(torch", "needs more than self.network"),
        ("return self.network(torch", "return self.trained + self.network(torch", "needs more than self.network"),
    ],
)  # fmt: skip
def test_a_fault_is_said_in_a_sentence(old, new, fault, tmp_path):
    assert old in GOOD
    done = check(tmp_path, GOOD.replace(old, new))
    assert done.exit_code == 1
    assert fault in done.output
    assert "this is a bug" not in done.output


def test_draws_that_do_not_repeat_are_not_taken_for_weights_that_are_not_saved(tmp_path):
    done = check(tmp_path, GOOD.replace(", generator=rng", ""))
    assert "needs more than self.network" not in done.output
    assert "FAILED  saved weights draw the same samples: as above" in done.stdout


def test_a_fault_that_fails_several_checks_is_said_once(tmp_path):
    done = check(tmp_path, GOOD.replace("torch.randn(count, 2,", "torch.randn(count + 1, 2,"))
    assert done.output.count("returned 7×2") == 1
    assert done.stdout.count("FAILED") > done.stdout.count(": as above") > 0
