"""`python -m invlib.audit VECTORS --out FOLDER`; several processes share the work under accelerate or torchrun."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator

from invlib.audit.audit import CHUNK, Audit, open_source
from invlib.audit.files import FILES
from invlib.audit.verdict import pattern_shares, summarise, verdict
from invlib.door.options import Parser
from invlib.encoder import Encoder
from invlib.errors import InputError, command
from invlib.inverter import Inverter
from invlib.studies import leaks


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    chosen = _parser().parse_args(arguments)
    state = Accelerator()
    audit, records = _open(chosen, state), chosen.records and leaks.read_records(chosen.records)
    if records is not None and audit.source.count not in (None, len(records)):
        found = f"{len(records)} records, {audit.source.name} {audit.source.count} vectors"
        raise InputError(f"{chosen.records} holds {found}")
    origin = audit.origin  # looked at by every process: what is wrong with the vectors ends all of them
    if state.is_main_process:
        print(origin, flush=True)
    state.wait_for_everyone()
    try:
        done = audit.run(tell=lambda line: print(line, file=sys.stderr), progress=state.is_main_process)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the same command goes on from {chosen.out}") from None
    print(f"{done}, process {state.process_index + 1} of {state.num_processes}; parts are in {chosen.out}", flush=True)
    state.wait_for_everyone()
    if state.is_main_process:
        _report(audit, records)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m invlib.audit", description="What could be read out of vectors?")
    parser.add_argument("source", help=f"{', '.join(FILES)}; or the folder of a Chroma or LanceDB store")
    parser.add_argument("--collection", help="collection or table, where the store has several")
    parser.add_argument("--out", type=Path, default=Path("data/runs/audit"), help="folder of the results")
    parser.add_argument("--checkpoint", default="minilm")
    parser.add_argument("--steps", type=int, default=4, help="denoising steps (default: 4)")
    parser.add_argument("--chunk", type=int, default=CHUNK, help=f"vectors held at a time (default: {CHUNK})")
    parser.add_argument("--no-confidence", action="store_true", help="do not encode the recovered texts again; faster")
    parser.add_argument("--records", type=Path, help="the true records, row by row, to score what leaked")
    return parser


def _open(chosen: argparse.Namespace, state: Accelerator) -> Audit:
    fast = {"device": state.device, "dtype": torch.bfloat16}
    inverter = Inverter.load(chosen.checkpoint, **fast)
    # In bf16 too: a confidence is read to two digits.
    inverter.encoder = Encoder.load(inverter.config.encoder_model, **fast)
    options = {"chunk": chosen.chunk, "num_steps": chosen.steps, "verify": not chosen.no_confidence}
    options |= {"process": state.process_index, "processes": state.num_processes}
    return Audit(open_source(chosen.source, chosen.collection), inverter, chosen.out, **options)


def _report(audit: Audit, records: Sequence[leaks.Record] | None) -> None:
    summary = summarise(audit.parts())
    tables = [summary.examples.round(2), pattern_shares(summary).round(3)]
    if records is not None:
        texts = audit.table()["text"].fillna("").tolist()
        tables.append(leaks.leaked(records, texts).round(3))
    for table in tables:
        print(table.to_string(index=False))
    if summary.broken:
        print(f"{summary.broken} of {summary.vectors} rows could not be inverted")
    print(verdict(summary, audit.origin))


if __name__ == "__main__":
    sys.exit(main())
