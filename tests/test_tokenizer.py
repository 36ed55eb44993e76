"""The decoder's tokenizer: small enough to train, and no character that the encoder reads is lost."""

import pytest
from transformers import AutoTokenizer

from invlib.errors import InputError
from invlib.tokenizer import SPECIAL_PIECES, Tokenizer, tidy_spacing
from invlib.training.vocabulary import prune


def single_characters(vocab: dict) -> set[str]:
    return {piece for piece in vocab if len(piece.removeprefix("##")) == 1}


def test_special_pieces_come_first_and_mask_is_4(pruned):
    assert pruned.pieces(range(5)) == list(SPECIAL_PIECES) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert pruned.mask_token_id == 4


def test_pruning_gives_the_size_that_was_asked_for(pruned):
    assert pruned.vocab_size == 2304
    assert len(set(pruned.pieces(range(2304)))) == 2304


def test_every_single_character_of_the_encoder_is_kept(pruned, minilm):
    characters = single_characters(minilm.tokenizer.get_vocab())
    assert len(characters) > 1000
    assert characters <= set(pruned.backend.get_vocab())


def test_the_words_of_the_corpus_are_kept_whole(pruned, minilm, sentences):
    full = [minilm.tokenizer.tokenize(text) for text in sentences]
    assert [pruned.pieces(ids) for ids in pruned.encode(sentences)] == full


def test_frequent_pieces_win_over_rare_ones(minilm):
    smallest = 5 + len(single_characters(minilm.tokenizer.get_vocab()))
    tokenizer = prune(minilm.tokenizer, ["boat boat boat lake lake moon"], smallest + 2)
    kept = {"boat", "lake", "moon"} & set(tokenizer.backend.get_vocab())
    assert kept == {"boat", "lake"}


def test_pruning_the_same_corpus_again_gives_the_same_vocabulary(pruned, minilm, sentences):
    again = prune(minilm.tokenizer, iter(sentences), 2304)
    assert again.backend.get_vocab() == pruned.backend.get_vocab()


def test_pruning_leaves_the_encoders_own_tokenizer_alone(pruned, minilm):
    assert minilm.tokenizer.vocab_size == 30522
    assert minilm.tokenizer.mask_token_id == 103


@pytest.mark.parametrize("word", ["unfathomable", "zeppelin", "hexagonal"])
def test_a_rare_word_falls_apart_and_is_put_together_again(word, pruned):
    (ids,) = pruned.encode([word])
    assert len(ids) > 1
    assert all(piece.startswith("##") for piece in pruned.pieces(ids)[1:])
    assert pruned.decode(ids) == word


def test_a_text_is_its_content_only(pruned):
    (ids,) = pruned.encode(["The quiet lake."])
    assert pruned.pieces(ids) == ["the", "quiet", "lake", "."]


def test_special_pieces_are_not_read_aloud(pruned):
    (ids,) = pruned.encode(["the quiet lake"])
    assert pruned.decode([2, *ids, 4, 3, 0, 0]) == "the quiet lake"


def test_a_long_text_is_neither_cut_nor_padded(pruned):
    short, long = pruned.encode(["a lake", "a lake " * 400])
    assert (len(short), len(long)) == (2, 800)


def test_a_vocabulary_too_small_for_the_characters_is_an_error_that_names_the_least(minilm, sentences):
    smallest = 5 + len(single_characters(minilm.tokenizer.get_vocab()))
    with pytest.raises(InputError, match=f"vocab_size 100 does not fit: {smallest} special .* choose"):
        prune(minilm.tokenizer, sentences, 100)
    assert prune(minilm.tokenizer, sentences, smallest).vocab_size == smallest


def test_the_largest_vocabulary_is_all_of_latin_script_and_spells_as_the_encoder_does(minilm, sentences):
    with pytest.raises(InputError, match="of Latin script there are 29513; choose"):
        prune(minilm.tokenizer, sentences, 30522)
    whole = prune(minilm.tokenizer, sentences, 29513)
    left_out = minilm.tokenizer.get_vocab().keys() - whole.backend.get_vocab().keys()
    assert sum(piece.startswith("[unused") for piece in left_out) == 994
    assert not any(piece.isascii() for piece in left_out if not piece.startswith("[unused"))
    for text in ("Kubernetes ingress controllers", "a naïve café in Ayacucho", "12306 pebronstein"):
        assert whole.pieces(whole.encode([text])[0]) == minilm.tokenizer.tokenize(text)


def test_only_a_wordpiece_can_be_pruned(tiny_qwen3_folder, sentences):
    word_level = AutoTokenizer.from_pretrained(tiny_qwen3_folder)
    with pytest.raises(InputError, match="only a WordPiece vocabulary can be pruned, this is WordLevel"):
        prune(word_level, sentences, 3000)


@pytest.mark.parametrize("by", ["file", "folder", "text"])
def test_a_saved_tokenizer_gives_the_same_ids(by, pruned, sentences, tmp_path):
    file = tmp_path / "tokenizer.json"
    pruned.save(file)
    loaded = Tokenizer.load({"file": file, "folder": tmp_path, "text": str(file)}[by])
    assert loaded.encode(sentences) == pruned.encode(sentences)
    assert [loaded.decode(ids) for ids in loaded.encode(sentences)] == [text.lower() for text in sentences]
    assert (loaded.vocab_size, loaded.mask_token_id) == (2304, 4)


def test_another_kind_of_tokenizer_is_taken_as_it_is(tiny_qwen3_folder):
    tokenizer = Tokenizer.load(tiny_qwen3_folder)
    (ids,) = tokenizer.encode(["the cat sat ."])
    assert tokenizer.pieces(ids) == ["the", "cat", "sat", "."]
    assert tokenizer.mask_token_id is None


@pytest.mark.parametrize("name", ["none.json", "nobody/no-such-tokenizer"])
def test_a_tokenizer_that_does_not_exist_is_one_clear_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"the tokenizer '{name}' could not be opened .*tokenizer.json") as caught:
        Tokenizer.load(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("contents", ["", "{", "{}", "not JSON", '{"model": {"type": "WordPiece"}}'])
def test_a_file_that_is_no_tokenizer_is_an_error(contents, tmp_path):
    file = tmp_path / "tokenizer.json"
    file.write_text(contents)
    with pytest.raises(InputError, match="tokenizer.json is no tokenizer"):
        Tokenizer.load(file)


@pytest.mark.parametrize(
    ("spaced", "tidy"),
    [
        ("it ' s a well - known , old song .", "it's a well-known, old song."),
        ("i ' m sure you ' re right , we ' ve won", "i'm sure you're right, we've won"),
        ("don ' t , won ' t , she ' ll , he ' d", "don't, won't, she'll, he'd"),
        ("it ’ s", "it’s"),
        ("state - of - the - art", "state-of-the-art"),
        ("1 , 234 . 56 at 10 : 30", "1,234.56 at 10:30"),
        ("2 , 3 and 4", "2, 3 and 4"),
        ("in 1990 , many left", "in 1990, many left"),
        ("really ? yes ! well ; so : there", "really? yes! well; so: there"),
        ("( one ) [ two ]", "(one) [two]"),
        ("$ 5 , 50 % , # 1", "$5, 50%, #1"),
        ('he said " stop " twice', 'he said "stop" twice'),
        ('" a " and " b "', '"a" and "b"'),
        ("plain words", "plain words"),
        ("", ""),
    ],
)
def test_spacing_is_as_people_write_it(spaced, tidy):
    assert tidy_spacing(spaced) == tidy


@pytest.mark.parametrize(
    "text",
    [
        "It's a well-known, old song.",
        "Don't, won't; I've, we'll, you're and I'm.",
        "The keeper's dog isn't Anna's.",
        'He said "no" twice.',
        '"Stop!" she said.',
        '"Here" and "there" are words.',
        "State-of-the-art e-mail",
        "It cost 1,234.56 at 10:30, not $3.99!",
        "1,234,567 people",
        "Version 1.2.3 is 50% off.",
        "One, two, 3, 4 and 5.",
        "He (or she) left [twice].",
        "(Really?) Yes!",
        "Is it #1 & co.?",
        "It\u2019s late.",
        "wait... what",
    ],
)
def test_what_goes_in_comes_out_in_lower_case(text, pruned):
    (ids,) = pruned.encode([text])
    assert pruned.decode(ids) == text.lower()


def test_accents_are_lost_as_they_are_to_the_encoder(pruned):
    (ids,) = pruned.encode(["Na\u00efve caf\u00e9"])
    assert pruned.decode(ids) == "naive cafe"


def test_the_characters_of_a_special_piece_in_a_text_are_characters(pruned):
    ids = pruned.encode(["a [MASK] here"])[0]
    assert pruned.mask_token_id not in ids
    assert pruned.decode(ids).replace(" ", "") == "a[mask]here"
