"""Pairs on disk: every row's tokens and vector are of the same text, also after the power was cut."""

import gzip
import json

import numpy as np
import pandas as pd
import pytest
import torch

from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.tokenizer import Tokenizer
from invlib.training import pairs
from invlib.training.pairs import Pairs, read_texts
from invlib.training.vocabulary import prune

MAX_SEQ_LEN = 14
USABLE = [
    "the big red cat sat .",
    "the small red cat sat .",
    "a dog ran on the mat .",
    "the big dog ran .",
    "a cat sat under the dog .",
    "the mat , the red mat .",
    "find the small dog .",
    "a big cat , a small dog .",
    "the dog sat on the big mat .",
    "a red dog ran under a cat .",
]
TOO_SHORT = ["cat", "the mat ."]
TOO_LONG = ["the big red cat and the small red dog ran on the mat , under the mat , on a mat ."]
CORPUS = [TOO_SHORT[0], *USABLE[:4], *TOO_LONG, *USABLE[4:], TOO_SHORT[1]]


@pytest.fixture
def encoder(tiny_qwen3_folder) -> Encoder:
    """A fresh encoder, so that its queries count from zero."""
    return Encoder.load(tiny_qwen3_folder)


@pytest.fixture(scope="module")
def words(minilm) -> Tokenizer:
    """A tokenizer that keeps every word of the corpus whole, so that tokens can be counted by eye."""
    return prune(minilm.tokenizer, CORPUS, 2304)


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(CORPUS) + "\n")
    return path


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(pairs, "CHUNK", 4)


def texts_of(built: Pairs, tokenizer: Tokenizer) -> list[str]:
    rows = zip(built.tokens, built.lengths, strict=True)
    return [tokenizer.decode(tokens[:length]) for tokens, length in rows]


# --- the corpus


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl", "a.jsonl.gz"])
def test_a_corpus_is_read_from_every_kind_of_file(name, tmp_path):
    texts = ["A cat sat.", "Caf\u00e9 \u2014 na\u00efve \U0001f6a3."]
    lines = [json.dumps({"id": 1, "text": text}) for text in texts] if "jsonl" in name else texts
    content = "".join(line + "\n" for line in lines).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert read_texts(tmp_path / name) == texts


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "list.json", "a.parquet", "A.CSV", "a.ndjson"])
@pytest.mark.parametrize("field", ["text", "sentence"])
def test_a_table_is_read_by_its_field_of_text_and_never_as_lines(name, field, tmp_path):
    frame, path = pd.DataFrame({"label": [1, 0], field: ['A "cat", sat.', "Two\nlines."]}), tmp_path / name
    writers = {
        "csv": lambda: frame.to_csv(path, index=False),
        "tsv": lambda: frame.to_csv(path, index=False, sep="\t"),
        "json": lambda: path.write_text(
            json.dumps(frame[field].tolist() if "list" in name else frame.to_dict("records"))
        ),
        "ndjson": lambda: frame.rename(columns={field: "text"}).to_json(path, orient="records", lines=True),
        "parquet": lambda: frame.to_parquet(path),
    }
    writers[name.lower().partition(".")[2]]()
    assert read_texts(path) == frame[field].tolist()
    frame.rename(columns={field: "title"}).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(InputError, match="has no field text or sentence or content; it has label, title"):
        read_texts(tmp_path / "b.parquet")


def test_blanks_around_a_text_do_not_belong_to_it(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"  A cat.\t\r\nA dog.")
    assert read_texts(tmp_path / "a.txt") == ["A cat.", "A dog."]


@pytest.mark.parametrize(("name", "content"), [("a.txt", "A cat."), ("a.jsonl", '{"text": "A cat."}')])
def test_a_byte_order_mark_is_not_text(name, content, tmp_path):
    (tmp_path / name).write_text(content + "\n", encoding="utf-8-sig")
    assert read_texts(tmp_path / name) == ["A cat."]


def test_a_missing_corpus_is_an_error_that_says_what_is_expected(tmp_path):
    with pytest.raises(InputError, match="no corpus at .*none.txt; expected .jsonl or .txt"):
        read_texts(tmp_path / "none.txt")


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_an_empty_corpus_is_an_error(name, tmp_path):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match="is empty; expected one sentence a line"):
        read_texts(tmp_path / name)


def test_a_corpus_that_is_not_utf8_is_an_error_with_the_way_to_convert_it(tmp_path):
    (tmp_path / "a.txt").write_bytes("A cat.\nCaf\u00e9 noir.\n".encode("latin1"))
    with pytest.raises(InputError, match="could not be read .*utf-8.*iconv"):
        read_texts(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("a.txt", ["A cat.", "   ", "A dog."]),
        ("a.jsonl", ['{"text": "A cat."}', '{"text": " "}']),
        ("a.jsonl", ['{"text": "A cat."}', '{"text": 3}']),
        ("a.jsonl", ['{"text": "A cat."}', '{"text": null}']),
    ],
)
def test_a_line_without_text_is_an_error_that_names_the_line(name, lines, tmp_path):
    (tmp_path / name).write_text("\n".join(lines))
    with pytest.raises(InputError, match=f"{name} line 2 is .*visible character"):
        read_texts(tmp_path / name)


@pytest.mark.parametrize("line", ['{"sentence": "A cat."}', '["A cat."]', '"A cat."', "3", "A cat.", '{"text": ', ""])
def test_json_without_a_text_field_is_an_error_that_names_the_line(line, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "A dog."}\n' + line + "\n")
    with pytest.raises(InputError, match='a.jsonl line 2 has no "text" field'):
        read_texts(tmp_path / "a.jsonl")


def test_unreadable_lines_are_counted_and_the_first_is_named(tmp_path):
    lines = ['{"text": "A cat."}', "3", '{"text": "A dog."}', '{"text": ""}', "}"]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"a.jsonl line 2 has .*\(3 lines cannot be read, this is the first\)$"):
        read_texts(tmp_path / "a.jsonl")
    (tmp_path / "a.csv").write_text("text,source\nA cat.,x\n ,x\nA dog.,x\n  ,y\n")
    with pytest.raises(InputError, match=r"a.csv row 2 has no text.*\(2 rows cannot be read, this is the first\)$"):
        read_texts(tmp_path / "a.csv")


def damaged(content: bytes) -> bytes:
    """The same gzip file, its first block of a type that does not exist."""
    return content[:10] + b"\x07" + content[11:]


@pytest.mark.parametrize("spoil", [lambda content: content[: len(content) // 2], damaged, lambda content: b"A cat.\n"])
def test_a_gz_file_that_cannot_be_unpacked_is_an_error(spoil, tmp_path):
    content = gzip.compress("".join(f"Sentence number {n}.\n" for n in range(1000)).encode())
    (tmp_path / "a.txt.gz").write_bytes(spoil(content))
    with pytest.raises(InputError, match="a.txt.gz could not be read"):
        read_texts(tmp_path / "a.txt.gz")


# --- building


def test_every_row_holds_the_tokens_and_the_vector_of_one_text(encoder, words, corpus, tmp_path):
    built = Pairs.build(tmp_path / "pairs", corpus, encoder, words, MAX_SEQ_LEN)
    assert texts_of(built, words) == [text.replace(" .", ".").replace(" ,", ",") for text in USABLE]
    expected = encoder.encode(USABLE)
    np.testing.assert_allclose(built.embeddings, expected, rtol=2**-10, atol=1e-6)  # half a unit of fp16 is 2⁻¹¹
    closest = (np.asarray(built.embeddings, np.float32) @ expected.T).argmax(axis=1)
    assert closest.tolist() == list(range(len(USABLE)))  # no two texts share a vector, so the rows are in order


def test_rows_are_padded_on_the_right_with_0(encoder, words, corpus, tmp_path):
    built = Pairs.build(tmp_path / "pairs", corpus, encoder, words, MAX_SEQ_LEN)
    assert built.tokens.shape == (len(USABLE), MAX_SEQ_LEN)
    assert built.lengths.tolist() == [len(ids) for ids in words.encode(USABLE)]
    for tokens, length in zip(built.tokens, built.lengths, strict=True):
        assert (tokens[:length] != 0).all() and (tokens[length:] == 0).all()


def test_what_is_left_out_is_counted(encoder, words, corpus, tmp_path):
    manifest = Pairs.build(tmp_path / "pairs", corpus, encoder, words, MAX_SEQ_LEN).manifests[0]
    counts = [manifest[key] for key in ("texts", "rows", "too_short", "too_long", "encoded")]
    assert counts == [len(CORPUS), len(USABLE), len(TOO_SHORT), len(TOO_LONG), len(USABLE)]
    assert encoder.queries == len(USABLE)


def test_the_summary_tells_what_was_left_out_and_what_cannot_be_spelled(encoder, words, corpus, tmp_path):
    built = Pairs.build(tmp_path / "pairs", corpus, encoder, words, MAX_SEQ_LEN)
    ids = [i for row in words.encode(CORPUS) for i in row]
    share = ids.count(words.unk_token_id) / len(ids)
    assert built.manifests[0]["unknown_share"] == pytest.approx(share)
    assert built.summary.startswith(f"{len(USABLE)} of {len(CORPUS)} texts are used; left out: {len(TOO_SHORT)} of")
    assert f"{len(TOO_LONG)} of more than {MAX_SEQ_LEN}, 0 mostly of unknown" in built.summary
    assert f"; {share:.1%} of the tokens" in built.summary


def test_a_script_that_the_vocabulary_cannot_spell_shows_as_a_share(encoder, words, tmp_path):
    unspelled = "\U00010330 \U00010331 \U00010332 \U00010333 \U00010334\n"
    (tmp_path / "corpus.txt").write_text(unspelled + "the red , .\n", encoding="utf-8")
    built = Pairs.build(tmp_path / "pairs", tmp_path / "corpus.txt", encoder, words, MAX_SEQ_LEN)
    assert len(built) == 1, "nothing of the other would be left to compare with"
    assert built.summary.endswith("1 mostly of unknown characters; 55.6% of the tokens cannot be spelled")
    (tmp_path / "none.txt").write_text(unspelled, encoding="utf-8")
    with pytest.raises(InputError, match="none of the 1 texts has 4 to .* tokens that the encoder can spell"):
        Pairs.build(tmp_path / "other", tmp_path / "none.txt", encoder, words, MAX_SEQ_LEN)


def test_a_length_of_exactly_the_least_and_the_most_is_kept(encoder, words, tmp_path):
    (tmp_path / "a.txt").write_text("the red ,\nthe red , .\nthe red , . .\nthe red , . . .\n")
    built = Pairs.build(tmp_path / "pairs", tmp_path / "a.txt", encoder, words, max_seq_len=5)
    assert built.lengths.tolist() == [4, 5]


def test_the_arrays_cannot_be_written_to(encoder, words, corpus, tmp_path):
    built = Pairs.build(tmp_path / "pairs", corpus, encoder, words, MAX_SEQ_LEN)
    for array in (built.tokens, built.lengths, built.embeddings):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_an_interrupted_build_goes_on_where_it_stopped(
    encoder, tiny_qwen3_folder, words, corpus, tmp_path, monkeypatch, small_chunks
):
    encode, calls = encoder.encode, []

    def fails_at_the_third_call(texts, **options):
        calls.append(len(texts))
        if len(calls) == 3:
            raise OSError("power cut")
        return encode(texts, **options)

    monkeypatch.setattr(encoder, "encode", fails_at_the_third_call)
    with pytest.raises(OSError, match="power cut"):
        Pairs.build(tmp_path / "pairs", corpus, encoder, words, MAX_SEQ_LEN)
    assert calls == [4, 4, 2]
    with pytest.raises(InputError, match="holds 8 of 10 embeddings; run the same build again"):
        Pairs(tmp_path / "pairs")

    fresh = Encoder.load(tiny_qwen3_folder)
    resumed = Pairs.build(tmp_path / "pairs", corpus, fresh, words, MAX_SEQ_LEN)
    assert fresh.queries == 2
    whole = Pairs.build(tmp_path / "whole", corpus, fresh, words, MAX_SEQ_LEN)
    assert resumed.manifests[0] == whole.manifests[0]
    for name in ("tokens", "lengths", "embeddings"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))


def test_a_finished_build_is_opened_without_a_query(encoder, tiny_qwen3_folder, words, corpus, tmp_path):
    Pairs.build(tmp_path / "pairs", corpus, encoder, words, MAX_SEQ_LEN)
    fresh = Encoder.load(tiny_qwen3_folder)
    again = Pairs.build(tmp_path / "pairs", corpus, fresh, words, MAX_SEQ_LEN)
    assert fresh.queries == 0 and len(again) == len(USABLE)


def test_the_identity_is_what_made_the_pairs_and_not_how_many(encoder, words, corpus, tmp_path):
    identity = Pairs.build(tmp_path / "pairs", corpus, encoder, words, MAX_SEQ_LEN).identities[0]
    made_from = ("corpus_sha256", "encoder", "embed_dim", "prompt", "encoder_dtype", "tokenizer_sha256", "max_seq_len")
    assert set(identity) == set(made_from)
    assert (identity["embed_dim"], identity["encoder_dtype"]) == (32, "float32")


@pytest.mark.parametrize(
    ("difference", "options"),
    [
        ("embed_dim", {"dim": 8}),
        ("prompt", {"prompt": "query"}),
        ("encoder_dtype", {"dtype": torch.bfloat16}),
    ],
)
def test_pairs_of_another_encoder_are_refused(difference, options, encoder, tiny_qwen3_folder, words, corpus, tmp_path):
    Pairs.build(tmp_path / "pairs", corpus, encoder, words, MAX_SEQ_LEN)
    other = Encoder.load(tiny_qwen3_folder, **options)
    with pytest.raises(InputError, match=f"was built with {difference} = .*choose another data_dir"):
        Pairs.build(tmp_path / "pairs", corpus, other, words, MAX_SEQ_LEN)
    assert other.queries == 0


def test_pairs_of_an_encoder_of_another_name_are_refused(encoder, words, corpus, tmp_path):
    Pairs.build(tmp_path / "pairs", corpus, encoder, words, MAX_SEQ_LEN)
    with pytest.raises(InputError, match="was built with encoder = .*this run has 'other'"):
        Pairs.build(tmp_path / "pairs", corpus, Encoder(encoder.model, name="other"), words, MAX_SEQ_LEN)


def test_pairs_of_another_corpus_are_refused(encoder, words, corpus, tmp_path):
    Pairs.build(tmp_path / "pairs", corpus, encoder, words, MAX_SEQ_LEN)
    corpus.write_text("\n".join(CORPUS[::-1]) + "\n")
    with pytest.raises(InputError, match="was built with corpus_sha256 = "):
        Pairs.build(tmp_path / "pairs", corpus, encoder, words, MAX_SEQ_LEN)


def test_pairs_of_another_tokenizer_or_length_are_refused(encoder, words, pruned, corpus, tmp_path):
    Pairs.build(tmp_path / "pairs", corpus, encoder, words, MAX_SEQ_LEN)
    with pytest.raises(InputError, match="was built with tokenizer_sha256 = "):
        Pairs.build(tmp_path / "pairs", corpus, encoder, pruned, MAX_SEQ_LEN)
    with pytest.raises(InputError, match=f"was built with max_seq_len = {MAX_SEQ_LEN}, this run has 9"):
        Pairs.build(tmp_path / "pairs", corpus, encoder, words, 9)


def test_the_same_corpus_under_another_name_is_the_same_corpus(encoder, words, corpus, tmp_path):
    Pairs.build(tmp_path / "pairs", corpus, encoder, words, MAX_SEQ_LEN)
    moved = corpus.rename(tmp_path / "renamed.txt")
    assert len(Pairs.build(tmp_path / "pairs", moved, encoder, words, MAX_SEQ_LEN)) == len(USABLE)


def test_a_corpus_without_a_usable_sentence_is_an_error(encoder, words, tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(TOO_SHORT + TOO_LONG))
    with pytest.raises(InputError, match=f"none of the 3 texts has 4 to {MAX_SEQ_LEN} tokens"):
        Pairs.build(tmp_path / "pairs", tmp_path / "a.txt", encoder, words, MAX_SEQ_LEN)


def test_a_folder_without_pairs_is_an_error_that_says_how_to_build_them(tmp_path):
    with pytest.raises(InputError, match="no pairs at .*invlib.training"):
        Pairs(tmp_path)


def test_a_full_disk_is_an_error_before_anything_is_written(encoder, words, corpus, tmp_path, monkeypatch):
    total, used, free = 10**9, 10**9 - 10, 10
    monkeypatch.setattr(pairs.shutil, "disk_usage", lambda folder: pairs.shutil._ntuple_diskusage(total, used, free))
    with pytest.raises(InputError, match="its disk has 0 MB left"):
        Pairs.build(tmp_path / "pairs", corpus, encoder, words, MAX_SEQ_LEN)
    assert not any((tmp_path / "pairs").iterdir())
    monkeypatch.undo()
    assert len(Pairs.build(tmp_path / "pairs", corpus, encoder, words, MAX_SEQ_LEN)) == len(USABLE)


def test_several_corpora_are_read_as_one_and_every_row_keeps_its_source(encoder, words, tmp_path):
    texts = {"a": CORPUS, "b": [*reversed(CORPUS)]}
    for name, lines in texts.items():
        rows = [{"text": text, "source": f"{name}/{k % 2}"} for k, text in enumerate(lines)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    both = Pairs.build_all(tmp_path, "train", [tmp_path / "a.jsonl", tmp_path / "b.jsonl"], encoder, words, MAX_SEQ_LEN)
    first, second = Pairs(tmp_path / "train"), Pairs(tmp_path / "train-2")
    assert len(both) == len(first) + len(second)
    rows = np.array([len(first), 0, len(both) - 1, 0])
    for name in ("tokens", "embeddings"):
        whole = np.concatenate([getattr(first, name), getattr(second, name)])
        np.testing.assert_array_equal(getattr(both, name)[rows], whole[rows])
    np.testing.assert_array_equal(both.lengths, np.concatenate([first.lengths, second.lengths]))
    own = [both.source_names[k] for k in both.sources]
    assert {name[0] for name in own[: len(first)]} == {"a"}
    assert {name[0] for name in own[len(first) :]} == {"b"}
