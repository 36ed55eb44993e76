"""Draw one real inversion as an animated SVG: the picture at the top of the README and of the report.

python notebooks/_report/moving_picture.py                     the picture that is committed
python notebooks/_report/moving_picture.py "Any other text."   the same of another sentence
"""

import argparse
from pathlib import Path

import invlib
from invlib.widgets import picture
from invlib.widgets.lab.lab import frames_of
from invlib.widgets.lab.session import Session
from invlib.widgets.lab.settings import Settings

PICTURE = Path(__file__).with_name("inversion.svg")
SENTENCE = "The clinic called back about the blood test this morning."
QUERIES = 2000  # at most


def inverted(session: Session, sentence: str) -> bytes:
    """The picture of a draft, and of the search that goes on from it, as the lab's two buttons do it."""
    settings = Settings(text=sentence, max_queries=QUERIES)
    session.search(settings)
    session.wait()
    return picture.svg([{"label": "", "frames": frames_of(session)}], sentence, session.shown.vector)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw one real inversion as an animated SVG.")
    parser.add_argument("sentence", nargs="?", default=SENTENCE, help=f"default: {SENTENCE}")
    parser.add_argument("--out", type=Path, default=PICTURE, help="the .svg to write")
    args = parser.parse_args()
    session = Session(invlib.Inverter.load("minilm"))
    drawn = inverted(session, args.sentence)
    args.out.write_bytes(drawn)
    print(f"{args.out.name}  {len(drawn) / 1e3:.0f} kB  {session.outcome.text}  {session.outcome.verdict[1]}")


if __name__ == "__main__":
    main()
