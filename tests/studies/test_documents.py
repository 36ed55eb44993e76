"""Documents: every table is that of the files, and a mark that names none is refused."""

import json

import pandas as pd
import pytest

from invlib.errors import InputError
from invlib.studies.__main__ import main
from invlib.studies.documents import BLOCKS, filled

METRICS = ("token_f1", "bleu", "exact_match", "cosine", "seconds")


@pytest.fixture
def folder(tmp_path):
    """A checkpoint's folder with the files that the tables are made of, every value another."""
    rows = [
        {"text": text, "metric": metric, "value": n + place / 8, "low": n, "high": n + 1.0, "n": 2000 - n}
        for n, text in enumerate(("test", "test2"))
        for place, metric in enumerate(METRICS)
    ]
    scored = [row | {"attacker": attacker} for row in rows for attacker in ("inverted", "prior")]
    grouped = [row | {"group": group} for row in rows for group in ("4–8 tokens", "9–12 tokens")]
    results = {"num_steps": 8, "scores": scored, "by_length": grouped, "by_source": grouped}
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    searched = [
        row | {"group": group, "queries": q} for row in rows for group in ("all", "4–8 tokens") for q in (1, 300)
    ]
    pd.DataFrame(searched).to_csv(tmp_path / "search.csv", index=False)
    log = {"step": [1, 2000], "samples": [5, 1024000], "token_f1": [None, 0.5], "exact_match": [None, 0.1234]}
    pd.DataFrame(log | {"length_right": 0.25}).to_csv(tmp_path / "log.csv", index=False)
    return tmp_path


def document(name: str) -> str:
    return f"before\n<!-- {name} -->\nold\n<!-- /{name} -->\nbehind\n"


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_written_between_its_marks_and_again_the_same(folder, name):
    text = filled(document(name), folder)
    assert text.startswith(f"before\n<!-- {name} -->\n") and text.endswith(f"\n<!-- /{name} -->\nbehind\n")
    assert "\nold\n" not in text and ("|---|" in text or "\n- " in text)
    assert filled(text, folder) == text
    assert filled(document(name).replace("old\n", ""), folder) == text, "nothing may have stood there before"


def test_both_texts_stand_side_by_side_with_their_counts(folder):
    text = filled(document("scores"), folder)
    assert "2,000 sentences of test and 1,999 sentences of test2, 8 encoder-free steps from 100 % masks" in text
    first, second = [line for line in text.splitlines() if line.startswith("| bleu ")]
    assert first.startswith("| bleu | test | 0.1 (0.0–1.0)") and second.startswith("| bleu | test2 | 1.1 (1.0–2.0)")


def test_the_search_is_told_as_a_whole_and_by_length_at_its_end(folder):
    whole, by_length = (filled(document(name), folder) for name in ("search", "search by length"))
    assert "| test | 1 | 2000 |" in whole and "tokens" not in whole
    assert by_length.count("4–8 tokens") == 2 and "all" not in by_length
    assert "| 2,000 | 1,024,000 | 0.500 | 12.3 % | 25 % |" in filled(document("learning curve"), folder)


def test_the_command_writes_documents_in_their_place(folder, capsys):
    for name in ("model.safetensors", "config.yaml"):
        (folder / name).touch()
    path = folder / "README.md"
    path.write_text(document("scores"), encoding="utf-8")
    assert main(["documents", "--out", str(path), "--checkpoint", str(folder)]) == 0
    assert path.read_text(encoding="utf-8") == filled(document("scores"), folder)
    (folder / "results.json").write_text("{")
    assert main(["documents", "--out", str(path), "--checkpoint", str(folder)]) == 2
    assert "run: python -m invlib.studies score" in capsys.readouterr().err


def test_a_mark_that_names_no_table_is_refused(folder):
    with pytest.raises(InputError, match="no table is called 'scorse'; there are scores"):
        filled(document("scorse"), folder)
