"""Facts about learning doubly robustly: what is unbiased, what merges, what is chosen, and what is reported."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from bandits.errors import NotEnoughDataError
from bandits.learners import corrected, direct_method, offset_tree
from bandits.learners.corrected import Choice, Corrected, Correction
from bandits.learners.direct_method import LINKS, RewardModel
from bandits.learners.doubly_robust import FOLDS, MAX_WEIGHT, Events, dr_scores, playing
from bandits.learners.grid import on_grid

K = 3


def enumerated(seed: int) -> tuple[Events, np.ndarray, np.ndarray]:
    """Every (context, arm) once, its chance of being logged, (n,), and the expected rewards by event, (n, K)."""
    rng = np.random.default_rng(seed)
    contexts = 6
    truth = on_grid(rng.uniform(0.1, 0.9, (contexts, K)), 1.0)
    p = 0.2 + 0.4 * rng.dirichlet(np.ones(K), contexts)
    x, a = (index.ravel() for index in np.meshgrid(range(contexts), range(K), indexing="ij"))
    phi = np.hstack([np.eye(contexts)[x], np.ones((len(x), 1))])
    return Events(phi, a, truth[x, a], p[x, a], x % FOLDS, K), p[x, a], truth[x]


@pytest.mark.parametrize("seed", range(3))
def test_pseudo_outcomes_are_unbiased_if_either_nuisance_is_right(seed):
    """Summed over all that could be logged, to 1e-12. Cubed rewards and squared propensities are wrong on purpose."""
    right, chance, truth = enumerated(seed)
    wrong = replace(right, propensities=chance**2)

    def bias(events, q_hat):
        """Largest error of E[pseudo-outcome] over contexts and arms."""
        worst = 0.0
        for arm in range(K):
            scores = chance * dr_scores(events, q_hat, playing(np.full(len(chance), arm), K))
            worst = max(worst, float(np.abs(scores.reshape(-1, K).sum(axis=1) - truth[::K, arm]).max()))
        return worst

    assert (1.0 / wrong.propensities).max() <= MAX_WEIGHT  # nothing is clipped
    assert bias(right, truth) < 1e-12
    assert bias(right, truth**3) < 1e-12
    assert bias(wrong, truth) < 1e-12
    assert bias(wrong, truth**3) > 0.05


def test_the_correction_finds_what_a_wrong_model_lacks():
    """Solved with next to no shrinkage it is truth - q_hat, context by context; with wrong propensities it is not."""
    events, chance, truth = enumerated(0)
    copies = np.round(4000 * chance).astype(int)
    log = events.where(np.repeat(np.arange(len(chance)), copies))
    q_hat = np.repeat(truth**3, copies, axis=0)

    def error(events_):
        shift = Correction.of(events_, q_hat).solve(1e-3)
        return float(np.abs(log.phi @ shift.T - np.repeat(truth - truth**3, copies, axis=0)).max())

    assert error(log) < 0.005
    assert error(replace(log, propensities=np.full(len(log.phi), 1.0 / K))) > 0.05


def drawn(n: int, k: int, seed: int, competing: bool) -> tuple[Events, np.ndarray]:
    """A uniform log of 0/1 rewards of a world where at most one arm, or each arm by itself, is right; and q, (n, K)."""
    rng = np.random.default_rng([seed, 5])
    phi = np.hstack([on_grid(rng.normal(size=(n, 3)), 5.0), np.ones((n, 1))])
    world = np.random.default_rng([k, 6]).normal(0.0, 2.0, (k + 1, 4))
    model = RewardModel("competing", world) if competing else RewardModel("independent", world[:k])
    q = model.predict(phi)
    actions = rng.integers(0, k, n)
    rewards = (rng.random(n) < q[np.arange(n), actions]).astype(float)
    return Events(phi, actions, rewards, np.full(n, 1.0 / k), np.arange(n) % FOLDS, k), q


def error(q_hat: np.ndarray, q: np.ndarray) -> float:
    return float(np.abs(q_hat - q).mean())


@pytest.mark.parametrize("competing", [True, False])
def test_each_link_is_best_in_its_own_world(competing):
    """Fitted to logged arms alone, the right link is near the expected reward of every arm, the other is not."""
    events, q = drawn(3000, 4, 0, competing)
    fitted = {
        link: error(direct_method.fit(events.phi, events.actions, events.targets, 4, link, 0.1).predict(events.phi), q)
        for link in LINKS
    }
    right, other = ("competing", "independent") if competing else ("independent", "competing")

    assert fitted[right] < 0.04
    assert fitted[other] > 2.0 * fitted[right]
    assert corrected.learn(events).chosen.link == right


def test_a_logistic_arm_is_calibrated():
    """The constant is all but free: mean prediction of an arm is its mean reward, with any penalty."""
    events, _ = drawn(2000, 3, 1, competing=False)

    for penalty in (0.1, 1e6):
        model = direct_method.fit(events.phi, events.actions, events.targets, 3, "independent", penalty)
        for arm in range(3):
            mine = events.actions == arm
            predicted = model.predict(events.phi[mine])[:, arm]
            if penalty == 0.1:
                assert predicted.mean() == pytest.approx(events.targets[mine].mean(), abs=1e-3)
            else:
                assert np.ptp(predicted) < 0.01


def test_an_arm_without_events_gets_the_mean_reward_of_all():
    """Rather than one half."""
    events, _ = drawn(500, 3, 2, competing=False)

    q_hat = direct_method.fit(events.phi, events.actions, events.targets, 4, "independent", 1.0).predict(events.phi)

    assert q_hat[:, 3] == pytest.approx(np.full(500, events.targets.mean()))


@pytest.mark.parametrize("link", LINKS)
def test_predictions_are_probabilities_even_far_out(link):
    """No overflow, nothing outside [0, 1]; competing arms and "none" share one."""
    weights = np.array([[900.0, 0.0], [-900.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    q_hat = RewardModel(link, weights).predict(np.array([[1.0, 1.0], [-1.0, 1.0], [0.0, 1.0]]))

    assert np.isfinite(q_hat).all()
    assert q_hat.min() >= 0.0
    assert q_hat.max() <= 1.0
    assert q_hat.shape == ((3, 3) if link == "competing" else (3, 4))
    assert (q_hat.sum(axis=1) <= 1.0 + 1e-12).all() == (link == "competing")
    assert (q_hat[2].sum() < 0.6) == (link == "competing")  # "none" has its share


def test_the_competing_fit_is_the_minimum_of_its_loss():
    """Against the loss written as a loop and minimised without its gradient."""
    events, _ = drawn(60, 2, 8, competing=True)
    phi = events.phi[:, [0, 3]]

    def loss(flat):
        w = flat.reshape(3, 2)
        total = 0.5 * sum(1.0 * w[b, 0] ** 2 + 1e-3 * w[b, 1] ** 2 for b in range(3))
        for row, a, r in zip(phi, events.actions, events.targets, strict=True):
            e = np.exp(w @ row)
            q = e[a] / e.sum()
            total -= r * np.log(q) + (1 - r) * np.log(1 - q)
        return total

    fitted = direct_method.fit(phi, events.actions, events.targets, 2, "competing", 1.0).weights.ravel()

    assert loss(fitted) < minimize(loss, np.zeros(6), method="BFGS").fun + 1e-3


def test_a_correction_comes_from_models_and_residuals_without_its_own_fold():
    """Changing a reward changes no cross-fitted row of its own fold, and those of the others (the negative control)."""
    events, _ = drawn(400, 3, 3, competing=True)
    targets = events.targets.copy()
    targets[7] = 1.0 - targets[7]
    changed = replace(events, targets=targets)
    own = events.folds == events.folds[7]

    for rows in (
        lambda e: corrected.cross_fitted(e, "competing", 1.0),
        lambda e: corrected.cross_fitted_shifts(e, "competing", 1.0)[300.0],
    ):
        same = (rows(events) == rows(changed)).all(axis=1)
        assert same[own].all()
        assert not same[~own].any()


def test_a_wrong_model_is_corrected():
    """Drawn where it is good, an arm flatters a straight model; inverse weights take most of that back."""
    rng = np.random.default_rng(3)
    n = 8000
    x = rng.normal(size=n)
    truth = np.stack([np.full(n, 0.5), np.where(np.abs(x) > 1, 0.5 + 0.3 * np.sign(x), 0.48)], axis=1)
    p1 = np.where(x > 0, 0.9, 0.05)
    actions = (rng.random(n) < p1).astype(int)
    phi = np.stack([on_grid(x, 5.0), np.ones(n)], axis=1)
    rewards = on_grid(truth[np.arange(n), actions], 1.0)
    events = Events(phi, actions, rewards, np.where(actions == 1, p1, 1 - p1), np.arange(n) % FOLDS, 2)

    model = direct_method.fit(phi, actions, rewards, 2, "independent", 0.3)
    q_hat = corrected.cross_fitted(events, "independent", 0.3)
    shifted = Corrected(model, Correction.of(events, q_hat).solve(300.0))
    best = phi @ np.linalg.lstsq(phi, truth, rcond=None)[0]  # the best straight model if every arm were seen everywhere

    assert error(shifted.predict(phi), best) < 0.6 * error(model.predict(phi), best)
    assert (Correction.of(events, q_hat).solve(np.inf) == 0.0).all()


@pytest.mark.parametrize("k", [1, 2, 4])
def test_learning_is_deterministic_and_permutes_with_the_arms(k):
    """For any K: the same log, the same bits; renamed arms, renamed decisions."""
    events, q = drawn(300, k, 4, competing=True)
    new_name = np.random.default_rng(k).permutation(k)
    renamed = replace(events, actions=new_name[events.actions])

    one, again, turned = (corrected.learn(e) for e in (events, events, renamed))

    assert one.q.predict(events.phi).tobytes() == again.q.predict(events.phi).tobytes()
    assert one.tried == again.tried
    played, other = (learned.q.predict(events.phi).argmax(axis=1) for learned in (one, turned))
    assert (new_name[played] == other).mean() > 0.99
    assert q[np.arange(300), played].mean() > q.mean(axis=0).max() - 1e-9  # no worse than the best fixed arm


def test_what_was_chosen_is_the_best_of_what_was_tried_and_what_it_promises_comes_true():
    """Values are cross-validated: within four standard errors of what the policy earns."""
    events, q = drawn(1500, 4, 5, competing=True)

    learned = corrected.learn(events)

    assert learned.chosen.value == max(choice.value for choice in learned.tried)
    earned = q[np.arange(1500), learned.q.predict(events.phi).argmax(axis=1)].mean()
    assert abs(learned.chosen.value - earned) < 4.0 * learned.chosen.standard_error
    assert earned > 0.95 * q.max(axis=1).mean()
    assert {choice.link for choice in learned.tried} == set(LINKS)


def test_tries_are_judged_as_they_would_be_played():
    """With a budget, say; where all play the same arm all are worth the same."""
    events, _ = drawn(300, 3, 9, competing=False)

    tried = corrected.learn(events, lambda q_hat: playing(np.full(300, 2), 3)).tried

    assert len({choice.value for choice in tried}) == 1
    assert len({choice.value for choice in corrected.learn(events).tried}) > 1


def test_a_row_s_own_fold_has_no_say_in_what_it_plays():
    """One try owes its lead to fold 0 alone: there the other is played, everywhere else the one."""
    events, _ = drawn(100, 3, 9, competing=False)
    scores = np.where(events.folds == 0, 10.0, 0.0)
    choices = [Choice("independent", 1.0, np.inf, float(s.mean()), 0.0) for s in (scores, np.ones(100))]
    lucky = corrected._Tried(choices[0], np.zeros((100, 3)), scores)
    steady = corrected._Tried(choices[1], np.ones((100, 3)), np.ones(100))

    played = corrected._crossed(events, [lucky, steady])

    assert lucky.choice.value > steady.choice.value
    assert (played[:, 0] == (events.folds == 0)).all()


def test_no_event_teaches_nothing():
    """Rather than a policy made of nothing."""
    events, _ = drawn(90, 3, 0, competing=True)
    for learn in (corrected.learn, offset_tree.learn):
        with pytest.raises(NotEnoughDataError, match="the log has none"):
            learn(events.where(np.arange(0)))


def test_on_noise_penalties_rise():
    """Where nothing is to be learned, larger penalties are tried until they no longer predict better."""
    events, _ = drawn(400, 3, 6, competing=False)
    noise = replace(events, targets=np.random.default_rng(0).integers(0, 2, 400).astype(float))

    assert max(choice.penalty for choice in corrected.learn(noise).tried) > max(corrected.PENALTIES)


def test_clipping_says_what_it_may_bias():
    """Arm 0 is drawn once in 200, its weight clipped at 50: who plays it may err by 3/4 of q_hat's error."""
    n = 2000
    actions = (np.arange(n) % 200 != 0).astype(int)
    events = Events(
        np.ones((n, 1)), actions, (1.0 - actions), np.where(actions == 0, 0.005, 0.995), (np.arange(n) // 7) % FOLDS, 2
    )

    evidence = corrected.learn(events).evidence

    assert evidence.clipped == pytest.approx(1 / 200)
    assert evidence.largest == MAX_WEIGHT
    assert evidence.bias == pytest.approx(0.75)
    assert evidence.ess == pytest.approx(10.0)
