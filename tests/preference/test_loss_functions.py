"""Objectives of fine-tuning: naive loops, values of TRL, gradients, extreme inputs."""

import math
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from cvxnn.numerics.jax_import import precision
from cvxnn.preference import OBJECTIVES, loss_functions

seeds = st.integers(0, 10**6)


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with precision(np.float64):
        yield


LOG_PROBABILITIES = [name for name, objective in OBJECTIVES.items() if objective.score]
LIBRARIES = ["numpy", "jax", "torch"]
ROWS = 6


def replies(seed: int = 0) -> dict[str, np.ndarray]:
    """Draw log-probabilities as of a language model, and labels and rewards."""
    rng = np.random.default_rng(seed)
    chosen_length, rejected_length = rng.integers(1, 30, (2, ROWS))
    arrays = {
        "chosen": -rng.exponential(2.0, ROWS) * chosen_length,
        "rejected": -rng.exponential(2.0, ROWS) * rejected_length,
        "chosen_length": chosen_length,
        "rejected_length": rejected_length,
        "label": rng.choice([-1.0, 1.0], ROWS),
    }
    arrays["reference_chosen"] = arrays["chosen"] + rng.standard_normal(ROWS)
    arrays["reference_rejected"] = arrays["rejected"] + rng.standard_normal(ROWS)
    for name in ("chosen_reward", "rejected_reward", "logit", "chosen_logit", "rejected_logit"):
        arrays[name] = rng.standard_normal(ROWS)
    return arrays


def converted(arrays: dict[str, np.ndarray], library: str) -> dict[str, Any]:
    if library == "numpy":
        return arrays
    convert = jnp.asarray if library == "jax" else pytest.importorskip("torch").tensor
    return {name: convert(array) for name, array in arrays.items()}


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


NAIVE: dict[str, Callable[[dict[str, float]], float]] = {
    "sft": lambda r: -r["chosen"] / r["chosen_length"],
    "dpo": lambda r: (
        -log_sigmoid(
            0.1 * (r["chosen"] - r["reference_chosen"])
            - 0.1 * (r["rejected"] - r["reference_rejected"])
        )
    ),
    "r_dpo": lambda r: (
        -log_sigmoid(
            0.1 * (r["chosen"] - r["reference_chosen"])
            - 0.1 * (r["rejected"] - r["reference_rejected"])
            + 0.05 * r["chosen_length"]
            - 0.05 * r["rejected_length"]
        )
    ),
    "orpo": lambda r: orpo_by_hand(
        math.exp(r["chosen"] / r["chosen_length"]), math.exp(r["rejected"] / r["rejected_length"])
    ),
    "simpo": lambda r: (
        -log_sigmoid(
            2.0 * r["chosen"] / r["chosen_length"]
            - 2.0 * r["rejected"] / r["rejected_length"]
            - 1.0
        )
    ),
    "rrhf": lambda r: (
        max(0.0, r["rejected"] / r["rejected_length"] - r["chosen"] / r["chosen_length"])
        - r["chosen"]
    ),
    "bradley_terry": lambda r: -log_sigmoid(r["chosen_reward"] - r["rejected_reward"]),
    "coala_pointwise": lambda r: -log_sigmoid(r["label"] * r["logit"]),
    "coala_pairwise": lambda r: -log_sigmoid(r["chosen_logit"] - r["rejected_logit"]),
}


def orpo_by_hand(won: float, lost: float) -> float:
    ratio = math.log(won / (1 - won)) - math.log(lost / (1 - lost))
    return -math.log(won) - 0.1 * log_sigmoid(ratio)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_by_naive_loops(name: str, library: str) -> None:
    arrays = replies()
    rows = [{key: float(array[i]) for key, array in arrays.items()} for i in range(ROWS)]
    losses = OBJECTIVES[name].losses(converted(arrays, library))
    assert type(losses).__module__.partition(".")[0].startswith(library[:5])
    np.testing.assert_allclose(np.asarray(losses), [NAIVE[name](row) for row in rows], rtol=1e-12)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_slopes_of_losses(name: str) -> None:
    torch = pytest.importorskip("torch")
    objective, arrays = OBJECTIVES[name], replies(1)
    moving = [key for key in objective.inputs if arrays[key].dtype.kind == "f"]

    def total(library: str, **changed: Any) -> Any:
        return objective.losses({**converted(arrays, library), **changed}).sum()

    for key in moving:
        expected = np.empty(ROWS)
        for i in range(ROWS):
            step = 1e-5 * np.eye(ROWS)[i]
            up, down = (total("numpy", **{key: arrays[key] + s}) for s in (step, -step))
            expected[i] = (up - down) / 2e-5
        by_jax = jax.grad(lambda x, key=key: total("jax", **{key: x}))(jnp.asarray(arrays[key]))
        leaf = torch.tensor(arrays[key], requires_grad=True)
        total("torch", **{key: leaf}).backward()
        np.testing.assert_allclose(by_jax, expected, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(leaf.grad, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", LOG_PROBABILITIES)
def test_losses_and_slopes_of_extreme_replies_are_finite(name: str) -> None:
    torch = pytest.importorskip("torch")
    sums = [0.0, -1e-30, -1e-8, -1.0, -1e4, -1e8]
    grid = np.array(np.meshgrid(sums, sums, [1, 4096])).reshape(3, -1)
    arrays = {
        "chosen": torch.tensor(grid[0], dtype=torch.float32, requires_grad=True),
        "rejected": torch.tensor(grid[1], dtype=torch.float32, requires_grad=True),
        "chosen_length": torch.tensor(grid[2]).int(),
        "rejected_length": torch.tensor(grid[2][::-1].copy()).int(),
        "reference_chosen": torch.full(grid[0].shape, -50.0),
        "reference_rejected": torch.full(grid[0].shape, -50.0),
    }
    losses = OBJECTIVES[name].losses(arrays)
    losses.sum().backward()
    assert losses.dtype == torch.float32
    assert losses.isfinite().all()
    assert arrays["chosen"].grad.isfinite().all()
    if arrays["rejected"].grad is not None:
        assert arrays["rejected"].grad.isfinite().all()


@pytest.mark.parametrize("name", ["dpo", "r_dpo", "simpo"])
def test_rewards_are_what_a_pair_is_compared_by(name: str) -> None:
    objective, arrays = OBJECTIVES[name], replies(2)
    won, lost = objective.rewards(arrays, **objective.parameters)
    expected = loss_functions.bradley_terry(
        won, lost, margin=objective.parameters.get("gamma", 0.0)
    )
    np.testing.assert_allclose(objective.losses(arrays), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["sft", "orpo", "rrhf"])
def test_rewards_rank_by_likelihood_of_a_token(name: str) -> None:
    objective, arrays = OBJECTIVES[name], replies(2)
    won, lost = objective.rewards(arrays, **objective.parameters)
    expected = (
        arrays["chosen"] / arrays["chosen_length"] > arrays["rejected"] / arrays["rejected_length"]
    )
    np.testing.assert_array_equal(won > lost, expected)


def test_the_price_of_length_makes_the_best_policy_shorter() -> None:
    """As derived in `r_dpo`, the loss of three replies is smallest at the tilted policy."""
    rewards, lengths, beta, alpha = np.array([1.0, 0.4, -0.3]), np.array([9, 2, 5]), 0.7, 0.2
    reference = np.log([0.2, 0.5, 0.3])
    best = reference + (rewards - alpha * lengths) / beta
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    won, lost = np.array(pairs).T
    preferred = 1 / (1 + np.exp(rewards[lost] - rewards[won]))  # Bradley-Terry

    def expected_loss(policy: np.ndarray) -> float:
        sides = (policy[won], policy[lost], reference[won], reference[lost])
        losses = loss_functions.r_dpo(*sides, lengths[won], lengths[lost], beta=beta, alpha=alpha)
        return float(preferred @ losses)

    for direction in np.random.default_rng(0).standard_normal((20, 3)):
        assert expected_loss(best) <= expected_loss(best + 0.1 * direction)
    assert np.argmax(rewards) == 0  # the best reply is the longest one
    assert np.argmax(best - reference) == 1


def test_supervised_loss_of_the_whole_reply() -> None:
    arrays = replies()
    np.testing.assert_array_equal(
        OBJECTIVES["sft"].losses(arrays, per_token=False), -arrays["chosen"]
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_defaults_are_those_of_the_functions(name: str) -> None:
    entry = OBJECTIVES[name]
    assert all(name in entry.parameters for name in entry.grid)
    arrays = replies()
    np.testing.assert_array_equal(entry.losses(arrays), entry.losses(arrays, **entry.parameters))
    assert entry.needs_reference == (name in ("dpo", "r_dpo"))


def test_objectives_of_rewards_imply_none() -> None:
    with pytest.raises(TypeError, match="implies no rewards"):
        OBJECTIVES["bradley_terry"].rewards(replies())


@pytest.mark.slow  # the import of trl
@pytest.mark.parametrize("name", ["orpo", "simpo"])
def test_values_of_trl(name: str) -> None:
    pytest.importorskip("trl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.experimental.cpo import CPOTrainer
        from trl.experimental.orpo import ORPOTrainer
    arrays = converted(replies(3), "torch")
    won, lost = (arrays[s] / arrays[f"{s}_length"] for s in ("chosen", "rejected"))
    settings: dict[str, Any] = {
        "accelerator": SimpleNamespace(device="cpu"),
        "loss_type": "simpo",
        "label_smoothing": 0.0,
        "alpha": 0.0,
    }
    if name == "orpo":
        trainer = SimpleNamespace(beta=0.5, **settings)
        ratio, *rewards, _, _ = ORPOTrainer.odds_ratio_loss(trainer, won, lost)
        expected, parameters = -won - ratio, {"weight": 0.5}
    else:
        trainer = SimpleNamespace(beta=2.5, simpo_gamma=1.2, **settings)
        expected, *rewards = CPOTrainer.cpo_loss(trainer, won, lost)
        parameters = {"beta": 2.5, "gamma": 1.2}
    np.testing.assert_allclose(OBJECTIVES[name].losses(arrays, **parameters), expected, rtol=1e-6)
    for ours, theirs in zip(OBJECTIVES[name].rewards(arrays, **parameters), rewards, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
