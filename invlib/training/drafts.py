"""Drafting: what a model writes for vectors of training texts, and how the encoder sees it. A corrector learns from it.

The texts have been trained on, so that drafts of their own vectors would be too good: noise makes them what drafts of
unseen texts are.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer as FastTokenizer
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from invlib.config import TrainingConfig
from invlib.corrector import Hypothesis
from invlib.door.files import reading, write_atomically
from invlib.encoder import Encoder
from invlib.model import ConditionalMDLM
from invlib.sampler import denoise
from invlib.tokenizer import Tokenizer
from invlib.training.batches import Drafts
from invlib.training.packed import PackedPairs, encode_ids
from invlib.training.pairs import Pairs

NOISE = 0.3  # the largest level of a draft's vector; they are uniform
STEPS = 4
REWRITTEN = 0.5  # of the drafts, in every further round
AT_ONCE = 4096
PARTS = ("rows", "tokens", "lengths", "vectors")


class Drafting:
    """Encoder and tokenizer that make drafts of pairs, kept in `folder`: a resumed training finds the same ones."""

    def __init__(self, pairs: Pairs, encoder: Encoder, tokenizer: Tokenizer, folder: Path, config: TrainingConfig):
        self.pairs, self.encoder, self.tokenizer = pairs, encoder, tokenizer
        self.folder, self.count, self.seed = folder, config.drafts, config.seed

    def __call__(self, model: ConditionalMDLM, rows: np.ndarray, number: int, rounds: int) -> Drafts:
        """Drafts of some of the rows, others for every `number`. rounds: how often half of them are written anew."""
        path = self.folder / f"drafts-{number}.npz"
        if not path.is_file():
            drafts = self._drawn(model, rows, number, rounds)
            parts = [drafts.rows, *(part.cpu().numpy() for part in vars(drafts.hypotheses).values())]
            write_atomically(path, lambda partial: _save(partial, dict(zip(PARTS, parts, strict=True))))
        fix = "delete it, and the run's state.pt, to start again"
        with reading(path, "is damaged", fix), open(path, "rb") as file, np.load(file) as kept:
            rows, *parts = (kept[name] for name in PARTS)
        return Drafts(rows, Hypothesis(*(torch.from_numpy(part).to(model.device) for part in parts)))

    @torch.inference_mode()
    def _drawn(self, model: ConditionalMDLM, rows: np.ndarray, number: int, rounds: int) -> Drafts:
        random = np.random.default_rng([self.seed, number])
        rows = np.sort(random.choice(rows, min(self.count, len(rows)), replace=False))
        generator = torch.Generator(model.device).manual_seed(int(random.integers(2**62)))
        clean = self._vectors(rows).to(model.device).float()
        level = NOISE * torch.rand(len(rows), generator=generator, device=model.device)
        noise = torch.randn(clean.shape, generator=generator, device=model.device) / clean.shape[1] ** 0.5
        heard = F.normalize(clean + level[:, None] * noise, dim=1)
        level = level if model.config.noise_condition else None
        found = self._seen(*self._written(model, heard, level, None, generator))
        for _ in range(rounds):
            some = torch.rand(len(rows), generator=generator, device=model.device) < REWRITTEN
            own = self._written(model, heard[some], None if level is None else level[some], found.rows(some), generator)
            for old, new in zip(vars(found).values(), vars(self._seen(*own)).values(), strict=True):
                old[some] = new
        cosine = F.cosine_similarity(found.vectors.float(), clean).mean()
        print(f"{len(rows):,} drafts, {rounds} rounds: mean cosine {cosine:.4f}", file=sys.stderr)
        return Drafts(rows, found)

    def _vectors(self, rows: np.ndarray) -> Float[Tensor, "rows embed"]:
        stored = self.pairs.embeddings
        if isinstance(stored, Tensor):
            return stored[torch.from_numpy(rows).to(stored.device)]
        return torch.from_numpy(stored[rows])

    def _written(
        self,
        model: ConditionalMDLM,
        vectors: Float[Tensor, "rows embed"],
        level: Float[Tensor, "rows"] | None,
        hypothesis: Hypothesis | None,
        generator: torch.Generator,
    ) -> tuple[Int[Tensor, "rows top"], Int[Tensor, "rows"]]:
        """Tokens, padded with masks, and their numbers. Rows of one length go together."""
        mask, top = model.config.mask_token_id, model.config.max_seq_len

        def told(own: Tensor) -> tuple:
            return None if level is None else level[own], None if hypothesis is None else hypothesis.rows(own)

        every = torch.arange(len(vectors), device=model.device)
        logits = [model.length_logits(vectors[own], *told(own)).float() for own in every.split(8 * AT_ONCE)]
        lengths = torch.multinomial(torch.cat(logits).softmax(dim=1), 1, generator=generator)[:, 0] + 1
        tokens = torch.full((len(vectors), top), mask, device=model.device)
        groups = lengths.argsort().split(lengths.bincount(minlength=top + 1).tolist())
        parts = [own for group in groups for own in group.split(AT_ONCE) if len(own)]
        for own in tqdm(parts, desc="draft", leave=False):
            predict = model.predictor(model.modulation(vectors[own], None, *told(own)), lengths[own])
            *_, last = denoise(predict, lengths[own], mask_token_id=mask, num_steps=STEPS, top_k=0)
            tokens[own, : last.tokens.shape[1]] = last.tokens
        return tokens, lengths

    def _seen(self, tokens: Int[Tensor, "rows top"], lengths: Int[Tensor, "rows"]) -> Hypothesis:
        texts = self.tokenizer.backend.decode_batch(
            [ids[:n] for ids, n in zip(tokens.tolist(), lengths.tolist(), strict=True)]
        )
        spelled = isinstance(self.pairs, PackedPairs)  # whose encoder reads [CLS] text [SEP]
        vectors = self._of_spelled(texts) if spelled else self.encoder.encode([text or "[UNK]" for text in texts])
        return Hypothesis(tokens.int(), lengths, torch.from_numpy(vectors.astype(np.float16)).to(tokens.device))

    def _of_spelled(self, texts: list[str]) -> Float[np.ndarray, "rows embed"]:
        """What `Encoder.encode` gives, in large batches. It spells a text itself: not all our spellings are its own."""
        backend = FastTokenizer.from_str(self.encoder.tokenizer.backend_tokenizer.to_str())
        backend.no_truncation()
        backend.no_padding()
        spelled = backend.encode_batch_fast(texts, add_special_tokens=False)
        ids = [torch.tensor(own.ids or [self.encoder.tokenizer.unk_token_id]) for own in spelled]
        counts = torch.tensor([len(own) for own in ids])
        vectors = np.empty((len(ids), self.encoder.embed_dim), np.float32)
        for own in counts.argsort().split(4 * AT_ONCE):
            padded = pad_sequence([ids[row] for row in own.tolist()], batch_first=True).numpy()
            vectors[own.numpy()] = encode_ids(self.encoder, padded, counts[own].numpy())
        return vectors


def _save(path: Path, parts: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as file:  # np.savez would add an ending to a path
        np.savez(file, **parts)
