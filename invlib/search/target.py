"""Target: the vector of a search, and the denoiser that writes towards it."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from invlib.masking import subs_logits
from invlib.sampler import Predict, denoise
from invlib.search.ledger import Encode, Found, Ledger, Tokens, recognised_from

DRAFT_STEPS = 8
REFILL_STEPS = 4
OVERSHOOT = 0.5  # how far beyond the vector the denoiser listens, seen from the text that is to be edited


@dataclass(eq=False)
class Target:
    """One vector, what the denoiser writes for it, and the `ledger` of what was encoded."""

    ledger: Ledger
    denoiser: Callable[[Tensor, np.ndarray], Predict]  # lengths, vector → predict under its modulation in every row
    length_probs: Float[np.ndarray, "max_length"]  # of every number of tokens, one first
    generator: torch.Generator
    device: torch.device | str = "cpu"
    alignment: Callable[[np.ndarray], np.ndarray] | None = None  # the ledger's space → the denoiser's; None: the same
    model_calls: int = 0

    def __post_init__(self) -> None:
        self.vector, self.mask_token_id = self._heard(self.ledger.vector), self.ledger.mask_token_id
        self.random = np.random.default_rng(int(torch.randint(2**62, (), generator=self.generator)))

    @classmethod
    def of(
        cls,
        inverter: Any,
        vector: Float[np.ndarray, "embed"],
        *,
        encode: Encode | None = None,
        pinned: Mapping[int, int] | None = None,
        generator: torch.Generator | None = None,
        noise_level: float = 0.0,
        alignment: Any = None,
    ) -> "Target":
        """The target of one unit vector and an `Inverter`: its denoiser, its lengths, and the encoder that is asked.

        alignment: of the vector's encoder to the inverter's. What was encoded is compared in the vector's own space;
          the denoiser listens to what is mapped, noisy as it is.
        """
        model, config = inverter.quick, inverter.config
        level = torch.tensor([noise_level], device=model.device) if noise_level else None

        def denoiser(lengths: Tensor, toward: np.ndarray) -> Predict:
            with torch.inference_mode():
                modulation = model.modulation(torch.from_numpy(toward[None]).to(model.device), noise_level=level)
            return model.predictor(modulation.rows(torch.zeros_like(lengths)), lengths)

        ledger = Ledger(
            vector,
            encode or inverter.encoder.encode,
            inverter.tokenizer.decode,
            mask_token_id=config.mask_token_id,
            max_length=config.max_seq_len,
            pinned=pinned or {},
            stop_cosine=recognised_from(0.0 if alignment else noise_level, len(vector)),
        )
        heard = alignment(vector) if alignment else vector
        length_probs = np.exp(inverter.length_log_probs(heard, noise_level)[0])
        return cls(ledger, denoiser, length_probs, generator or torch.Generator(), model.device, alignment)

    def draft(self, count: int, temperature: float, order_noise: float) -> Generator[None, None, list[Tokens]]:
        """Fresh drafts that differ in length, order and words; yields as `refill`."""
        sizes = len(self.length_probs)
        lengths = self.random.choice(sizes, count, p=self.length_probs / self.length_probs.sum()) + 1
        masks = [(self.mask_token_id,) * int(n) for n in lengths]
        return (yield from self.refill(masks, temperature, order_noise, DRAFT_STEPS))

    def refill(
        self, starts: Sequence[Tokens], temperature: float, order_noise: float, num_steps: int = REFILL_STEPS
    ) -> Generator[None, None, list[Tokens]]:
        """The starts with their masks filled by the denoiser; those without a mask stay as they are.

        Yields after every step, so that whoever stops need not wait for the others.
        """
        starts = [tuple(self.ledger.pinned.get(i, token) for i, token in enumerate(start)) for start in starts]
        open_starts = [start for start in starts if self.mask_token_id in start]
        if not open_starts:
            return starts
        lengths = torch.tensor([len(start) for start in open_starts], device=self.device)
        steps = denoise(
            self.denoiser(lengths, self.vector),
            lengths,
            mask_token_id=self.mask_token_id,
            num_steps=num_steps,
            temperature=temperature,
            order_noise=order_noise,
            start=pad_sequence([torch.tensor(start) for start in open_starts], batch_first=True).to(self.device),
            top_k=0,
            generator=self.generator,
        )
        for step in steps:
            last = step
            yield
        self.model_calls += int(last.model_calls.sum())
        filled = iter([tuple(row[:n].tolist()) for row, n in zip(last.tokens, lengths, strict=True)])
        return [next(filled) if self.mask_token_id in start else start for start in starts]

    def beyond(self, text: Found) -> Float[np.ndarray, "embed"]:
        """The vector, moved on in the direction from the text's own to it: what the text lacks stands out there."""
        ahead = self.vector + OVERSHOOT * (self.vector - self._heard(text.vector))
        return ahead / np.linalg.norm(ahead)

    def _heard(self, vector: np.ndarray) -> Float[np.ndarray, "embed"]:
        """A vector of the ledger's as the denoiser takes it."""
        return vector if self.alignment is None else self.alignment(vector)[0]

    def alternatives(self, tokens: Tokens, toward: np.ndarray) -> Float[Tensor, "length vocab"]:
        """log p(. | all other tokens) at every position, under the modulation of the vector `toward`."""
        return self._log_probs([(tokens[:i], tokens[i + 1 :]) for i in range(len(tokens))], toward)

    def insertions(self, tokens: Tokens, toward: np.ndarray) -> Float[Tensor, "gap vocab"]:
        """log p(. | all tokens) of a new token in every gap, the one before the first token first."""
        if len(tokens) >= len(self.length_probs):  # the text is as long as it may be: no gap takes a token
            return torch.empty(0, 0)
        return self._log_probs([(tokens[:gap], tokens[gap:]) for gap in range(len(tokens) + 1)], toward)

    @torch.no_grad()
    def _log_probs(self, around: list[tuple[Tokens, Tokens]], toward: np.ndarray) -> Float[Tensor, "row vocab"]:
        """Of the one token between what stands before and after it, a model call each."""
        grid = torch.tensor([(*before, self.mask_token_id, *after) for before, after in around], device=self.device)
        self.model_calls += len(grid)
        predict = self.denoiser(torch.full_like(grid[:, 0], grid.shape[1]), toward)
        logits = predict(grid, torch.arange(len(grid), device=self.device), grid == self.mask_token_id)
        return subs_logits(logits.float(), self.mask_token_id).log_softmax(dim=-1).cpu()
