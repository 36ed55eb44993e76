"""A tokenizer.json, looked at before it is used: what it would cost, beside the bytes it has."""

STACKS = ("normalizers", "pretokenizers", "processors", "decoders")  # keys of a sequence of steps
MOST_STEPS, MOST_GROWTH = 32, 64


def check_cost(told: dict) -> None:
    """Raise `ValueError` for ids without pieces, and for steps that make a text many times as long."""
    vocab = told["model"]["vocab"]
    ids = [piece["id"] for piece in told.get("added_tokens") or ()]
    ids += vocab.values() if isinstance(vocab, dict) else range(len(vocab))
    if not all(type(number) is int and 0 <= number < len(ids) for number in ids):
        raise ValueError(f"its {len(ids)} pieces have ids outside 0 … {len(ids) - 1}")
    steps = [told.get(part) for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder")]
    growth, nested = 1, 0
    while steps:
        step, nested = steps.pop(), nested + 1
        if isinstance(step, dict):
            growth *= max(1, len(step["content"])) if step.get("type") == "Replace" else 1
            steps += [own for key, own in step.items() if key in STACKS and isinstance(own, list) for own in own]
        if nested > MOST_STEPS or growth > MOST_GROWTH:
            raise ValueError("its steps are stacked beyond what a tokenizer needs")
