"""A trajectory knows what was seen at every step, and can be put away and taken out again."""

import dataclasses

import numpy as np
import pytest
import torch

from invlib.errors import InputError
from invlib.trajectory import Step, Trajectory

M = 4  # [MASK]
NAN = float("nan")
VOCAB = {0: "[PAD]", 4: "[MASK]", 5: "the", 6: "cat", 7: "sat", 8: "caf\u00e9", 9: "##s"}
# Row 1 of a batch of two, three positions and one of padding. "the" is taken back in step 2 and comes again in step 3.
TOKENS = [[M, M, M, 0], [5, 6, M, 0], [M, 6, M, 0], [5, 6, 7, 0]]
CONFIDENCE = [[NAN, NAN, NAN, NAN], [0.9, 0.8, NAN, NAN], [NAN, 0.8, NAN, NAN], [0.7, 0.8, 0.6, NAN]]
TOP_IDS = [
    [[-1, -1], [-1, -1], [-1, -1], [-1, -1]],
    [[5, 8], [6, 7], [7, 9], [-1, -1]],
    [[-1, -1], [-1, -1], [7, 6], [-1, -1]],
    [[5, 6], [-1, -1], [7, -1], [-1, -1]],
]


def step(index: int) -> Step:
    def batch(row_1: list, filler) -> torch.Tensor:
        row = torch.tensor(row_1)
        return torch.stack([torch.full_like(row, filler), row])

    top_ids = batch(TOP_IDS[index], 0)
    before, now = torch.tensor(TOKENS[max(index - 1, 0)]), torch.tensor(TOKENS[index])
    return Step(
        index=index,
        num_steps=3,
        tokens=batch(TOKENS[index], 0),
        uncovered=torch.stack([torch.zeros(4, dtype=torch.bool), (before == M) & (now != M)]),
        confidence=batch(CONFIDENCE[index], 0.0),
        top_ids=top_ids,
        top_probs=torch.where(top_ids >= 0, 0.25 + top_ids / 64, 0.0),
        model_calls=torch.tensor([index, index]),
    )


@pytest.fixture
def trajectory() -> Trajectory:
    return Trajectory.from_steps(
        [step(index) for index in range(4)],
        row=1,
        length=3,
        mask_token_id=M,
        pieces=lambda ids: [VOCAB[i] for i in ids],
        text="the cat sat",
    )


def test_a_trajectory_has_a_row_for_every_step_and_a_column_for_every_position(trajectory):
    assert trajectory.num_steps == 3
    assert len(trajectory) == 3
    assert trajectory.tokens.tolist() == [row[:3] for row in TOKENS]
    np.testing.assert_allclose(trajectory.confidence, np.array(CONFIDENCE)[:, :3])
    assert trajectory.top_ids.tolist() == [row[:3] for row in TOP_IDS]
    assert trajectory.text == "the cat sat"


def test_words_are_what_a_person_sees(trajectory):
    assert [trajectory.words(step) for step in range(4)] == [
        ["[MASK]", "[MASK]", "[MASK]"],
        ["the", "cat", "[MASK]"],
        ["[MASK]", "cat", "[MASK]"],
        ["the", "cat", "sat"],
    ]


def test_masked_is_where_the_text_is_hidden(trajectory):
    assert trajectory.masked.tolist() == [[token == M for token in row[:3]] for row in TOKENS]


def test_a_position_was_uncovered_when_it_became_visible_for_the_last_time(trajectory):
    assert trajectory.uncovered_at.tolist() == [3, 1, 3]


def test_alternatives_are_the_likeliest_pieces_of_that_step(trajectory):
    assert trajectory.alternatives(1, 0) == [("the", 0.25 + 5 / 64), ("caf\u00e9", 0.25 + 8 / 64)]
    assert trajectory.alternatives(1, 2) == [("sat", 0.25 + 7 / 64), ("##s", 0.25 + 9 / 64)]


def test_there_are_no_alternatives_where_the_model_was_not_asked(trajectory):
    assert trajectory.alternatives(0, 0) == []
    assert trajectory.alternatives(2, 1) == []
    assert trajectory.alternatives(3, 2) == [("sat", 0.25 + 7 / 64)]  # one place of two is empty


def test_it_carries_the_pieces_it_shows_and_no_others(trajectory):
    assert trajectory.pieces == {i: VOCAB[i] for i in (4, 5, 6, 7, 8, 9)}


def test_what_is_saved_is_loaded_equal(trajectory, tmp_path):
    trajectory.save(tmp_path / "one.npz")
    loaded = Trajectory.load(tmp_path / "one.npz")
    for field in dataclasses.fields(Trajectory):
        before, after = getattr(trajectory, field.name), getattr(loaded, field.name)
        assert type(before) is type(after)
        np.testing.assert_equal(after, before)  # takes NaN for equal, goes into dictionaries
        if isinstance(before, np.ndarray):
            assert before.dtype == after.dtype
    assert loaded.words(3) == trajectory.words(3)


def test_the_file_name_is_used_as_it_is(trajectory, tmp_path):
    trajectory.save(tmp_path / "no_suffix")
    assert [path.name for path in tmp_path.iterdir()] == ["no_suffix"]


def test_a_saved_trajectory_holds_no_pickled_object(trajectory, tmp_path):
    trajectory.save(tmp_path / "one.npz")
    with np.load(tmp_path / "one.npz", allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(InputError, match="none.npz is not a saved trajectory .*Trajectory.save"):
        Trajectory.load(tmp_path / "none.npz")


@pytest.mark.parametrize("contents", [b"", b"just text", b"PK\x03\x04 and no more"])
def test_a_file_of_something_else_is_an_error(contents, tmp_path):
    (tmp_path / "other.npz").write_bytes(contents)
    with pytest.raises(InputError, match="is not a saved trajectory"):
        Trajectory.load(tmp_path / "other.npz")


def test_other_arrays_are_an_error(tmp_path):
    np.savez(tmp_path / "other.npz", tokens=np.zeros(3))
    np.save(tmp_path / "other.npy", np.zeros(3))
    for name in ("other.npz", "other.npy"):
        with pytest.raises(InputError, match=f"{name} is not a saved trajectory"):
            Trajectory.load(tmp_path / name)


@pytest.mark.parametrize("missing", ["text", "tokens", "piece_ids", "mask_token_id"])
def test_a_trajectory_that_lacks_a_part_is_an_error(missing, trajectory, tmp_path):
    trajectory.save(tmp_path / "one.npz")
    with np.load(tmp_path / "one.npz") as file:
        rest = {name: file[name] for name in file.files if name != missing}
    np.savez(tmp_path / "part.npz", **rest)
    with pytest.raises(InputError, match="part.npz is not a saved trajectory"):
        Trajectory.load(tmp_path / "part.npz")


def test_a_truncated_file_is_an_error(trajectory, tmp_path):
    trajectory.save(tmp_path / "one.npz")
    contents = (tmp_path / "one.npz").read_bytes()
    for length in (10, len(contents) // 2, len(contents) - 5):
        (tmp_path / "cut.npz").write_bytes(contents[:length])
        with pytest.raises(InputError, match="is not a saved trajectory"):
            Trajectory.load(tmp_path / "cut.npz")


def test_a_damaged_file_is_an_error_or_still_the_same(trajectory, tmp_path):
    trajectory.save(tmp_path / "one.npz")
    contents = (tmp_path / "one.npz").read_bytes()
    refused = 0
    for position in range(0, len(contents), 7):
        spoilt = bytearray(contents)
        spoilt[position] ^= 0xFF
        (tmp_path / "spoilt.npz").write_bytes(spoilt)
        try:
            loaded = Trajectory.load(tmp_path / "spoilt.npz")
        except InputError:
            refused += 1
        else:
            np.testing.assert_equal(dataclasses.asdict(loaded), dataclasses.asdict(trajectory))
    assert refused > 100


class Payload:
    """An object that would say so if it were ever unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a trajectory was unpickled",))


def test_a_file_with_a_pickled_object_is_refused_without_opening_it(tmp_path):
    np.savez(tmp_path / "hostile.npz", piece_ids=np.array([Payload()], dtype=object))
    np.save(tmp_path / "hostile.npy", np.array([Payload()], dtype=object))
    for name in ("hostile.npz", "hostile.npy"):
        with pytest.raises(InputError, match=f"{name} is not a saved trajectory"):
            Trajectory.load(tmp_path / name)


def test_what_was_never_masked_was_given(trajectory):
    tokens = trajectory.tokens.copy()
    tokens[:, 1] = tokens[-1, 1]
    given = dataclasses.replace(trajectory, tokens=tokens)
    assert given.pinned.tolist() == [False, True, False]
    assert given.uncovered_at[1] == 0
    assert not given.uncovered[:, 1].any()


def test_a_token_that_is_masked_again_is_seen_leaving_and_coming_back(trajectory):
    tokens = np.repeat(trajectory.tokens[-1:], len(trajectory.tokens), axis=0)
    tokens[[0, 2], 0] = trajectory.mask_token_id
    again = dataclasses.replace(trajectory, tokens=tokens)
    assert again.uncovered[:, 0].nonzero()[0].tolist() == [1, 3]
    assert again.remasked[:, 0].nonzero()[0].tolist() == [2]
    assert again.uncovered_at.tolist() == [3, 0, 0]
