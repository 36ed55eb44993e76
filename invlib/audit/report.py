"""Report: what a reviewer can file. One list of sections, as Markdown and as one page that needs nothing else."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from invlib.audit.audit import Audit
from invlib.audit.verdict import Summary, masked, masked_address, pattern_shares, verdict
from invlib.checkpoint import write_atomically
from invlib.metrics import with_interval
from invlib.studies.tables import DATA

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


def write(audit: Audit, summary: Summary, *, leaked: pd.DataFrame | None = None, show: bool = False) -> list[Path]:
    """`report.md` and `report.html` into the audit's folder. leaked: of the true records. show: mask nothing."""
    sections = describe(audit, summary, leaked, show)
    paths = [audit.out / "report.md", audit.out / "report.html"]
    for path, text in zip(paths, (as_markdown(sections), as_html(sections)), strict=True):
        write_atomically(path, lambda partial, text=text: partial.write_text(text, encoding="utf-8"))
    return paths


def describe(audit: Audit, summary: Summary, leaked: pd.DataFrame | None, show: bool) -> list[Section]:
    """The sections of a report."""
    sections = [
        Section("What could be read out of this store", [verdict(summary, audit.origin)]),
        Section("What was read", [_facts(audit, summary)]),
        Section("Rows by verdict", [_counts(summary.verdicts, summary.vectors)]),
        Section("Examples", [*_examples(summary, show)]),
        Section("Details that look personal", [*_scorecard(summary, leaked)]),
    ]
    if (effect := _effect()) is not None:
        told = "Measured on sentences of this project, from the vector alone; the attacker knows the defence."
        sections.append(Section("What precision and defences change", [told, effect]))
    not_asked = "Watch-words and membership (is this text in there?) were not asked for in this audit."
    return [*sections, Section("How to read this", [CAUTION, not_asked]), Section("References", [REFERENCES])]


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


def _examples(summary: Summary, show: bool) -> list:
    found = summary.examples
    ids = found["id"] if show else found["id"].map(masked_address)
    said = {"id": ids, "text": found["text"] if show else found["text"].map(masked)}
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
