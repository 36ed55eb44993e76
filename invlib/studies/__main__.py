"""`python -m invlib.studies NAME`: a study and its options; the names are those of STUDIES."""

import sys
from collections.abc import Sequence

from invlib.door.options import Parser
from invlib.errors import command
from invlib.studies import ablations, alignment, attackers, chunks, documents, score, search, tables, unpaired

STUDIES = {"score": score, "search": search, "documents": documents, "attackers": attackers, "ablations": ablations}
STUDIES |= {"tables": tables, "alignment": alignment, "unpaired": unpaired, "chunks": chunks}


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Each study writes what it measured into a file and prints a summary."""
    parser = Parser(
        prog="python -m invlib.studies", description="What a checkpoint reaches, and what protects from it."
    )
    studies = parser.add_subparsers(required=True, metavar="STUDY")
    for name, study in STUDIES.items():
        purpose = study.__doc__.splitlines()[0].partition(": ")[2]
        own = studies.add_parser(name, help=purpose, description=purpose)
        study.options(own)
        own.set_defaults(run=study.run)
    chosen = parser.parse_args(arguments)
    chosen.run(chosen)


if __name__ == "__main__":
    sys.exit(main())
