"""Inverter: from vectors back to sentences. Joins model, tokenizer, sampler and (where asked) the encoder."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from invlib import checkpoint
from invlib.encoder import Encoder
from invlib.errors import InputError
from invlib.masking import subs_logits
from invlib.metrics import cosine
from invlib.model import ConditionalMDLM, Modulation, median_length
from invlib.policies import top_confidence
from invlib.sampler import Predict, denoise, row_streams
from invlib.search import Encode, Strategy, Target, Tokens, Watch, improve
from invlib.tokenizer import Tokenizer
from invlib.trajectory import Step, Trajectory

TOP_K = 5  # alternatives kept per position and step
LONG = 512  # vectors from which on a progress bar is shown


@dataclass(frozen=True)
class Inversion:
    """What came back: one entry per vector, in the order of the vectors."""

    texts: list[str]
    cosines: np.ndarray | None  # [n] of the re-encoded text to the vector; None where no encoder was used
    model_calls: np.ndarray  # [n] forward passes of the denoiser, all drafts together
    encoder_queries: np.ndarray  # [n] texts encoded
    trajectories: list[Trajectory]  # of the likeliest drafts, before any search; empty where they were not kept
    errors: list[str | None]  # what ended a search before its time; the best text so far is kept


@dataclass(frozen=True)
class Draft:
    """One finished denoising of a vector. `log_prob`: of its tokens as they were written, and of its length."""

    tokens: Tokens
    text: str
    log_prob: float
    model_calls: int
    trajectory: Trajectory | None


class Inverter:
    """Open one with `Inverter.load`, then `invert(vectors)`.

    `encoder` is opened when it is first used; inverting without it (`verify=False`) never asks for it.
    `name` is what `load` was given.
    """

    name: str | None = None

    def __init__(self, model: ConditionalMDLM, tokenizer: Tokenizer, encoder: Encoder | None = None):
        self.model, self.tokenizer, self.config = model, tokenizer, model.config
        if encoder is not None:
            self.encoder = encoder

    @classmethod
    def load(
        cls,
        name: str | Path = "minilm",
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        encoder: Encoder | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> "Inverter":
        """Open a checkpoint: "minilm" (bundled), a folder that training wrote, or the published .pt file.

        encoder, tokenizer: already open ones, instead of those that the checkpoint's configuration names.
        Raises `InputError` for a checkpoint that is absent, damaged, of other shapes, or that would run code.
        """
        path = checkpoint.locate(name)
        model, config = checkpoint.read(path)
        if tokenizer is None:
            tokenizer = Tokenizer.load(path if path.is_dir() else config.decoder_tokenizer)
        inverter = cls(model.to(device=device, dtype=dtype), tokenizer, encoder)
        inverter.name = str(name)
        return inverter

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder whose vectors this checkpoint inverts."""
        return Encoder.load(self.config.encoder_model, device=self.model.device)

    def invert(
        self,
        vectors: Any,
        *,
        num_steps: int = 8,
        length: int | Sequence[int] | np.ndarray | None = None,
        length_beam: int = 1,
        noise_level: float | Sequence[float] | np.ndarray = 0.0,
        candidates: int = 1,
        search: Strategy | Sequence[Strategy] = (),
        encoder: Any = None,
        verify: bool = False,
        keep_trajectories: bool = True,
        batch_size: int = 64,
        generator: torch.Generator | None = None,
        watch: Watch | None = None,
        **decoding: Any,
    ) -> Inversion:
        """Vectors → sentences, starting from all masks.

        vectors: one [embed_dim] or many [n, embed_dim]; numpy, torch or lists; integers become float32. Only the
          direction counts: every vector is scaled to unit length, as the encoder's are.
        length: number of tokens, for all or per vector. Default: what the model predicts from the vector; a
          checkpoint without a length head decodes all its positions.
        noise_level: σ√d of the Gaussian noise that the vectors are known to carry, for all or per vector; needs a
          checkpoint that was trained with a noise condition. 0: clean.
        length_beam, candidates: how many of the likeliest lengths are decoded, and how many independent drafts of
          each; they share one modulation. Without a search the likeliest draft is the result.
        search: the encoder in the loop: one of the strategies of `invlib.search`, or several in their order.
        encoder: whom the search and `verify` ask: an `Encoder` or any function texts → vectors. Default: the
          checkpoint's own.
        verify: encode each text once and report its cosine to the vector; costs one encoder query a vector.
        watch: called with every Step of the drafts and the best `Found` of every round of a search as they happen,
          and with None in between; it may raise KeyboardInterrupt to stop.
        decoding: policy, grid, temperature, order_noise, guidance_scale, pinned, start, conditional; see `steps`.

        Raises `InputError` for a wrong dimension, NaN, infinite or zero vectors, no vector at all, and every option
        outside its domain. An encoder that fails during a search ends it: see `Inversion.errors`.
        """
        vectors = check_vectors(vectors, self.config.embedding_cond_dim)
        noise = self._noise_levels(noise_level, len(vectors))
        lengths, length_log_probs = self._length_plan(vectors, length, length_beam, noise)
        _check_candidates(candidates, decoding)
        lengths, length_log_probs = (np.repeat(plan.ravel(), candidates) for plan in (lengths, length_log_probs))
        streams = row_streams(len(lengths), generator)
        drafts: list[list[Draft]] = [[] for _ in vectors]
        settings = {"num_steps": num_steps, "keep_trajectories": keep_trajectories, "watch": watch, **decoding}
        for rows in _by_length(lengths, batch_size):
            of = rows // (len(lengths) // len(vectors))
            heard = None if noise is None else noise[of]
            generators = [streams[row] for row in rows]
            plan = lengths[rows], length_log_probs[rows]
            batch = self._drafts(vectors[of], *plan, noise_level=heard, generator=generators, **settings)
            for vector, draft in zip(of, batch, strict=True):
                _keep_one_trajectory(drafts[vector], draft)
        result = _likeliest(drafts, keep_trajectories, 1 if decoding.get("guidance_scale", 1) == 1 else 2)
        encode = None if encoder is None else getattr(encoder, "encode", encoder)
        if search:
            strategies = [search] if isinstance(search, Strategy) else list(search)
            starts = [[draft.tokens for draft in own] for own in drafts]
            firsts = streams[:: len(lengths) // len(vectors)]
            settings = {"encode": encode, "pinned": decoding.get("pinned"), "watch": watch}
            targets = (
                self.target(vector, generator=firsts[row], noise_level=0.0 if noise is None else noise[row], **settings)
                for row, vector in enumerate(vectors)
            )
            return _searched(result, targets, starts, strategies, watch)
        if verify:
            cosines, queries = self._verified(vectors, result.texts, encode)
            return dataclasses.replace(result, cosines=cosines, encoder_queries=queries)
        return result

    def _drafts(
        self,
        vectors: np.ndarray,
        lengths: np.ndarray,
        length_log_probs: np.ndarray,
        *,
        keep_trajectories: bool,
        watch: Watch | None,
        **options: Any,
    ) -> Iterator[Draft]:
        """One draft for every row of a batch; other options are those of `steps`."""
        steps, options = [], {"top_k": TOP_K if keep_trajectories else 0, **options}
        for step in self.steps(vectors, lengths, **options):
            steps.append(step)
            if watch:
                watch(step)
        for place, (length, prior) in enumerate(zip(lengths, length_log_probs, strict=True)):
            yield self._draft(steps, place, int(length), float(prior), keep_trajectories)

    def stream(self, batches: Iterable[Any], **options: Any) -> Iterator[Inversion]:
        """The Inversion of each batch of vectors as it comes: memory holds one batch, however many there are.

        batches: arrays [n, embed_dim], a thousand or so vectors each, from a file that is read piece by piece.
        options: those of `invert`; trajectories are kept only where asked for.

        Raises `InputError` with the number of the batch.
        """
        for number, batch in enumerate(batches):
            try:
                inversion = self.invert(batch, **{"keep_trajectories": False, **options})
            except InputError as error:
                raise InputError(f"batch {number}: {error}") from None
            yield inversion

    def steps(
        self,
        vectors: np.ndarray,
        lengths: np.ndarray,
        *,
        policy: Any = top_confidence,
        guidance_scale: float = 1.0,
        pinned: Mapping[int, int | str] | None = None,
        start: Mapping[int, int | str] | None = None,
        conditional: bool = True,
        noise_level: np.ndarray | None = None,
        **options: Any,
    ) -> Iterator[Step]:
        """The Steps of one batch, as they happen; other options are those of `sampler.denoise`.

        policy: which positions are visible after the next step; one of `invlib.policies`.
        guidance_scale: w in uncond + w (cond - uncond), on log-probabilities (classifier-free guidance). It rises
          from 1, all masked, to its value, none masked: strong guidance helps late and hurts early (arXiv
          2507.08965). Unless it is 1, the model is called twice as often.
        pinned: {position: token id or piece} that hold in every text.
        start: {position: token id or piece} to go on from: visible, but a policy that re-masks may change them.
        conditional: False ignores the vectors (but for the lengths): what the model writes by itself, the prior.
        noise_level: of every vector [n]; None: they are clean. See `invert`.
        """
        if not callable(policy):
            raise InputError(f"policy must be a function such as invlib.policies.top_confidence, got {policy!r}")
        if not 0 <= guidance_scale < np.inf or (guidance_scale != 1 and not conditional):
            raise InputError(f"guidance_scale must be 0 or more, and 1 with conditional=False; got {guidance_scale}")
        embedding = torch.from_numpy(vectors).to(self.model.device)
        nothing = torch.ones(len(vectors), dtype=torch.bool, device=self.model.device)
        with torch.inference_mode():
            heard = None if noise_level is None else torch.as_tensor(noise_level).to(self.model.device)
            modulation = self.model.modulation(embedding, None if conditional else nothing, heard)
            prior = None if guidance_scale == 1 else self.model.modulation(embedding[:1], nothing[:1])
        lengths = torch.as_tensor(lengths, device=self.model.device)
        fixed = self._grid("pinned", pinned or {}, lengths)
        grid = torch.where(fixed == self.config.mask_token_id, self._grid("start", start or {}, lengths), fixed)
        given = {"start": grid, "pinned": fixed != self.config.mask_token_id}
        predict = self._predictor(modulation, lengths, prior, guidance_scale)
        return denoise(predict, lengths, mask_token_id=self.config.mask_token_id, policy=policy, **given, **options)

    def _predictor(
        self, modulation: Modulation, lengths: Tensor, prior: Modulation | None = None, guidance_scale: float = 1.0
    ) -> Predict:
        mask = self.config.mask_token_id

        def conditional(xt: Tensor, rows: Tensor, at: Tensor) -> Tensor:
            return self.model(xt, modulation.rows(rows), lengths=lengths[rows], at=at)

        def guided(xt: Tensor, rows: Tensor, at: Tensor) -> Tensor:
            cond = subs_logits(conditional(xt, rows, at).float(), mask).log_softmax(dim=-1)
            logits = self.model(xt, prior.rows(torch.zeros_like(rows)), lengths=lengths[rows], at=at)
            uncond = subs_logits(logits.float(), mask).log_softmax(dim=-1)
            visible = 1 - (xt == mask).sum(dim=1) / lengths[rows]
            scale = 1 + (guidance_scale - 1) * visible[at.nonzero()[:, 0], None]
            return uncond + scale * (cond - uncond)  # NaN at [MASK], which the sampler forbids anyway

        return conditional if prior is None else guided

    @torch.inference_mode()
    def length_log_probs(self, vectors: Any, noise_level: float | Sequence[float] | np.ndarray = 0.0) -> np.ndarray:
        """log p(number of tokens | vector), [n, max_seq_len]; column l is a length of l + 1.

        Without a length head all positions are decoded: the last column has probability 1.
        """
        vectors = check_vectors(vectors, self.config.embedding_cond_dim)
        if not self.config.length_head:
            log_probs = np.full((len(vectors), self.config.max_seq_len), -np.inf)
            log_probs[:, -1] = 0.0
            return log_probs
        noise = self._noise_levels(noise_level, len(vectors))
        heard = None if noise is None else torch.from_numpy(noise).to(self.model.device)
        logits = self.model.length_logits(torch.from_numpy(vectors).to(self.model.device), heard)
        return logits.float().log_softmax(dim=1).cpu().numpy()

    def predict_lengths(self, vectors: Any) -> np.ndarray:
        """Number of tokens that the model expects of each vector, [n], by `median_length`."""
        return median_length(torch.from_numpy(self.length_log_probs(vectors))).numpy()

    def _noise_levels(self, noise_level: Any, count: int) -> np.ndarray | None:
        """One level per vector [count]; None where all vectors are clean, which every checkpoint can invert."""
        levels = np.asarray(noise_level)
        if levels.dtype.kind not in "fiu" or levels.shape not in ((), (count,)) or not np.isfinite(levels).all():
            raise InputError(
                f"noise_level must be a number, or one for each of the {count} vectors; got {noise_level!r}"
            )
        if (levels < 0).any():
            raise InputError(f"noise_level is σ√d and cannot be negative; got {noise_level!r}")
        return np.broadcast_to(levels, count).astype(np.float32) if levels.any() else None

    def _length_plan(
        self,
        vectors: np.ndarray,
        length: int | Sequence[int] | np.ndarray | None,
        beam: int,
        noise: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lengths to decode and their log-probabilities, both [n, beam]: the likeliest; the median where beam is 1."""
        top = self.config.max_seq_len
        if not 1 <= beam <= top or (beam > 1 and (length is not None or not self.config.length_head)):
            raise InputError(
                f"length_beam must be between 1 and {top}, and more than 1 only where the model predicts the length "
                f"and none is given; got {beam}"
            )
        if length is None:
            log_probs = self.length_log_probs(vectors, 0.0 if noise is None else noise)
            order = np.argsort(-log_probs, axis=1, kind="stable")[:, :beam]
            if beam == 1:
                order = median_length(torch.from_numpy(log_probs)).numpy()[:, None] - 1
            return order + 1, np.take_along_axis(log_probs, order, axis=1)
        lengths = np.asarray(length)
        if lengths.ndim == 0:
            lengths = np.full(len(vectors), length)
        fits = lengths.shape == (len(vectors),) and lengths.dtype.kind in "iu"
        if not fits or lengths.min() < 1 or lengths.max() > top:
            raise InputError(
                f"length must be an integer from 1 to {top}, or one for each of the {len(vectors)} vectors; "
                f"got {length!r}"
            )
        return lengths[:, None], np.zeros((len(vectors), 1))

    def _grid(self, name: str, tokens: Mapping[int, int | str], lengths: Tensor) -> Tensor:
        """The tokens at their positions in every row of [batch, length], masks elsewhere."""
        grid = torch.full((len(lengths), int(lengths.max())), self.config.mask_token_id, device=lengths.device)
        for position, token in tokens.items():
            if not 0 <= position < int(lengths.min()):
                raise InputError(
                    f"{name} position {position} is outside a text of {int(lengths.min())} tokens; "
                    f"positions count from 0, and length= sets how many there are"
                )
            grid[:, position] = self.token_id(token)
        return grid

    def token_id(self, token: int | str) -> int:
        """A token id, or the id of the one piece that a text consists of. Raises `InputError` for anything else."""
        ids = self.tokenizer.encode([token])[0] if isinstance(token, str) else [token]
        if isinstance(token, str) and token.startswith("##"):
            ids = [i for i in [self.tokenizer.backend.token_to_id(token)] if i is not None]
        mask = self.config.mask_token_id
        if len(ids) != 1 or not 0 <= ids[0] < self.config.vocab_size or ids[0] == mask:
            pieces = self.tokenizer.pieces(ids) if isinstance(token, str) else ids
            raise InputError(
                f"{token!r} is not one token of the vocabulary ({pieces}); pin one piece or an id below "
                f"{self.config.vocab_size} other than [MASK]"
            )
        return int(ids[0])

    def _draft(self, steps: list[Step], place: int, length: int, prior: float, keep_trajectory: bool) -> Draft:
        """One row of a finished batch; `prior` is the log-probability of its length."""
        last = steps[-1]
        tokens = tuple(last.tokens[place, :length].tolist())
        text = self.tokenizer.decode(tokens)
        trajectory = None
        if keep_trajectory:
            trajectory = Trajectory.from_steps(
                steps,
                place,
                length,
                mask_token_id=self.config.mask_token_id,
                pieces=self.tokenizer.pieces,
                text=text,
            )
        log_prob = float(last.confidence[place, :length].log().sum()) + prior
        return Draft(tokens, text, log_prob, int(last.model_calls[place]), trajectory)

    def target(
        self,
        vector: np.ndarray,
        *,
        encode: Encode | None = None,
        pinned: Mapping[int, int | str] | None = None,
        generator: torch.Generator | None = None,
        noise_level: float = 0.0,
        watch: Watch | None = None,
    ) -> Target:
        """What `search.improve` works on: one vector [embed_dim], this denoiser, and the encoder that is asked."""
        vectors = check_vectors(vector, self.config.embedding_cond_dim)
        noise = self._noise_levels(noise_level, 1)
        heard = None if noise is None else torch.from_numpy(noise).to(self.model.device)

        def denoiser(lengths: Tensor, toward: np.ndarray) -> Predict:
            row = torch.from_numpy(toward[None]).to(self.model.device)
            with torch.inference_mode():
                modulation = self.model.modulation(row, noise_level=heard)
            return self._predictor(modulation.rows(torch.zeros_like(lengths)), lengths)

        return Target(
            vectors[0],
            denoiser,
            self.tokenizer.decode,
            encode or self.encoder.encode,
            mask_token_id=self.config.mask_token_id,
            length_probs=np.exp(self.length_log_probs(vectors, noise_level)[0]),
            pinned={position: self.token_id(token) for position, token in (pinned or {}).items()},
            generator=generator or torch.Generator(),
            device=self.model.device,
            watch=watch,
        )

    def _verified(
        self, vectors: np.ndarray, texts: Sequence[str], encode: Encode | None
    ) -> tuple[np.ndarray, np.ndarray]:
        written = [row for row, text in enumerate(texts) if text.strip()]
        cosines, queries = np.zeros(len(texts)), np.zeros(len(texts), int)
        if written:
            again = np.asarray((encode or self.encoder.encode)([texts[row] for row in written]), np.float32)
            cosines[written] = cosine(again, vectors[written])
            queries[written] = 1
        return cosines, queries


def _searched(
    result: Inversion,
    targets: Iterable[Target],
    drafts: list[list[Tokens]],
    strategies: list[Strategy],
    watch: Watch | None,
) -> Inversion:
    """The result after the search; when it is stopped (Ctrl-C), what was found so far stays."""
    texts, errors = list(result.texts), ["the search was stopped before it began"] * len(drafts)
    cosines, queries, calls = np.full(len(texts), np.nan), result.encoder_queries.copy(), result.model_calls.copy()

    def take_over(row: int, target: Target, error: str | None) -> None:
        if target.found:
            texts[row], cosines[row] = target.best(1)[0].text, target.best(1)[0].cosine
        queries[row], errors[row] = target.queries, error
        calls[row] = result.model_calls[row] + target.model_calls

    with tqdm(total=len(drafts), desc="search", unit=" vectors", disable=watch is not None) as bar:
        for row, target in enumerate(targets):
            try:
                for best in improve(target, strategies, drafts[row]):
                    bar.set_postfix_str(f"{target.queries} queries, cosine {best.cosine:.3f}: {best.text[:60]}")
                    if watch:
                        watch(best)
            except KeyboardInterrupt:
                take_over(row, target, "the search was stopped")
                break
            take_over(row, target, target.error)
            bar.update()
    return dataclasses.replace(
        result, texts=texts, cosines=cosines, model_calls=calls, encoder_queries=queries, errors=errors
    )


def _check_candidates(candidates: int, decoding: dict) -> None:
    if candidates < 1:
        raise InputError(f"candidates must be at least 1, got {candidates}")
    if candidates > 1 and not (decoding.get("temperature") or decoding.get("order_noise")):
        raise InputError(f"{candidates} candidates would all be the same; set temperature or order_noise above 0")


def _likeliest(drafts: list[list[Draft]], keep_trajectories: bool, calls_per_step: int) -> Inversion:
    """The likeliest draft of every vector; all its drafts are paid for."""
    chosen = [max(own, key=lambda draft: draft.log_prob) for own in drafts]
    return Inversion(
        texts=[draft.text for draft in chosen],
        cosines=None,
        model_calls=calls_per_step * np.array([sum(draft.model_calls for draft in own) for own in drafts]),
        encoder_queries=np.zeros(len(drafts), int),
        trajectories=[draft.trajectory for draft in chosen] if keep_trajectories else [],
        errors=[None] * len(drafts),
    )


def _keep_one_trajectory(drafts: list[Draft], draft: Draft) -> None:
    """Add a draft; only the likeliest one keeps its trajectory, so that many candidates need little memory."""
    best = max(drafts, key=lambda other: other.log_prob, default=None)
    if best is not None:
        worse = best if draft.log_prob > best.log_prob else draft
        if worse is draft:
            draft = dataclasses.replace(draft, trajectory=None)
        else:
            drafts[drafts.index(best)] = dataclasses.replace(best, trajectory=None)
    drafts.append(draft)


def check_vectors(vectors: Any, embed_dim: int) -> np.ndarray:
    """Vectors as float32 [n, embed_dim] of unit length, or an `InputError` that names the offending row."""
    if isinstance(vectors, Tensor):
        vectors = vectors.detach().to("cpu", torch.float32).numpy()
    try:
        array = np.asarray(vectors)
    except ValueError:
        raise InputError("the vectors have unequal lengths; give a rectangular array") from None
    if array.size == 0:
        raise InputError("there is no vector to invert; give at least one")
    if array.dtype.kind not in "fiu":
        raise InputError(f"vectors must be numbers, got dtype {array.dtype}")
    array = np.atleast_2d(array).astype(np.float32)
    if array.ndim != 2 or array.shape[1] != embed_dim:
        raise InputError(
            f"got vectors of shape {np.shape(vectors)}; this checkpoint inverts {embed_dim}-dimensional vectors, "
            f"[{embed_dim}] or [n, {embed_dim}]"
        )
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise InputError(
            f"vector {int(np.flatnonzero(~finite)[0])} has NaN or infinite entries; remove it or repair its source"
        )
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    if not norms.all():
        raise InputError(f"vector {int(np.flatnonzero(norms == 0)[0])} is all zeros; it has no direction to invert")
    return array / norms


def _by_length(lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Rows in batches of similar length, so that little padding is computed; a progress bar when long.

    Inside another bar, as in an audit of many chunks, it goes when it is full.
    """
    order = np.argsort(lengths, kind="stable")
    with tqdm(total=len(order), desc="invert", unit=" vectors", leave=None, disable=len(order) < LONG) as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            yield rows
            bar.update(len(rows))
