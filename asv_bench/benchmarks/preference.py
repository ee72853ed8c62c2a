"""Preference heads and joint post-training on synthetic embeddings: time, memory, certificates."""

import itertools

import numpy as np

from cvxnn import COALAPreferenceHead, COALAPreferenceHeadCV, LinearPreferenceHead, SoftmaxPolicy
from cvxnn.joint import pareto_front, post_train


def pairs(n, d, seed=0):
    """Embeddings of n pairs; a ReLU network of four neurons says which reply is better."""
    gates = np.random.default_rng(1000).standard_normal((d, 4)) / np.sqrt(d)
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, n, d)).astype(np.float32)
    quality = [np.maximum(x @ gates, 0) @ [1, 1, -1, -1] for x in (a, b)]
    better = (quality[0] > quality[1])[:, None]
    return np.where(better, a, b), np.where(better, b, a)


HEADS = {"coala": COALAPreferenceHead, "linear": LinearPreferenceHead}
SIZES = {"1000x384": (1000, 384), "4000x576": (4000, 576)}


class Head:
    """Both phases of a head, with nothing set."""

    params = (list(SIZES), list(HEADS))
    param_names = ("pairs", "head")
    timeout = 600
    number = 1
    repeat = 3

    def setup(self, size, head):
        self.chosen, self.rejected = pairs(*SIZES[size])
        self.head = HEADS[head](random_state=0).fit_pairs(self.chosen, self.rejected)

    def time_fit_pairs(self, size, head):
        self.head.fit_pairs(self.chosen, self.rejected)

    def peakmem_fit_pairs(self, size, head):
        self.head.fit_pairs(self.chosen, self.rejected)


class FittedHead:
    """Rewards, held-out accuracy and certificate, of one fit for all of them."""

    params = Head.params
    param_names = Head.param_names
    timeout = 600

    def setup_cache(self):
        return {
            (size, head): HEADS[head](random_state=0).fit_pairs(*pairs(*SIZES[size]))
            for size, head in itertools.product(*self.params)
        }

    def setup(self, fitted, size, head):
        self.chosen, _ = pairs(*SIZES[size])
        self.held_out = pairs(1000, SIZES[size][1], seed=1)
        self.head = fitted[size, head]

    def time_reward(self, fitted, size, head):
        self.head.reward(self.chosen)

    def track_held_out_accuracy(self, fitted, size, head):
        return float((self.head.reward_margin(*self.held_out) > 0).mean())

    def track_gap(self, fitted, size, head):
        return float(getattr(self.head, "gap_", np.nan))

    def track_phase2_iterations(self, fitted, size, head):
        history = getattr(self.head, "phase2_history_", {"iteration": [0]})
        return int(history["iteration"][-1])


class HeadCrossValidation:
    """A grid of strengths and ridges; ``time_single_fit`` is what it is compared with."""

    timeout = 600
    number = 1
    repeat = 1

    def setup(self):
        self.chosen, self.rejected = pairs(1000, 64)
        self.single = COALAPreferenceHead(random_state=0).fit_pairs(self.chosen, self.rejected)

    def time_fit_pairs(self):
        COALAPreferenceHeadCV(COALAPreferenceHead(formulation="relu", random_state=0)).fit_pairs(
            self.chosen, self.rejected
        )

    def time_single_fit(self):
        self.single.fit_pairs(self.chosen, self.rejected)


class Joint:
    """A softmax policy for demonstrations and preferences at once."""

    params = (["sequential", "mix", "alright", "maxright"],)
    param_names = ("strategy",)
    timeout = 300

    def setup(self, strategy):
        rng = np.random.default_rng(0)
        n_prompts, n_candidates, d = 400, 4, 64
        X = rng.standard_normal((n_prompts * n_candidates, d))
        prompt = np.repeat(np.arange(n_prompts), n_candidates)
        wanted = np.arange(len(X)) % n_candidates == 0
        chosen, rejected = pairs(400, d)
        policy = SoftmaxPolicy()
        self.problem = policy.problem(X, wanted, prompt, chosen=chosen, rejected=rejected)

    def time_post_train(self, strategy):
        post_train(self.problem, strategy, lam=0.5, n_steps=1000)

    def time_pareto_front(self, strategy):
        if strategy == "mix":  # the front does not depend on the strategy
            pareto_front(self.problem)

    def track_ideal_distance(self, strategy):
        run = post_train(self.problem, strategy, lam=0.5, n_steps=1000)
        return float(self.problem.ideal_distance(run.dpo[-1], run.sft[-1]))
