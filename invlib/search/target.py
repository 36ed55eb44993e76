"""Target: the vector of a search, and the denoiser that writes towards it."""

import functools
import itertools
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from invlib.corrector import Hypothesis
from invlib.masking import subs_logits
from invlib.model import ConditionalMDLM
from invlib.sampler import Predict, denoise
from invlib.search.ledger import Encode, Found, Ledger, Tokens, recognised_from

DRAFT_STEPS = 8
REFILL_STEPS = 4
OVERSHOOT = 0.5  # how far beyond the vector the denoiser listens, seen from the text that is to be edited


class Denoiser:
    """A model as a search asks it: about one vector at a time, of one noise level, with hypotheses or without."""

    def __init__(self, model: ConditionalMDLM, noise_level: float):
        self.model = model
        self.level = torch.tensor([noise_level], device=model.device) if noise_level else None

    @torch.inference_mode()
    def __call__(self, lengths: Tensor, toward: np.ndarray, hypothesis: Hypothesis | None = None) -> Predict:
        """Lengths [rows], vector, a hypothesis for each row → predict under the vector's modulation in every row."""
        if hypothesis is not None:
            told, level = self._told(toward, len(lengths))
            return self.model.predictor(self.model.modulation(told, None, level, hypothesis), lengths)
        told, level = self._told(toward, 1)
        modulation = self.model.modulation(told, noise_level=level)
        return self.model.predictor(modulation.rows(torch.zeros_like(lengths)), lengths)

    @torch.inference_mode()
    def length_probs(self, toward: np.ndarray, hypothesis: Hypothesis) -> Float[np.ndarray, "rows max_length"]:
        """Of every number of tokens, now that the encoder has seen the hypotheses."""
        told, level = self._told(toward, len(hypothesis.lengths))
        return self.model.length_logits(told, level, hypothesis).double().softmax(dim=1).cpu().numpy()

    def _told(self, toward: np.ndarray, rows: int) -> tuple[Tensor, Tensor | None]:
        vectors = torch.from_numpy(toward[None]).to(self.model.device).expand(rows, -1)
        return vectors, None if self.level is None else self.level.expand(rows)


@dataclass(eq=False)
class Target:
    """One vector, what the denoiser writes for it, and the `ledger` of what was encoded."""

    ledger: Ledger
    denoiser: Callable[[Tensor, np.ndarray, Hypothesis | None], Predict]  # see `Denoiser`
    length_probs: Float[np.ndarray, "max_length"]  # of every number of tokens, one first
    generator: torch.Generator
    device: torch.device | str = "cpu"
    alignment: Callable[[np.ndarray], np.ndarray] | None = None  # the ledger's space → the denoiser's; None: the same
    corrected_lengths: Callable[[Hypothesis], np.ndarray] | None = None  # see `Denoiser`; None without a corrector
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
        denoiser, config = Denoiser(inverter.quick, noise_level), inverter.config
        ledger = Ledger(
            vector,
            encode or inverter.encoder.encode,
            inverter.tokenizer.decode,
            mask_token_id=config.mask_token_id,
            max_length=config.max_seq_len,
            pinned=pinned or {},
            stop_cosine=recognised_from(0.0 if alignment else noise_level, len(vector)),
        )
        heard = alignment(vector)[0] if alignment else vector
        length_probs = np.exp(inverter.length_log_probs(heard, noise_level)[0])
        corrected = functools.partial(denoiser.length_probs, heard) if inverter.corrects else None
        generator, device = generator or torch.Generator(), inverter.quick.device
        return cls(ledger, denoiser, length_probs, generator, device, alignment, corrected)

    @property
    def corrects(self) -> bool:
        """Whether the denoiser can be told of a hypothesis."""
        return self.corrected_lengths is not None

    def rewrite(
        self, texts: Sequence[Found], temperature: float, order_noise: float
    ) -> Generator[None, None, list[Tokens]]:
        """Each text written anew from masks, its length too, with what the encoder saw in it; yields as `refill`."""
        lengths = torch.tensor([len(text.tokens) for text in texts], device=self.device)
        tokens = torch.full((len(texts), len(self.length_probs)), self.mask_token_id)
        for row, text in enumerate(texts):
            tokens[row, : len(text.tokens)] = torch.tensor(text.tokens)
        vectors = np.stack([self._heard(text.vector) for text in texts])
        hypothesis = Hypothesis(tokens.to(self.device), lengths, torch.from_numpy(vectors).to(self.device))
        sizes = [self.random.choice(len(p), p=p / p.sum()) + 1 for p in self.corrected_lengths(hypothesis)]
        masks = [(self.mask_token_id,) * int(n) for n in sizes]
        return (yield from self.refill(masks, temperature, order_noise, REFILL_STEPS, hypothesis))

    def draft(self, count: int, temperature: float, order_noise: float) -> Generator[None, None, list[Tokens]]:
        """Fresh drafts that differ in length, order and words; yields as `refill`."""
        sizes = len(self.length_probs)
        lengths = self.random.choice(sizes, count, p=self.length_probs / self.length_probs.sum()) + 1
        masks = [(self.mask_token_id,) * int(n) for n in lengths]
        return (yield from self.refill(masks, temperature, order_noise, DRAFT_STEPS))

    def refill(
        self,
        starts: Sequence[Tokens],
        temperature: float,
        order_noise: float,
        num_steps: int = REFILL_STEPS,
        hypothesis: Hypothesis | None = None,
    ) -> Generator[None, None, list[Tokens]]:
        """The starts with their masks filled by the denoiser; those without a mask stay as they are.

        hypothesis: one for every start, where the denoiser is told of one. Yields after every step, so that whoever
        stops need not wait for the others.
        """
        starts = [tuple(self.ledger.pinned.get(i, token) for i, token in enumerate(start)) for start in starts]
        is_open = [self.mask_token_id in start for start in starts]
        open_starts = list(itertools.compress(starts, is_open))
        if not open_starts:
            return starts
        hypothesis = hypothesis and hypothesis.rows(torch.tensor(is_open, device=self.device))
        lengths = torch.tensor([len(start) for start in open_starts], device=self.device)
        steps = denoise(
            self.denoiser(lengths, self.vector, hypothesis),
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
        predict = self.denoiser(torch.full_like(grid[:, 0], grid.shape[1]), toward, None)
        logits = predict(grid, torch.arange(len(grid), device=self.device), grid == self.mask_token_id)
        return subs_logits(logits.float(), self.mask_token_id).log_softmax(dim=-1).cpu()
