"""Comparison: runs of one vector that differ in one thing, to be seen side by side."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from invlib.errors import InputError, nearest_name
from invlib.policies import REMASKING
from invlib.trajectory import Trajectory
from invlib.widgets.lab.outcome import Outcome
from invlib.widgets.lab.session import Session
from invlib.widgets.lab.settings import KINDS, Settings

MOST = 3  # more are not taken in at a glance
NOISE = 0.02  # σ per coordinate, against a clean vector
BY_CHANCE = {"random_order", "ancestral"} | {policy.__name__ for policy in REMASKING}


@dataclass(frozen=True)
class Lane:
    """One finished run of a comparison."""

    label: str
    outcome: Outcome
    trajectory: Trajectory
    asked: dict[int, tuple[float, int]]
    open_until: int

    @classmethod
    def of(cls, label: str, session: Session) -> "Lane":
        """What a session shows. Raises `InputError` where it shows no finished run."""
        if session.outcome is None:
            raise InputError("there is no finished run to keep; press Invert first")
        return cls(label, session.outcome, session.trajectory, dict(session.asked), session.open_until)


class Comparison:
    """Up to three lanes of one vector: kept by hand, or run as one of `VARIATIONS`."""

    def __init__(self, session: Session):
        self.session, self.lanes = session, []
        self.is_running = False

    def keep(self) -> None:
        """Put what the session shows beside what was kept; runs of another input give way, and so does the oldest."""
        lane = Lane.of(told(self.session.outcome.settings) if self.session.outcome else "", self.session)
        same = [own for own in self.lanes if own.outcome.settings.is_same_input(lane.outcome.settings)]
        self.lanes = [*same, lane][-MOST:]

    def clear(self) -> None:
        """Nothing is compared any more."""
        self.lanes = []

    def compare(self, what: str, settings: Settings) -> None:
        """Run every variation of the settings, one after the other, in the session's thread; Stop keeps what is done.

        Raises `InputError` for an unknown comparison and for settings that do not fit.
        """
        if what not in VARIATIONS:
            raise InputError(f"there is no comparison {what!r}{nearest_name(what, VARIATIONS)}")
        settings.check(self.session.limits)
        queries = (settings.max_queries or self.session.limits.max_queries) if what == "search" else 0
        self.session.occupy(lambda: self._run(VARIATIONS[what](replace(settings, max_queries=queries))))

    def _run(self, variations: dict[str, Settings]) -> None:
        self.lanes, self.is_running = [], True
        try:
            for label, settings in variations.items():
                own = Session(self.session.inverter, self.session.limits)
                own.changed = lambda own=own: own.stop() if self.session.is_stopped else None
                own.invert(settings)
                own.wait()
                if own.error:
                    raise InputError(own.error)
                if self.session.is_stopped:
                    return
                self.lanes = [*self.lanes, Lane.of(label, own)]
                self.session.changed()
        finally:
            self.is_running = False


def told(settings: Settings) -> str:
    """What tells one run of a vector from another, in a few words."""
    usual = Settings()
    words = [f"{_words(settings.policy)}, {settings.num_steps} steps"]
    if not settings.is_clean:
        words.append(f"{KINDS[settings.perturbation].label.split(',')[0].lower()} {settings.strength:g}")
    for name, word in (("seed", "seed"), ("candidates", "candidates"), ("guidance_scale", "guidance")):
        if getattr(settings, name) != getattr(usual, name):
            words.append(f"{word} {getattr(settings, name):g}")
    return ", ".join(words + ["search"] * (settings.max_queries > 0))


def _words(policy: str) -> str:
    return policy.replace("_", " ")


def _policies(settings: Settings) -> dict[str, Settings]:
    names = list(dict.fromkeys([settings.policy, "top_confidence", "left_to_right", "random_order"]))[:MOST]
    return {_words(name): replace(settings, policy=name) for name in names}


def _seeds(settings: Settings) -> dict[str, Settings]:
    """Of a policy that draws lots; the others would write the same three times."""
    policy = settings.policy if settings.policy in BY_CHANCE else "random_order"
    seeds = range(settings.seed, settings.seed + MOST)
    return {f"{_words(policy)}, seed {seed}": replace(settings, policy=policy, seed=seed) for seed in seeds}


def _steps(settings: Settings) -> dict[str, Settings]:
    return {f"{n} step{'s' * (n > 1)}": replace(settings, num_steps=n) for n in (1, 4, 16)}


def _search(settings: Settings) -> dict[str, Settings]:
    return {"the draft": replace(settings, max_queries=0), "search closer": settings}


def _noise(settings: Settings) -> dict[str, Settings]:
    clean = replace(settings, perturbation="gaussian", strength=0.0)
    noisy = replace(clean, strength=NOISE) if settings.is_clean else settings
    return {"clean": clean, told(noisy).split(", ", 2)[-1]: noisy}


def _guidance(settings: Settings) -> dict[str, Settings]:
    scale = settings.guidance_scale if settings.guidance_scale != 1 else 2.0
    plain, guided = (replace(settings, guidance_scale=w) for w in (1.0, scale))
    return {"without guidance": plain, f"guidance {scale:g}": guided}


VARIATIONS: dict[str, Callable[[Settings], dict[str, Settings]]] = {
    own.__name__[1:]: own for own in (_policies, _seeds, _steps, _search, _noise, _guidance)
}
