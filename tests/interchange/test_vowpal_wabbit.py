"""What Vowpal Wabbit reads in our files is what we mean."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bandits.evaluation import ips
from bandits.interchange import dsjson
from bandits.types import LoggedFeedback
from tests.logs import simulate


def check_vw() -> None:
    if importlib.util.find_spec("vowpalwabbit") is None:
        pytest.skip("vowpalwabbit is not installed: pip install vowpalwabbit==9.11.9")


class TestVowpalWabbit:
    """The real one reads what we write, and means the same by it."""

    def run(self, log: LoggedFeedback, folder: Path, options: str):
        """Let VW learn from the file: its mean loss, its number of examples, and what it would have played, (n, K)."""
        check_vw()
        from vowpalwabbit import Workspace

        path, played = folder / "log.dsjson", folder / "played"
        dsjson.write(log, path)
        vw = Workspace(f"--dsjson --cb_explore_adf {options} -d {path} -p {played} --quiet")
        loss, examples = vw.get_sum_loss(), vw.get_weighted_examples()
        vw.finish()
        probs = np.zeros((len(log), log.k))
        lines = [line for line in played.read_text().splitlines() if line]
        for row, line in zip(probs, lines, strict=True):
            for pair in line.split(","):
                action, probability = pair.split(":")
                row[int(action)] = float(probability)
        return loss / examples, examples, probs / probs.sum(axis=1, keepdims=True)  # VW prints six digits

    def test_its_mean_loss_of_the_uniform_policy_is_ours(self, tmp_path):
        """Cost, probability and number of rounds: IPS of what plays all arms alike, on both sides."""
        log = replace(simulate(500, 2), arms=("a", "b", "c"))
        loss, examples, _ = self.run(log, tmp_path, "--epsilon 1")

        assert examples == 500
        uniform = np.full((500, 3), 1 / 3)
        assert -loss == pytest.approx(ips.scores(log, uniform).mean(), rel=1e-5)

    @pytest.mark.parametrize("options", ["--cb_type ips --epsilon .1", "--cb_type mtr --epsilon .2"])
    def test_its_progressive_loss_is_the_ips_of_what_it_would_have_played(self, tmp_path, options):
        """Actions, too: its own predictions, judged by our estimator, give its own mean loss; shifted ones do not."""
        log = simulate(500, 4)
        loss, _, played = self.run(log, tmp_path, f"{options} -q ca")

        assert -loss == pytest.approx(ips.scores(log, played).mean(), rel=1e-4)
        assert -loss != pytest.approx(ips.scores(log, played[:, [1, 2, 0]]).mean(), rel=1e-2)

    def test_it_sees_contexts_and_arms(self, tmp_path):
        """It learns which arm is best where, and earns more than any arm that looks at nothing."""

        def truth(x: np.ndarray) -> np.ndarray:
            return np.stack([0.5 + 0.4 * np.tanh(x[:, 1]), 0.5 + 0.4 * np.tanh(x[:, 0]), np.full(len(x), 0.5)], axis=1)

        log = simulate(4000, 5, expected=truth)
        _, _, played = self.run(log, tmp_path, "--cb_type mtr -q ca --epsilon .05")
        late = truth(log.contexts.astype(float))[2000:]

        assert (played[2000:] * late).sum(axis=1).mean() > late.mean(axis=0).max() + 0.05
