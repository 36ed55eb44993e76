"""Leaks: what counts as found, by hand; and the records that the project brings."""

import doctest
import itertools
import re
from collections import Counter
from pathlib import Path

import pytest
from rapidfuzz.distance import Levenshtein

from invlib.errors import InputError
from invlib.metrics import share_interval, words
from invlib.studies import leaks
from invlib.studies.leaks import KINDS, Record, Secret
from invlib.tokenizer import Tokenizer

DATA = Path(__file__).resolve().parents[2] / "data"
RECORDS = [
    Record("Ana Brown rang from 555-0114.", (Secret("name", "Ana Brown"), Secret("phone", "555-0114"))),
    Record("Write to Ivo at ivo@example.org.", (Secret("name", "Ivo"), Secret("email", "ivo@example.org"))),
    Record("Paid 12 on 3 May.", (Secret("number", "12"), Secret("date", "3 May"))),
]


@pytest.fixture(scope="module")
def project() -> list[Record]:
    return leaks.read_records(DATA / "records" / "records.jsonl")


# --- what counts as found


@pytest.mark.parametrize(
    ("text", "value", "found"),
    [
        ("ana brown rang", "Ana Brown", True),
        ("brown ana rang", "Ana Brown", False),  # the order is part of a name
        ("ana maria brown", "Ana Brown", False),
        ("call 555 - 0114 now", "555-0114", True),  # the decoder sets blanks round a dash
        ("call 555-01145", "555-0114", False),
        ("room 120", "12", False),
        ("room 12.", "12", True),
        ("ivo @ example. org", "ivo@example.org", True),
        ("jose garc\u00eda", "Jos\u00e9 Garcia", True),
        ("", "Ana", False),
        ("ana", "Ana Brown", False),
    ],
)
def test_a_secret_is_found_as_a_run_of_whole_words(text, value, found):
    assert (leaks.similarity(text, value) == 1) is found


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("so ana brown rang", "Ana Brown", 1.0),
        ("so anna brown rang", "Ana Brown", 1 - 1 / 10),
        ("so anabrown rang", "Ana Brown", 1 - 1 / 9),  # one word fewer than the secret
        ("so ann a brown rang", "Anna Brown", 1 - 1 / 11),  # one more
        ("xyz", "abc", 0.0),
        ("", "abc", 0.0),
        ("ab", "ab cd ef", 1 - 6 / 8),  # a text shorter than the secret
    ],
)
def test_the_similarity_is_that_of_the_nearest_run_of_words(text, value, expected):
    assert leaks.similarity(text, value) == pytest.approx(expected)


def test_the_similarity_is_what_a_slow_search_over_all_runs_finds(project):
    texts = [record.text for record in project[1:41]]
    for record, text in zip(project[:40], texts, strict=True):
        given = words(text)
        for secret in record.secrets:
            wanted = words(secret.value)
            runs = [given[i:j] for i, j in itertools.combinations(range(len(given) + 1), 2)]
            near = [run for run in runs if abs(len(run) - len(wanted)) <= 1]
            slow = max(
                1 - Levenshtein.distance(a, b) / max(len(a), len(b))
                for a, b in ((" ".join(wanted), " ".join(run)) for run in near)
            )
            assert leaks.similarity(text, secret.value) == pytest.approx(slow)


def test_the_examples_in_the_documentation_are_true():
    assert doctest.testmod(leaks).failed == 0 < doctest.testmod(leaks).attempted


# --- how many leaked


def test_the_secrets_of_each_kind_are_counted_with_wilsons_interval():
    texts = ["anna brown rang from 555-0114 .", "write to ivo at iva @ example . net", "paid twelve on 3 may"]
    card = leaks.leaked(RECORDS, texts).set_index(["kind", "metric"])
    exact = {kind: row["value"] for (kind, metric), row in card.iterrows() if metric == "exact"}
    near = {kind: row["value"] for (kind, metric), row in card.iterrows() if metric == "near"}
    assert exact == {"name": 1 / 2, "phone": 1, "email": 0, "number": 0, "date": 1, "all": 3 / 6}
    assert near == {"name": 1, "phone": 1, "email": 0, "number": 0, "date": 1, "all": 4 / 6}
    assert card.loc[("all", "exact"), "n"] == 6 and card.loc[("name", "near"), "n"] == 2
    wilson = share_interval([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    assert tuple(card.loc[("all", "exact"), ["value", "low", "high"]]) == pytest.approx(wilson)
    assert 0 < wilson[1] < 0.5 < wilson[2] < 1


def test_each_secret_has_a_row_with_what_was_found_of_it():
    found = leaks.find_secrets(RECORDS, ["anna brown rang from 555-0114 .", "", "paid 12 on 3 may"])
    assert found["record"].tolist() == [0, 0, 1, 1, 2, 2]
    assert found["value"].tolist() == ["Ana Brown", "555-0114", "Ivo", "ivo@example.org", "12", "3 May"]
    assert found["exact"].tolist() == [0, 1, 0, 0, 1, 1]
    assert found["near"].tolist() == [1, 1, 0, 0, 1, 1]
    assert found["similarity"].tolist() == pytest.approx([0.9, 1, 0, 0, 1, 1])


def test_near_begins_at_four_fifths():
    record = [Record("Abcde left.", (Secret("canary", "Abcde"),))]
    assert leaks.find_secrets(record, ["abcdx left"])["near"].tolist() == [1]  # 1 - 1/5
    assert leaks.find_secrets(record, ["abcxy left"])["near"].tolist() == [0]


def test_the_records_themselves_leak_everything_and_other_records_next_to_nothing(project):
    card = leaks.leaked(project, [record.text for record in project])
    assert (card["value"] == 1).all()
    others = [record.text for record in project[1:] + project[:1]]
    card = leaks.leaked(project, others).set_index(["kind", "metric"])
    assert card.loc[("all", "exact"), "value"] < 0.02
    assert card.loc[("canary", "near"), "value"] == 0


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(InputError, match="3 records but 1 texts"):
        leaks.leaked(RECORDS, ["a"])
    with pytest.raises(InputError, match="hold no secret"):
        leaks.leaked([Record("a", ())], ["a"])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("not json", "line 2 is not of the form"),
        ('{"text": "a b"}', "line 2 is not of the form"),
        ('["a"]', "line 2 is not of the form"),
        ('{"text": 5, "secrets": []}', "line 2 is not of the form"),
        ('{"text": "a 3", "secrets": [{"kind": "number", "value": 3}]}', "line 2 is not of the form"),
        ('{"text": "a b", "secrets": [{"kind": "colour", "value": "a"}]}', "line 2 has a secret of kind 'colour'"),
        ('{"text": "a b", "secrets": [{"kind": "name", "value": "c"}]}', "line 2: the secret 'c' does not stand in"),
        ('{"text": "a b", "secrets": [{"kind": "name", "value": ""}]}', "line 2: the secret '' does not stand in"),
    ],
)
def test_a_line_that_is_no_record_is_refused_with_its_number(line, said, tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"text": "a b", "secrets": [{"kind": "name", "value": "b"}]}\n' + line + "\n")
    with pytest.raises(InputError, match=said):
        leaks.read_records(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no records .*data/records/records\.jsonl"):
        leaks.read_records(tmp_path / "none.jsonl")


# --- the records that the project brings


def test_the_records_are_many_distinct_and_short(project):
    texts = [record.text for record in project]
    assert len(texts) >= 200 and len({" ".join(words(text)) for text in texts}) == len(texts)
    assert all(6 <= len(text.split()) <= 25 for text in texts)
    tokenizer = Tokenizer.load(DATA / "checkpoints" / "minilm")
    assert max(len(ids) for ids in tokenizer.encode(texts)) <= 32


def test_every_secret_stands_literally_and_once_in_its_text_and_every_kind_is_well_represented(project):
    counts = Counter()
    for record in project:
        assert record.secrets
        for secret in record.secrets:
            assert record.text.count(secret.value) == 1, record
            counts[secret.kind] += 1
    assert set(counts) == set(KINDS) and min(counts.values()) >= 30
    data_card = (DATA / "README.md").read_text(encoding="utf-8")
    assert all(f"| `{kind}` | {count} |" in data_card for kind, count in counts.items())


def test_contact_data_are_of_ranges_that_reach_nobody(project):
    # 555-01xx: reserved for fiction by the North American plan; 01632 960xxx and 07700 900xxx: by Ofcom.
    phone = re.compile(r"555-01\d\d|01632 960\d\d\d|07700 900\d\d\d")
    email = re.compile(r"[\w.]+@example\.(com|org|net)")  # RFC 2606
    for record in project:
        for secret in record.secrets:
            pattern = {"phone": phone, "email": email}.get(secret.kind)
            assert pattern is None or pattern.fullmatch(secret.value), secret
        # And none that is not annotated.
        assert len(phone.findall(record.text)) == sum(secret.kind == "phone" for secret in record.secrets)
        assert record.text.count("@") == sum(secret.kind == "email" for secret in record.secrets)


def test_records_of_other_tools_are_read_or_told_in_one_line(tmp_path):
    line = '{"text": "call 555", "secrets": [{"kind": "number", "value": "555"}]}'
    path = tmp_path / "r.jsonl"
    path.write_text(line + "\r\n\n", encoding="utf-8-sig")
    assert [record.text for record in leaks.read_records(path)] == ["call 555"]
    path.write_bytes('{"text": "café", "secrets": []}'.encode("latin-1"))
    with pytest.raises(InputError, match="codec can't decode byte"):
        leaks.read_records(path)
