"""Report: what a reviewer can file. One list of sections, as Markdown and as one page that needs nothing else."""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from invlib.audit.audit import Audit
from invlib.audit.verdict import Summary, masked, masked_address, pattern_shares, verdict
from invlib.door.files import write_text
from invlib.metrics import with_interval
from invlib.studies.tables import DATA
from invlib.words import WordMap

EFFECT = ("none", "fp16", "absmax quantisation", "binary", "truncation", "Gaussian noise", "secret rotation")
REFERENCES = [
    "MITRE ATLAS AML.T0024.001, Invert AI Model: what somebody with access to the vectors can do, and this audit did.",
    "OWASP Top 10 for LLM Applications, LLM08:2025 Vector and Embedding Weaknesses: it names embedding inversion.",
    "OWASP AISVS 8.2.1: sensitive text is masked before it is embedded; what was recovered shows where it was not.",
]
CAUTION = [
    "A recovered text is a guess of a model: never evidence about a person, nor a quotation of what was stored.",
    "Figures are those of this checkpoint, from the vectors alone. Another attacker, or one who may ask the encoder, "
    "can read more; longer texts and other languages are read worse than they deserve.",
    "Chances of being right are ranges over the domains on which they were measured; the store's own may lie outside.",
    "This page describes a measurement. Whether a store falls under a rule or a law is not for it to say.",
]
TITLES = {"watch": "Which watch-words are inside?", "contains": "Which of these texts are inside?"}
ASKED = {
    "watch": "From a linear map of every vector, without decoding: the share of rows with a word is a sum of chances. "
    "Its interval holds chance and by how much such sums were off on held-out texts; texts of another kind may lie "
    "outside. `general` is the share in general text, `likely` counts the rows with a chance above one half.",
    "contains": "The cosine of a text's own vector to the nearest row, and how often others come as "
    "close (false positives): near-duplicates of a stored text, and texts that are not inside (other). `found` is the "
    "share of texts of such a store that would be called inside. Capitals and blanks are nothing to the encoder.",
}
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "body{color:#1a1a1a;background:#fff}"
    "table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}"
    "td,th{border-bottom:1px solid #ccc;padding:.3rem .7rem;text-align:left;vertical-align:top}"
    "@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#161616}td,th{border-color:#444}}"
)


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it: paragraphs, tables, lists of lines."""

    title: str
    blocks: Sequence[str | pd.DataFrame | list[str]]


def write(
    audit: Audit, summary: Summary, *,
    leaked: pd.DataFrame | None = None, tables: Mapping[str, pd.DataFrame] | None = None, show: bool = False,
) -> list[Path]:  # fmt: skip
    """`report.md`, `report.html` and `report.json`, for people and for programs, into the audit's folder.

    leaked: of the true records. tables: of the first pass. show: mask nothing.
    """
    sections, tables = describe(audit, summary, leaked, tables or {}, show), tables or {}
    told = {"store": audit.source.name, "sha256": audit.sha256, "rows": summary.vectors, "unusable": summary.broken}
    share = [own if own == own else None for own in summary.share]  # NaN is no JSON
    told |= {"share_read": dict(zip(("value", "low", "high"), share, strict=True))}
    told |= {"verdicts": summary.verdicts, "problems": summary.problems, "origin": str(audit.origin)}
    told |= {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
    texts = {"md": as_markdown(sections), "html": as_html(sections), "json": json.dumps(told, indent=1, default=float)}
    for kind, text in texts.items():
        write_text(audit.out / f"report.{kind}", text)
    return [audit.out / f"report.{kind}" for kind in texts]


def describe(
    audit: Audit, summary: Summary, leaked: pd.DataFrame | None, tables: Mapping[str, pd.DataFrame], show: bool
) -> list[Section]:
    """The sections of a report."""
    known = None if show else WordMap.near(audit.inverter.encoder)
    sections = [
        Section("What could be read out of this store", [verdict(summary, audit.origin)]),
        Section("What was read", [_facts(audit, summary)]),
        Section("Rows by verdict", [_counts(summary.verdicts, summary.vectors)]),
        Section("Examples", [*_examples(summary, show, known)]),
        Section("Details that look personal", [*_scorecard(summary, leaked)]),
    ]
    if (effect := _effect()) is not None:
        told = "Measured on sentences of this project, from the vector alone; the attacker knows the defence."
        sections.append(Section("What precision and defences change", [told, effect]))
    sections += [Section(TITLES[name], [ASKED[name], _answers(table, show)]) for name, table in tables.items()]
    options = [f"{TITLES[name]} --{name} asks; it was not asked." for name in TITLES if name not in tables]
    return [*sections, Section("How to read this", [[*CAUTION, *options]]), Section("References", [REFERENCES])]


def _answers(table: pd.DataFrame, show: bool) -> pd.DataFrame:
    """A table of the first pass for people."""
    said = table.copy()
    if not show:
        said["id"] = said["id"].map(masked_address, na_action="ignore")
    for name in {"share", "near", "other"} & set(table):
        bounds = [f"{name}_low", f"{name}_high"]
        rows = table[[name, *bounds]].to_numpy()
        said[name] = ["unknown to the map" if np.isnan(row[0]) else with_interval(*row) for row in rows]
        said = said.drop(columns=bounds)
    return said.round(4)


def _facts(audit: Audit, summary: Summary) -> pd.DataFrame:
    share = "not checked" if summary.share[0] != summary.share[0] else with_interval(*summary.share)
    facts = {
        "store": audit.source.name,
        "SHA-256 of its bytes": audit.sha256 or "none: a server",
        "vectors": audit.source.note or "the whole array",
        "read as": audit.precision.told,
        "rows": f"{summary.vectors:,}",
        "without a usable vector": f"{summary.broken:,}",
        "share of the others that is read": f"{share}, 95 % interval",
        "checkpoint": f"{audit.inverter.config.encoder_model}, {audit.num_steps} steps",
        "written": datetime.now(UTC).isoformat(timespec="minutes"),
    }
    facts |= {f"problem: {problem}": f"{count:,} rows" for problem, count in summary.problems.items()}
    return pd.DataFrame(facts.items(), columns=["", " "])


def _counts(verdicts: dict[str, int], vectors: int) -> pd.DataFrame:
    rows = [(kind, f"{count:,}", f"{count / vectors:.1%}") for kind, count in verdicts.items()]
    return pd.DataFrame(rows, columns=["verdict", "rows", "share of all"])


def _examples(summary: Summary, show: bool, known: WordMap | None) -> list:
    found = summary.examples
    ids = found["id"] if show else found["id"].map(masked_address)
    said = {"id": ids, "text": found["text"] if show else [masked(text, known) for text in found["text"]]}
    said |= {"confidence": found["confidence"].round(2)}
    for kind, told in (("exact", "text exact"), ("words", "a word right")):
        pairs = zip(found[f"{kind}_low"], found[f"{kind}_high"], strict=True)
        said[told] = [f"{low:.0%}–{high:.0%}" if low == low else "not measured" for low, high in pairs]
    hidden = "Names, numbers, dates and addresses are masked (█); --show reveals them."
    about = "The most confident texts. Chances are ranges over the domains on which they were measured."
    return [about if show else f"{about} {hidden}", pd.DataFrame(said)]


def _scorecard(summary: Summary, leaked: pd.DataFrame | None) -> list:
    if leaked is not None:
        told = "Secrets of the true records that came back, word for word (exact) or nearly (near)."
        return [told, leaked.round(3)]
    if not len(summary.confidences):
        return ["No text was recovered."]
    told = "Share of the recovered texts that hold something of the kind. It is the model's guess: names and canaries"
    return [f"{told} can only be counted against the true records (--records).", pattern_shares(summary).round(3)]


def _effect() -> pd.DataFrame | None:
    """Token F1 under each precision and defence, from the study behind notebook 07; None in an installed package."""
    path = DATA / "tables" / "sweep.csv"
    if not path.is_file():
        return None
    table = pd.read_csv(path)
    table = table[(table["metric"] == "token_f1") & table["perturbation"].isin(EFFECT) & (table["seed"] == 0)]
    best = table.loc[table.groupby(["perturbation", "strength"])["value"].idxmax()]
    said = [f"{row.perturbation}, {row.measure} {row.strength:g}" for row in best.itertuples()]
    values = [with_interval(row.value, row.low, row.high, 2) for row in best.itertuples()]
    return pd.DataFrame({"store keeps": said, "token F1": values, "attacker": best["attacker"].tolist()})


def as_markdown(sections: Sequence[Section]) -> str:
    """The sections as Markdown."""
    return (
        "\n\n".join(part for one in sections for part in (f"## {one.title}", *map(_block_markdown, one.blocks))) + "\n"
    )


def as_html(sections: Sequence[Section]) -> str:
    """The sections as one page; nothing in it is loaded from elsewhere."""
    body = "".join(f"<h2>{html.escape(one.title)}</h2>{''.join(map(_block_html, one.blocks))}" for one in sections)
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Embedding audit</title><style>{STYLE}</style>'
    return f"{head}<main>{body}</main></html>\n"


def _block_markdown(block: str | pd.DataFrame | list[str]) -> str:
    if isinstance(block, str):
        return _plain(block)
    if isinstance(block, list):
        return "\n".join(f"- {_plain(line)}" for line in block)
    lines = [list(block.columns), ["---"] * block.shape[1], *block.astype(str).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines)


def _plain(text: str) -> str:
    """Text from a store as text: nothing of it is Markdown or HTML."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return escaped.translate(str.maketrans({mark: f"\\{mark}" for mark in "\\`*_[]|#"}))


def _block_html(block: str | pd.DataFrame | list[str]) -> str:
    if isinstance(block, str):
        return f"<p>{html.escape(block)}</p>"
    if isinstance(block, list):
        return f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in block)}</ul>"
    return block.to_html(index=False, border=0)
