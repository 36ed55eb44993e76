"""Frontier: leakage against utility, for every defence and for attackers who do or do not know it.

Everything is read from the tables of `python -m invlib.studies tables`. A secret key is shown at its largest number of
known pairs.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from invlib.checkpoint import fingerprint
from invlib.inverter import Inverter
from invlib.metrics import with_interval
from invlib.studies.tables import DATA

KEYS = ["perturbation", "strength"]
INTERVAL = ["value", "low", "high"]
NAIVE, KNOWING = ("naive",), ("adapted", "noise-aware", "known pairs")
NOISE, PAIRS = "Gaussian noise", ", known pairs"
DEFENCES = (NOISE, "absmax quantisation", "binary", "truncation", "random projection")
DEFENCES += ("secret rotation", "secret permutation")


@dataclass(frozen=True)
class Tables:
    """What the study wrote: `sweep` and `utility`, and whether these weights made them."""

    sweep: pd.DataFrame
    utility: pd.DataFrame
    about: dict
    are_these: bool

    @classmethod
    def read(cls, inverter: Inverter, folder: Path = DATA / "tables") -> "Tables":
        sweep, utility = (pd.read_csv(folder / f"{name}.csv") for name in ("sweep", "utility"))
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        return cls(sweep, utility, about, about["weights"] == fingerprint(inverter.model))

    def __str__(self) -> str:
        told = f"{self.about['texts']} texts, commit {self.about['commit'][:12]}, {self.about['made']}"
        return f"{told}; the weights are {'these' if self.are_these else 'NOT these'}"

    @cached_property
    def inverted(self) -> pd.DataFrame:
        return self.sweep[self.sweep["attacker"] == "inverted"]

    @cached_property
    def recall(self) -> pd.DataFrame:
        """recall@10 of each perturbation and strength; noise of strength 0, which is none, among them."""
        rows = self.utility[self.utility["metric"] == "recall@10"]
        return pd.concat([rows, rows[rows["perturbation"] == "none"].assign(perturbation=NOISE)])

    def level(self, metric: str, attacker: str = "inverted") -> float:
        """A metric on clean vectors, or of a control."""
        rows = self.sweep.query("attacker == @attacker and metric == @metric")
        return float(rows[rows["perturbation"].isin(["none", "no vector"])]["value"].iloc[0])

    def leakage(self, metric: str, attacks: Sequence[str]) -> pd.DataFrame:
        """One row per defence and strength: of the attacks, the one that reads most."""
        rows = self.inverted[(self.inverted["metric"] == metric) & self.inverted["attack"].isin(attacks)]
        keyed = rows["perturbation"].str.endswith(PAIRS)
        strengths = self.utility[self.utility["perturbation"].str.startswith("secret")].groupby("perturbation")[
            "strength"
        ]
        names = rows["perturbation"].str.removesuffix(PAIRS)
        own = names.map(strengths.first())
        rows = rows.assign(pairs=rows["strength"].where(keyed), perturbation=names)
        rows = rows.assign(strength=rows["strength"].where(~keyed, own))
        rows = rows[rows["perturbation"].isin(DEFENCES)]
        best = rows.loc[rows.groupby(KEYS)["value"].idxmax()]
        order = best["perturbation"].map(DEFENCES.index)
        return best.assign(order=order).sort_values(["order", "strength"]).drop(columns="order")

    def frontier(self, metric: str = "token_f1") -> pd.DataFrame:
        """Both attackers' leakage with `recall@10` and its interval beside it, for `plots.plot_panels`."""
        sides = {"naive": NAIVE, "attackers who know the defence": KNOWING}
        rows = pd.concat([self.leakage(metric, attacks).assign(attacker=name) for name, attacks in sides.items()])
        utility = self.recall[[*KEYS, *INTERVAL]].drop_duplicates(KEYS)
        utility.columns = [*KEYS, "recall@10", "recall@10_low", "recall@10_high"]
        joined = rows.merge(utility, on=KEYS)
        order = joined["perturbation"].map(DEFENCES.index)
        return joined.assign(order=order).sort_values(["order", "attacker", "recall@10"], ascending=[True, False, True])

    def beside(self, metric: str) -> pd.DataFrame:
        """Every studied defence: recall@10, what both attackers read, and by which attack."""
        knowing = self.leakage(metric, KNOWING).set_index(KEYS)
        parts = {"recall@10": self.recall.drop_duplicates(KEYS).set_index(KEYS)}
        parts |= {"naive": self.leakage(metric, NAIVE).set_index(KEYS), "who knows it": knowing}
        cells = {name: part.apply(shown, axis=1) for name, part in parts.items()}
        found = pd.DataFrame(cells).dropna()
        return found.assign(by=knowing["attack"].reindex(found.index)).loc[knowing.index.intersection(found.index)]

    def noise_at(self, recall: float, attacks: Sequence[str]) -> tuple[float, float, float] | None:
        """Token F1 through the noise that leaves this recall@10, between the measured σ; none beyond the last.

        Where no attacker was adapted to so little noise, its line runs from the clean vectors.
        """
        clean = self.inverted.query("perturbation == 'none' and metric == 'token_f1'")
        read = self.leakage("token_f1", attacks).query("perturbation == @NOISE")
        read = pd.concat([clean.assign(perturbation=NOISE, strength=0.0), read])
        points = read.merge(self.recall[[*KEYS, "value"]], on=KEYS, suffixes=("", " x")).sort_values("value x")
        if recall < points["value x"].min():
            return None
        return tuple(float(np.interp(recall, points["value x"], points[column])) for column in INTERVAL)

    def against_noise(self) -> pd.DataFrame:
        """Each defence beside Gaussian noise of the same recall@10: better or worse where the intervals do not meet."""
        levels, rows = self.recall.drop_duplicates(KEYS).set_index(KEYS)["value"], []
        for attacker, attacks in {"naive": NAIVE, "who knows it": KNOWING}.items():
            for row in self.leakage("token_f1", attacks).query("perturbation != @NOISE").itertuples():
                recall = levels[row.perturbation, row.strength]
                noise = self.noise_at(recall, attacks)
                if noise is not None:
                    verdict = "better" if row.high < noise[1] else "worse" if row.low > noise[2] else "like noise"
                    own = with_interval(row.value, row.low, row.high)
                    cells = (own, with_interval(*noise), verdict)
                    rows.append((attacker, row.perturbation, row.strength, recall, *cells))
        columns = ["attacker", "defence", "strength", "recall@10", "token F1", "noise there", "against noise"]
        return pd.DataFrame(rows, columns=columns).sort_values(["attacker", "recall@10"], ascending=[True, False])

    def pairs(self, metric: str = "token_f1") -> pd.DataFrame:
        """What is read of each secret with how many known pairs; 0 of them is the naive attacker."""
        rows = self.inverted[self.inverted["metric"] == metric]
        known = rows[rows["attack"] == "known pairs"]
        none = rows[(rows["attack"] == "naive") & rows["perturbation"].str.startswith("secret")].assign(strength=0)
        both = pd.concat([none, known]).assign(secret=lambda table: table["perturbation"].str.removesuffix(PAIRS))
        both = both.sort_values(["strength", "secret"])
        return both.assign(pairs=both["strength"].astype(int).astype(str))

    def agreement(self, live: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
        """A slice, swept here and now, beside the same cells of the table: do the intervals meet?"""
        keys = [*KEYS, "attacker", "metric", *(["attack"] if "attack" in live else [])]
        table = self.sweep if "attack" in live else self.sweep[self.sweep["attack"] == "naive"]
        own = live[(live["attacker"] == "inverted") & live["metric"].isin(metrics)]
        both = own.merge(table[[*keys, *INTERVAL]], "left", keys, suffixes=("", " of the table"))
        meets = (both["low"] <= both["high of the table"]) & (both["low of the table"] <= both["high"])
        agrees = meets.map({True: "yes", False: "no"}).where(both["value of the table"].notna(), "not in it")
        return both.assign(agrees=agrees)[[*keys, "low", "value", "high", "value of the table", "agrees"]]


def shown(row: pd.Series) -> str:
    """A row's value and interval, as one text."""
    return with_interval(row["value"], row["low"], row["high"])
