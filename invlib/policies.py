"""Policies: which positions are visible after the next step.

A policy is a function of a `Prediction` (what the model says) and a `StepContext` (where in the process we are) and
returns the positions that are visible afterwards: masked ones among them are uncovered, visible ones that are missing
are re-masked. Parameters have defaults; set others with `functools.partial(entropy_bounded, gamma=0.3)`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from invlib.door.options import NOT_NEGATIVE, SHARE
from invlib.masking import alpha, log_probs_by_rows


@dataclass(frozen=True)
class Prediction:
    """What the model says about a batch: at the masked positions, or everywhere for policies that look back."""

    masked: Bool[Tensor, "batch length"]
    pinned: Bool[Tensor, "batch length"]  # must stay as they are: given from outside, or padding
    asked: Bool[Tensor, "batch length"]
    logits: Float[Tensor, "asked vocab"]  # row-major over `asked`, in the model's precision
    mask_token_id: int
    proposals: Int[Tensor, "batch length"]  # the token that would be written; at visible positions the one there
    confidence: Float[Tensor, "batch length"]  # the model's probability of that token; NaN where it was not asked
    committed: Float[Tensor, "batch length"]  # probability of the shown token when it was written; NaN if masked

    @property
    def visible(self) -> Bool[Tensor, "batch length"]:
        return ~self.masked

    def each(self, function: Callable[[Tensor], Tensor]) -> Float[Tensor, "batch length"]:
        """One number for every asked position, from its probabilities [some, vocab]; NaN elsewhere."""
        values = torch.empty(len(self.logits), device=self.logits.device)
        for rows, log_probs in log_probs_by_rows(self.logits, self.mask_token_id):
            values[rows] = function(log_probs.exp())
        return torch.full(self.asked.shape, torch.nan, device=values.device).masked_scatter(self.asked, values)


@dataclass(frozen=True)
class StepContext:
    """Where in the process we are: from time t down to s; `free` counts what was masked at the start."""

    t: float
    s: float
    free: Int[Tensor, "batch"]
    noise: Callable[[], Float[Tensor, "batch length"]]  # uniform on [0, 1), drawn row by row
    order_noise: float = 0.0

    def still_masked(self, share: float) -> Int[Tensor, "batch"]:
        """How many positions a schedule leaves masked when `share` of them is."""
        return torch.floor(self.free * share + 1e-6).long()  # 10 · (1 - 0.9) must be 1, not 0.9999999

    def quota(self, prediction: Prediction) -> Int[Tensor, "batch"]:
        """How many positions the schedule uncovers now."""
        return prediction.masked.sum(dim=1) - self.still_masked(self.s)

    def jittered(self, log_score: Float[Tensor, "batch length"]) -> Float[Tensor, "batch length"]:
        """Scores plus MaskGIT's order noise, order_noise · t · Gumbel (Chang et al. 2022): least at the end."""
        if not self.order_noise:
            return log_score
        uniform = self.noise().double().clamp(min=torch.finfo(torch.float64).tiny)
        return log_score + self.order_noise * self.t * -torch.log(-torch.log(uniform)).float()

    @property
    def uncover_probability(self) -> float:
        """(alpha_s - alpha_t) / (1 - alpha_t): the chance that a masked token becomes visible in this step."""
        return (alpha(self.s) - alpha(self.t)) / (1 - alpha(self.t))

    @property
    def sigma_max(self) -> float:
        """The largest probability of re-masking that leaves the marginals as they are: (1 - alpha_s) / alpha_t ≤ 1."""
        return 1.0 if alpha(self.t) == 0 else min(1.0, (1 - alpha(self.s)) / alpha(self.t))


Policy = Callable[[Prediction, StepContext], Tensor]
Visible = Bool[Tensor, "batch length"]


def looks_back(policy: Policy) -> Policy:
    """Marks a policy that needs the model's opinion at visible positions."""
    policy.looks_back = True
    return policy


def is_looking_back(policy: Policy) -> bool:
    """Whether a policy, or what a `functools.partial` of it wraps, is marked so."""
    return getattr(policy.func if isinstance(policy, partial) else policy, "looks_back", False)


def top_confidence(prediction: Prediction, context: StepContext) -> Visible:
    """The most probable proposals first (MaskGIT; LLaDA's "low-confidence remasking")."""
    return _uncover_best(context.jittered(prediction.confidence.log()), prediction, context.quota(prediction))


def top_margin(prediction: Prediction, context: StepContext) -> Visible:
    """The clearest decisions first: the gap between the two likeliest tokens (Kim et al. 2025, arXiv 2502.06768)."""
    margin = prediction.each(lambda probs: -probs.topk(2, dim=1).values.diff(dim=1)[:, 0])
    return _uncover_best(context.jittered(margin.log()), prediction, context.quota(prediction))


def entropy_bounded(prediction: Prediction, context: StepContext, *, gamma: float = 0.1) -> Visible:
    """As many as are nearly independent: the most peaked U with sum(H) - max(H) ≤ gamma (EB, arXiv 2505.24857).

    The bound is on the error of writing them together, in nats. At least the schedule's quota, so that the last step
    does not have to write the rest at once; gamma = 0 and as many steps as tokens is one token a step.
    """
    NOT_NEGATIVE.check("gamma", gamma)
    # entr: p log p at p = 0 is 0, not NaN, and [MASK] itself has probability 0.
    entropy = prediction.each(lambda probs: torch.special.entr(probs).sum(dim=1))
    ordered = entropy.masked_fill(~prediction.masked, torch.inf).sort(dim=1).values
    bounded = (ordered.cumsum(dim=1) - ordered <= gamma) & ordered.isfinite()  # ordered: the last one is the largest
    return _uncover_best(-entropy, prediction, torch.maximum(context.quota(prediction), bounded.sum(dim=1)))


def random_order(prediction: Prediction, context: StepContext) -> Visible:
    """As many as the schedule asks for, anywhere."""
    return _uncover_best(context.noise(), prediction, context.quota(prediction))


def left_to_right(prediction: Prediction, context: StepContext) -> Visible:
    """In reading order, as an autoregressive model would."""
    # Ties go to the left.
    return _uncover_best(torch.zeros_like(prediction.confidence), prediction, context.quota(prediction))


def ancestral(prediction: Prediction, context: StepContext) -> Visible:
    """Every masked token by its own coin, with probability (t - s) / t (MDLM, Sahoo et al. 2024, eq. 7).

    With `temperature=1` this is the exact reverse process. An Euler (tau-leaping) step does the same here.
    """
    return prediction.visible | (context.noise() < context.uncover_probability)


@looks_back
def euler_remask_uncertain(prediction: Prediction, context: StepContext, *, threshold: float = 0.3) -> Visible:
    """An Euler step, then visible tokens are re-masked where the model is unsure, max_v p(v) < threshold (jina-ai)."""
    SHARE.check("threshold", threshold)
    unsure = prediction.visible & (prediction.each(lambda probs: probs.amax(dim=1)) < threshold)
    return ancestral(prediction, context) & ~unsure


def remdm_cap(prediction: Prediction, context: StepContext, *, eta: float = 0.04) -> Visible:
    """ReMDM with sigma = min(eta, sigma_max) (Wang et al. 2025, arXiv 2503.00307, §4.1 and eq. 5)."""
    SHARE.check("eta", eta)
    at, to, sigma = alpha(context.t), alpha(context.s), min(eta, context.sigma_max)
    uncover = (to - (1 - sigma) * at) / (1 - at) if at < 1 else 1.0
    return _remasked(prediction, context, sigma, uncover)


def remdm_conf(prediction: Prediction, context: StepContext, *, eta: float = 1.0) -> Visible:
    """ReMDM that re-masks what was written with little confidence: sigma_i = eta · sigma_max · softmax_i(-psi_i).

    psi is the probability of the token when it was written (arXiv 2503.00307, §4.1), so at most one token a step
    is expected to go; masked tokens are uncovered as in `ancestral`.
    """
    SHARE.check("eta", eta)
    doubtful = (-prediction.committed).masked_fill(prediction.masked | prediction.pinned, -torch.inf)
    share = doubtful.softmax(dim=1).nan_to_num(0.0)  # a row without any visible token: nothing to re-mask
    return _remasked(prediction, context, eta * context.sigma_max * share, context.uncover_probability)


@looks_back
def path_planning(prediction: Prediction, context: StepContext, *, eta: float = 1.0) -> Visible:
    """Keeps the best of all positions, visible or not: P2 with self-planning (Peng et al. 2025, arXiv 2502.03540).

    Scores are the model's probability of the token, times eta at masked positions; the best
    kappa = n - floor(free · s) of the n that are not pinned stay or become visible, all others are masked.
    """
    NOT_NEGATIVE.check("eta", eta)
    free = ~prediction.pinned
    score = torch.where(prediction.masked, eta * prediction.confidence, prediction.confidence)
    return prediction.pinned | _best(score, free, free.sum(dim=1) - context.still_masked(context.s))


# They differ in what they look at or may take back; others of the field are one of these under a second name: lowest
# entropy is `entropy_bounded` with gamma = 0, ReMDM's "rescale" and "loop" are `remdm_cap` with another strength.
POLICIES: tuple[Policy, ...] = (
    top_confidence,
    top_margin,
    entropy_bounded,
    random_order,
    left_to_right,
    ancestral,
    euler_remask_uncertain,
    remdm_cap,
    remdm_conf,
    path_planning,
)
POLICY_BY_NAME = {policy.__name__: policy for policy in POLICIES}
REMASKING = frozenset(POLICIES[POLICIES.index(euler_remask_uncertain) :])  # visible tokens may be masked again


def _best(score: Tensor, among: Tensor, count: Tensor) -> Tensor:
    """The `count` positions of `among` with the highest score, in each row; ties go to the left."""
    score = score.clamp(min=torch.finfo(score.dtype).min)  # log 0 is a low score, not "no candidate"
    score = score.masked_fill(~among, -torch.inf)
    rank = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return among & (rank < count[:, None])


def _uncover_best(score: Tensor, prediction: Prediction, count: Tensor) -> Visible:
    return prediction.visible | _best(score, prediction.masked, count)


def _remasked(prediction: Prediction, context: StepContext, sigma: float | Tensor, uncover: float) -> Visible:
    """Every visible token is masked with probability sigma, every masked one uncovered with probability `uncover`."""
    noise = context.noise()
    return torch.where(prediction.masked, noise < uncover, noise >= sigma)
