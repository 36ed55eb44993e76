"""Trial: stores whose origin is known, judged like any other. How often is the rule of `origin` wrong?

Its limits are found on some domains and some strange stores (`limit`), its errors told on others (`errors`).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from invlib.audit.origin import LOOP, MARGIN, PLAUSIBLE, check_origin
from invlib.inverter import Inverter
from invlib.metrics import share_interval, with_interval
from invlib.perturb import SecretRotation
from invlib.studies.foreign import pooled, static_embedder

GENUINE = ("as it is", "centred", "half precision")
KNOWN = ("as it is", "centred", "rotated", "projected", "first token")  # what the limits are found on
FALSE = 0.01  # of the strange rows, that the limit lets through


def stores(inverter: Inverter, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """The vectors [n, d] that a store of these texts may hold, by the way they were made."""
    encoder, texts = inverter.encoder, list(texts)
    clean, dim, random = encoder.encode(texts), encoder.embed_dim, np.random.default_rng(1)
    table = encoder.model[0].auto_model.get_input_embeddings().weight.detach().float().numpy()
    ids = encoder.tokenizer(texts, add_special_tokens=False)["input_ids"]
    other = static_embedder()(texts)
    return {
        "as it is": clean,
        "centred": clean - clean.mean(axis=0),
        "half precision": clean.astype(np.float16).astype(np.float32),
        "rotated": SecretRotation.draw(dim, torch.Generator().manual_seed(1)).store(clean),
        "projected": clean @ random.normal(size=(dim, dim)),
        "permuted": clean[:, ::-1],
        "maximum pooling": pooled(encoder, "max")(texts),
        "first token": pooled(encoder, "cls")(texts),
        "token table alone": np.stack([table[own].mean(axis=0) for own in ids]),
        "wordllama, padded": np.pad(other, ((0, 0), (0, dim - other.shape[1]))),
        "wordllama, projected": other @ random.normal(size=(other.shape[1], dim)),
    }


def judged_rows(inverter: Inverter, domains: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """One row per vector: way, domain, genuine, loop and control as in `origin.Rows`."""
    parts = []
    for domain, texts in domains.items():
        for way, vectors in stores(inverter, texts).items():
            rows = check_origin(inverter, np.asarray(vectors, np.float32)).rows
            about = {"way": way, "domain": domain, "genuine": way in GENUINE}
            parts.append(pd.DataFrame({"loop": rows.loop, "control": rows.control}).assign(**about))
    return pd.concat(parts, ignore_index=True)


def limit(rows: pd.DataFrame) -> float:
    """The smallest loop, in hundredths, that lets at most one strange row of a hundred through."""
    strange = rows[~rows["genuine"]]
    near = strange.loc[strange["loop"] - strange["control"] >= MARGIN, "loop"]
    return next(loop / 100 for loop in range(101) if (near >= loop / 100).sum() <= FALSE * len(strange))


def errors(rows: pd.DataFrame) -> pd.DataFrame:
    """How often genuine and strange rows, and stores, are judged wrongly, with 95 % intervals and n."""
    read = (rows["loop"] >= LOOP) & (rows["loop"] - rows["control"] >= MARGIN)
    told = rows.assign(wrong=read != rows["genuine"])
    by_store = told.groupby(["genuine", "way", "domain"])["wrong"].mean().reset_index()
    by_store["wrong"] = np.where(by_store["genuine"], by_store["wrong"] > 1 - PLAUSIBLE, by_store["wrong"] >= PLAUSIBLE)
    found = [
        (kind, what, with_interval(*share_interval(own.to_numpy())), len(own))
        for kind, genuine in (("genuine", True), ("strange", False))
        for what, table in (("rows", told), ("stores", by_store))
        if len(own := table.loc[table["genuine"] == genuine, "wrong"])
    ]
    return pd.DataFrame(found, columns=["vectors", "judged", "wrong", "n"])
