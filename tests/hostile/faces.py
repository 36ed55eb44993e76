"""The public face and values of any kind: what comes is a result or one line. Hypothesis draws them, seeded.

`python -m tests.hostile.faces EXAMPLES` prints how many calls had which end, and those that ended in a traceback.
"""

import json
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # a name that is none must not wait for a network

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import invlib
from invlib import InputError, metrics, perturb, policies
from invlib.config import load_config
from invlib.search import BestOf, Rewrite, SwapBeam
from tests.hostile.counts import end
from tests.hostile.files import VALUES, tokenizer
from tests.speed.untrained import untrained

D = 384
PLAIN = np.linspace(-1, 1, D)
STRANGE = [
    *VALUES,
    *("8", 8.0, 1e9, 10**9, "cpu", "cuda:99", "meta", "banana", torch.device("cpu"), torch.float16),
    *("float32", torch.int8, print, len, object(), {1}, frozenset()),
    *(torch.Generator(), [torch.Generator()], np.float32(2), np.int64(3), np.bool_(True), np.datetime64("now"), 1 + 2j),
    *({0: "the"}, {0: 2.7}, {"a": 1}, {0: 10**9}, {-1: "the"}, [0], (0, 1), range(3)),
    *("BestOf", BestOf, BestOf(4), (BestOf(4), "x"), policies.top_confidence, policies.POLICIES, "top_confidence"),
    *(np.zeros(D), np.full(D, np.nan), PLAIN * 1e20, PLAIN * 1e-30, PLAIN.astype(complex), PLAIN[:5]),
    *(PLAIN.astype(str), ["\ud800"], ["the"], [b"the"], [""], ["a\0b"], [3]),
    *(np.ma.masked_array(PLAIN, PLAIN > 0), [PLAIN, PLAIN[:3]], torch.zeros(D), torch.ones(D, dtype=torch.cfloat)),
    *(torch.ones(D).to_sparse(), torch.ones(D, device="meta"), torch.ones(D, requires_grad=True), [[None] * D]),
    *("\0", "\u200b", "\ufeff\u2060", "\ud800", ["\0"], ["\u200b\u200d"]),
    *(Path("none"), Path("\0"), "/dev/null", "/", ".", "~", "~nobody", "minilm/../minilm", lambda: 3),
    *(lambda texts: np.ones((1, D)), lambda texts: np.full((len(texts), D), np.nan), lambda texts: PLAIN),
    *(lambda texts: None, lambda x: x / 0),
]  # fmt: skip
ANY = st.one_of(
    st.sampled_from(STRANGE),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=3)), max_size=4),
    arrays.arrays(arrays.scalar_dtypes(), arrays.array_shapes(max_dims=3, max_side=4)),
)
OPTIONS = (
    *(
        "num_steps",
        "policy",
        "length",
        "noise_level",
        "pinned",
        "search",
        "verify",
        "grid",
        "temperature",
        "order_noise",
    ),
    *(
        "guidance_scale",
        "conditional",
        "start",
        "candidates",
        "keep_trajectories",
        "batch_size",
        "generator",
        "encoder",
    ),
    *("misspelt", "num_step", "lenght"),
)
CHEAP = {"num_steps": 2, "length": 4, "encoder": lambda texts: np.ones((len(texts), D))}


class Faces:
    """Every entry of the public face as a function of one value."""

    def __init__(self, folder: Path):
        self.inverter = untrained(load_config("configs/tiny.yaml").model)
        self.inverter.encoder = CHEAP["encoder"]
        self.folder, vectors = folder, perturb.unit(np.random.default_rng(0).standard_normal((3, D)))
        told = {"tokens": np.array([[4, 4], [5, 6]]), "confidence": np.ones((2, 2)), "top_ids": np.ones((2, 2, 1), int)}
        told |= {"top_probs": np.ones((2, 2, 1)), "mask_token_id": 4, "pieces": {1: "a", 5: "b", 6: "c"}, "text": "b c"}
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer()))
        own, generator = invlib.Tokenizer.load(folder), torch.Generator().manual_seed(0)
        trajectory, inverter = invlib.Trajectory(**told), self.inverter
        noisy = perturb.GaussianNoise(0.1)
        self.calls: dict[str, Callable] = {
            **{f"invert {name}": partial(self.invert, name) for name in OPTIONS},
            "invert": lambda value: inverter.invert(value, **CHEAP),
            "invert rows": lambda value: inverter.invert([value, value], **CHEAP),
            "invert steps": lambda value: self.invert("num_steps", min(value, 64) if type(value) is int else value),
            "predict_lengths": lambda value: inverter.predict_lengths(value),
            "predict_lengths noise": lambda value: inverter.predict_lengths(PLAIN, value),
            "length_log_probs": lambda value: inverter.length_log_probs(value),
            "token_id": lambda value: inverter.token_id(value),
            "target": lambda value: inverter.target(value),
            "target pinned": lambda value: inverter.target(PLAIN, pinned=value),
            "Inverter.load": lambda value: invlib.Inverter.load(value),
            "Inverter.load device": lambda value: invlib.Inverter.load("minilm", device=value),
            "Inverter.load dtype": lambda value: invlib.Inverter.load("minilm", dtype=value),
            "Inverter.load tokenizer": lambda value: invlib.Inverter.load("minilm", tokenizer=value),
            "Encoder.load device": lambda value: invlib.Encoder.load("none", device=value),
            "Encoder.load dtype": lambda value: invlib.Encoder.load("none", dtype=value),
            "Encoder.load prompt": lambda value: invlib.Encoder.load("none", prompt=value),
            "Encoder.load": lambda value: invlib.Encoder.load(value),
            "check_texts": lambda value: invlib.encoder.check_texts(value),
            "load_config": lambda value: invlib.load_config(value),
            "Tokenizer.load": lambda value: invlib.Tokenizer.load(value),
            "Tokenizer.encode": lambda value: own.encode(value),
            "Tokenizer.decode": lambda value: own.decode(value),
            "Tokenizer.pieces": lambda value: own.pieces(value),
            "Tokenizer.ids_of": lambda value: own.ids_of(value),
            "Trajectory.load": lambda value: invlib.Trajectory.load(value),
            "Trajectory.words": lambda value: trajectory.words(value),
            "Trajectory.alternatives": lambda value: trajectory.alternatives(value, 0),
            **{f"{own.__name__} {name}": partial(self.made, own, name) for own, name in self.fields()},
            **{name: partial(self.policy, policy, name) for policy, name in self.strengths()},
            "store": lambda value: noisy.store(value, generator),
            "store generator": lambda value: noisy.store(vectors, value),
            "recover": lambda value: noisy.recover(value),
            "unit": lambda value: perturb.unit(value),
            "check_unit": lambda value: perturb.check_unit(value),
            "interpolate": lambda value: perturb.interpolate(vectors, vectors[::-1], value),
            "interpolate rows": lambda value: perturb.interpolate(vectors, value, 0.5),
            "procrustes": lambda value: perturb.procrustes(value, vectors),
            "least_squares": lambda value: perturb.least_squares(vectors, value),
            "apply": lambda value: perturb.apply(value, vectors, generator),
            "distortion": lambda value: perturb.distortion([value], vectors, generator),
            "cosine": lambda value: metrics.cosine(vectors, value),
            "score": lambda value: metrics.score(value, value),
            "per_text": lambda value: metrics.per_text(["a"], value),
        }

    def invert(self, name: str, value: object) -> object:
        return self.inverter.invert(
            PLAIN, **{**CHEAP, **({"temperature": 1.0} if name == "candidates" else {}), name: value}
        )

    def made(self, kind: type, name: str, value: object) -> object:
        """A value of one field of a perturbation or strategy, the others as they should be."""
        needed = {"sigma": 1.0, "radius": 1.0, "epsilon": 1.0, "weight": 0.5, "count": 2, "keep": 2, "embed_dim": 4}
        needed |= {
            "share": 0.5,
            "components": np.eye(4),
            "key": np.eye(4),
            "centroids": np.ones((2, 2, 2)),
            "level_bits": 4,
        }
        needed |= {"low": np.zeros(4), "high": np.ones(4), "inner": perturb.GaussianNoise(0.1), "matrix": None}
        return kind(**{own: needed[own] for own in kind.__dataclass_fields__ if own in needed} | {name: value})

    @staticmethod
    def fields() -> list[tuple[type, str]]:
        kinds = [getattr(perturb, name) for name in perturb.__all__]
        kinds = [own for own in kinds if isinstance(own, type) and own.__name__ != "Perturbed"]
        return [
            (own, name)
            for own in [*kinds, BestOf, Rewrite, SwapBeam]
            for name in getattr(own, "__dataclass_fields__", ())
        ]

    @staticmethod
    def strengths() -> list[tuple[Callable, str]]:
        named = {"entropy_bounded": "gamma", "euler_remask_uncertain": "threshold", "remdm_cap": "eta"}
        named |= {"remdm_conf": "eta", "path_planning": "eta"}
        return [(policies.POLICY_BY_NAME[policy], name) for policy, name in named.items()]

    def policy(self, policy: Callable, name: str, value: object) -> object:
        return self.invert("policy", partial(policy, **{name: value}))


def ended(call: Callable, value: object) -> str:
    """How a call ended: "valid", "error", or the traceback in one line."""
    try:
        with warnings.catch_warnings(action="ignore"):
            call(value)
    except InputError as error:
        told = str(error)
        return "error" if 0 < len(told) <= 300 and told.isprintable() else f"an error of another form: {told!r}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        return f"{type(error).__name__}: {error}"[:200]
    return "valid"


def draw(judge: Callable[[object], None], examples: int) -> None:
    """Values of any kind, always the same ones."""
    health = list(HealthCheck)

    @seed(0)
    @settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=health
    )
    @given(ANY)
    def one(value: object) -> None:
        judge(value)

    one()


def run(examples: int) -> tuple[Counter, list[str]]:
    """Calls by their end, and those that had none of the two: `examples` values for every entry of the face."""
    counts, wrong = Counter(), []

    def judge(name: str, call: Callable, value: object) -> None:
        told = ended(call, value)
        counts[told if told in ("valid", "error") else "traceback"] += 1
        if told not in ("valid", "error"):
            wrong.append(ascii(f"{name}({value!r:.100}): {told}"))

    with tempfile.TemporaryDirectory() as folder:
        for name, call in Faces(Path(folder)).calls.items():
            draw(partial(judge, name, call), examples)
    return counts, wrong


if __name__ == "__main__":
    end(run)
