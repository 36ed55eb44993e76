"""Claims: what the tables of foreign encoders and of secret keys come to, in one sentence each."""

from pathlib import Path

import pandas as pd

from invlib.door.files import reading
from invlib.metrics import with_interval
from invlib.studies.score import CONTROLS, INVERTED
from invlib.studies.tables import DATA

FALLEN = 0.8  # of what is read without a key, above what the model writes without a vector
ENCODER, KNOWN = "wordllama", "nearest known text"


def read_table(name: str, folder: Path = DATA / "tables") -> pd.DataFrame:
    """A table of a study. Raises `InputError` where it was not made yet."""
    with reading(folder / f"{name}.csv", "is not there", f"make it: python -m invlib.studies {name} --help"):
        return pd.read_csv(folder / f"{name}.csv")


def pairs_claim(table: pd.DataFrame) -> str:
    """From how many known pairs on more is read than any control gives, and how much with the most of them."""
    rows = table[(table["encoder"] == ENCODER) & (table["metric"] == "token_f1")]
    cells = {key: own.set_index("attacker") for key, own in rows.groupby(["domain", "pairs"])}
    controls = [KNOWN, *CONTROLS[:2]]
    parts = []
    for domain, where in (("same", "of the pairs' own domain"), ("other", "of another domain")):
        own = {pairs: found for (kind, pairs), found in cells.items() if kind == domain}
        enough = [n for n, c in own.items() if c.loc[INVERTED, "low"] > c["high"].reindex(controls).max()]
        if own:
            most = max(own)
            read, best = own[most].loc[INVERTED], own[most]["value"].reindex(controls)
            told = f"{min(enough):,} pairs are enough" if enough else f"{most:,} pairs are not enough"
            parts.append(
                f"{told} to read more {where} than any control; with {most:,}, token F1 is {_cell(read)}, "
                f"{best.idxmax()} {best.max():.3f} (n = {read['n']})"
            )
    return f"Another encoder's vectors ({ENCODER}, never trained on): {'; '.join(parts)}."


def key_claims(table: pd.DataFrame) -> list[str]:
    """Whether each secret key falls to an attacker without any pair, and to how many vectors."""
    rows = table[table["metric"] == "token_f1"].set_index(["defence", "own texts", "vectors"])
    clean, prior = (rows.loc[(name, "none", 0)] for name in ("no key", "no vector"))
    line, told = prior["value"] + FALLEN * (clean["value"] - prior["value"]), []
    for (defence, own), found in table[table["metric"] == "token_f1"].groupby(["defence", "own texts"], sort=False):
        if own == "none":
            continue
        fallen = found[found["value"] > line]
        last = found.iloc[-1]
        verdict, at = ("falls", fallen.iloc[0]) if len(fallen) else ("does not fall", last)
        told.append(
            f"Without any pair, {defence} {verdict} to {at['vectors']:,} stored vectors and as many clean ones "
            f"(own texts: {own}): token F1 {_cell(at)} of {clean['value']:.3f} without a key (n = {at['n']})."
        )
    return told


def chunk_claim(table: pd.DataFrame) -> str:
    """Which share of its content words a vector of one sentence or of many gives away to the linear word map."""
    rows = table[table["way"] == table["way"].iloc[0]]
    parts = [f"{_cell(row)} of a chunk of {row['sentences']}" for _, row in rows.iterrows()]
    return f"Sentences in one vector ({rows['way'].iloc[0]}): it gives away of the content words {', '.join(parts)}."


def key_table(table: pd.DataFrame, *, longest: bool = False) -> pd.DataFrame:
    """recall@10, token F1 and cosine of every key, own texts and number of vectors, with intervals, as texts.

    longest: the largest number of vectors of each alone. Where nothing was undone, the own texts are "(as stored)".
    """
    rows = table.assign(cell=table.apply(_cell, axis=1))
    rows["own texts"] = rows["own texts"].replace("none", "(as stored)")
    names = ["defence", "own texts", "vectors"]
    if longest:
        rows = rows[rows["vectors"] == rows.groupby(names[:2])["vectors"].transform("max")]
    wide = rows.pivot(index=names, columns="metric", values="cell").fillna("")
    return wide.reindex(rows["defence"].unique(), level=0)[["recall@10", "token_f1", "cosine"]]


def claims(folder: Path = DATA / "tables") -> list[str]:
    """All sentences."""
    chunks = [chunk_claim(read_table("chunks", folder))] if (folder / "chunks.csv").is_file() else []
    return [pairs_claim(read_table("alignment", folder)), *key_claims(read_table("unpaired", folder)), *chunks]


def _cell(row: pd.Series) -> str:
    return with_interval(row["value"], row["low"], row["high"])
