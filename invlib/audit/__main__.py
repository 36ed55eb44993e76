"""`python -m invlib.audit VECTORS --out FOLDER`; several processes share the work under accelerate or torchrun."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator

from invlib.audit import report
from invlib.audit.audit import CHUNK, Audit
from invlib.audit.confidence import FILE, measure_file
from invlib.audit.decoding import STEPS
from invlib.audit.firstpass import first_pass
from invlib.audit.verdict import masked, pattern_shares, summarise, verdict
from invlib.door.options import Parser
from invlib.errors import InputError, command
from invlib.inverter import Inverter
from invlib.sources import FILES, fingerprint, open_source
from invlib.studies import leaks
from invlib.training.pairs import read_texts
from invlib.words import WordMap

SHOWN = 20  # rows of a table on the screen; the file has all


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    chosen = _parser().parse_args(arguments)
    state = Accelerator()
    if chosen.calibrate is not None:
        measured = measure_file(_inverter(chosen, state), chosen.calibrate, chosen.out, chosen.steps)
        print(
            f"{measured['domain'].nunique()} domains measured; {chosen.out / FILE} is used by audits into that folder"
        )
        return
    audit, records = _open(chosen, state), chosen.records and leaks.read_records(chosen.records)
    if records is not None and audit.survey.rows != len(records):
        found = f"{len(records)} records, {audit.source.name} {audit.survey.rows} vectors"
        raise InputError(f"{chosen.records} holds {found}")
    asked = {name: read_texts(path) for name in ("watch", "contains") if (path := getattr(chosen, name)) is not None}
    if chosen.first_pass:
        if not asked:
            raise InputError("nothing is asked: give --watch or --contains, or leave --first-pass out")
        _tell(first_pass(audit, **asked), chosen)
        if audit.survey.sample.shape[1] == audit.inverter.config.embedding_cond_dim:
            print(audit.origin)  # of another encoder's vectors the answers say nothing
        return
    origin = audit.origin  # looked at by every process: what is wrong with the vectors ends all of them
    tables = first_pass(audit, **asked) if asked and state.is_main_process else {}
    if state.is_main_process:
        print(*_opened(audit), origin, sep="\n", flush=True)
        _tell(tables, chosen)
    state.wait_for_everyone()
    try:
        done = audit.run(tell=lambda line: print(line, file=sys.stderr), progress=state.is_main_process)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the same command goes on from {chosen.out}") from None
    print(f"{done}, process {state.process_index + 1} of {state.num_processes}; parts are in {chosen.out}", flush=True)
    state.wait_for_everyone()
    if state.is_main_process:
        _report(audit, records, tables, chosen)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m invlib.audit", description="What could be read out of vectors?")
    places = (
        f"a file ({' '.join(FILES)}, text also packed), a folder of such files, of Chroma or of LanceDB, or a server:"
    )
    parser.add_argument("source", nargs="?", help=f"{places} qdrant:URL, milvus:URL, postgresql://…")
    parser.add_argument("--collection", help="collection or table, where the store has several")
    parser.add_argument(
        "--column", help="column or array of the vectors, where the choice made by itself is not the right one"
    )
    parser.add_argument("--out", type=Path, default=Path("data/runs/audit"), help="folder of the results")
    parser.add_argument("--checkpoint", default="minilm")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"denoising steps (default: {STEPS})")
    parser.add_argument("--chunk", type=int, default=CHUNK, help=f"vectors held at a time (default: {CHUNK})")
    parser.add_argument("--no-confidence", action="store_true", help="do not encode the recovered texts again; faster")
    parser.add_argument("--records", type=Path, help="the true records, row by row, to score what leaked")
    parser.add_argument("--show", action="store_true", help="show names, numbers, dates and addresses unmasked")
    parser.add_argument("--watch", type=Path, metavar="WORDS", help="words or phrases, one a line: which are inside?")
    parser.add_argument("--contains", type=Path, metavar="TEXTS", help="texts, one a line: which are in the store?")
    parser.add_argument("--first-pass", action="store_true", help="only --watch and --contains; decode no text")
    parser.add_argument(
        "--fail-above", type=float, metavar="SHARE", help="exit status 1 where more of the rows is read"
    )
    parser.add_argument(
        "--calibrate", type=Path, metavar="TEXTS", help="measure on texts what a confidence is worth, into --out"
    )
    return parser


def _inverter(chosen: argparse.Namespace, state: Accelerator) -> Inverter:
    return Inverter.load(chosen.checkpoint, device=state.device, dtype=torch.int8)


def _open(chosen: argparse.Namespace, state: Accelerator) -> Audit:
    if chosen.source is None:
        raise InputError("name a store of vectors: a file, a folder or a server; --help lists them")
    inverter = _inverter(chosen, state)
    options = {"chunk": chosen.chunk, "num_steps": chosen.steps, "verify": not chosen.no_confidence}
    options |= {"process": state.process_index, "processes": state.num_processes}
    dim = inverter.config.embedding_cond_dim
    source = open_source(chosen.source, chosen.collection, column=chosen.column, dim=dim)
    return Audit(source, inverter, chosen.out, **options)


def _opened(audit: Audit) -> list[str]:
    said = [f"{audit.source.name}: {audit.survey.rows} rows, {audit.survey.usable} with a usable vector"]
    said += [f"{count} rows: {problem}" for problem, count in audit.survey.problems.most_common(5)]
    said += [audit.source.note] if audit.source.note else []
    return [*said, f"read as {audit.precision.told}", f"SHA-256 before: {audit.sha256}"]


def _tell(tables: Mapping[str, pd.DataFrame], chosen: argparse.Namespace) -> None:
    for name, table in tables.items():
        print(
            f"{chosen.out / name}.csv:", table.head(SHOWN).to_string(index=False, max_colwidth=60), sep="\n", flush=True
        )


def _report(
    audit: Audit, records: Sequence[leaks.Record] | None, tables: Mapping[str, pd.DataFrame], chosen: argparse.Namespace
) -> None:
    summary, leaked, hidden = (
        summarise(audit.parts()),
        None,
        partial(masked, known=WordMap.near(audit.inverter.encoder)),
    )
    if records is not None:
        leaked = leaks.leaked(records, audit.table()["text"].fillna("").tolist())
    examples = summary.examples.round(2)
    examples["text"] = examples["text"] if chosen.show else examples["text"].map(hidden)
    for table in (examples.dropna(axis=1), pattern_shares(summary).round(3), leaked):
        if table is not None:
            print(table.to_string(index=False))
    if summary.broken:
        print(f"{summary.broken} of {summary.vectors} rows could not be inverted")
    print(verdict(summary, audit.origin))
    paths = report.write(audit, summary, leaked=leaked, tables=tables, show=chosen.show)
    after = fingerprint(audit.source.evidence)
    print(f"SHA-256 after:  {after}", "the same" if after == audit.sha256 else "CHANGED while it was read", sep=", ")
    print(f"report: {', '.join(map(str, paths))}")
    share = summary.share[0] if summary.verdicts else audit.origin.share[0]
    if chosen.fail_above is not None and share > chosen.fail_above:
        print(f"{share:.3f} of the rows is read, more than {chosen.fail_above}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    sys.exit(main())
