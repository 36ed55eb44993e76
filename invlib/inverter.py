"""Inverter: from vectors back to sentences. Joins model, tokenizer, sampler and (where asked) the encoder."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from invlib import checkpoint
from invlib.alignment import TAKER, Alignment
from invlib.door import options as door
from invlib.door.files import guarded
from invlib.door.options import DEVICE, ENCODER, FLAG, GENERATOR, NOT_NEGATIVE, PINS, PRECISION, Checked, whole, within
from invlib.door.vectors import check_vectors
from invlib.errors import InputError, options_of, require, shown
from invlib.model import ConditionalMDLM
from invlib.policies import top_confidence
from invlib.products import int8
from invlib.sampler import Sampling, denoise, guided, row_streams
from invlib.search import STRATEGIES, Encode, Strategy, Target, Tokens, closest, search_all
from invlib.sources.cells import stacked
from invlib.tokenizer import Tokenizer
from invlib.trajectory import Step, Trajectory

TOP_K = 5  # alternatives kept per position and step
LONG = 512  # vectors from which on a progress bar is shown
ALIGNMENT = door.Domain("an invlib.Alignment, or None", lambda value: isinstance(value, Alignment | None))


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
class Decoding(Sampling):
    """How a vector becomes text: a `Sampling`, and what it listens to.

    guidance_scale: w in uncond + w (cond - uncond), on log-probabilities (classifier-free guidance). It rises from 1,
      all masked, to its value, none masked: strong guidance helps late and hurts early (arXiv 2507.08965). Unless it
      is 1, the model is called twice as often.
    conditional: False ignores the vectors (but for the lengths): what the model writes by itself, the prior.
    pinned: {position: token id or piece} that hold in every text.
    start: {position: token id or piece} to go on from: visible, but a policy that re-masks may change them.
    """

    guidance_scale: float = within(NOT_NEGATIVE, default=1.0)
    conditional: bool = within(FLAG, default=True)
    pinned: Mapping[int, int | str] | None = within(PINS, default=None)
    start: Mapping[int, int | str] | None = within(PINS, default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        w = self.guidance_scale
        require(w == 1 or self.conditional, "guidance_scale", "1 with conditional=False", w)


@dataclass(frozen=True)
class Drafting(Checked):
    """How many drafts are written, and what is kept of them.

    candidates: independent drafts of each vector, under one modulation. Without a search the likeliest is the result.
    encoder: whom the search and `verify` ask: an `Encoder` or any function texts → vectors. Default: the checkpoint's.
    alignment: of the vectors' encoder to the checkpoint's (`invlib.Alignment`): the vectors are that foreign encoder's.
      `encoder` is then asked for it, and what it gives is compared in its own space.
    """

    candidates: int = within(whole(1, 4096), default=1)
    keep_trajectories: bool = within(FLAG, default=True)
    batch_size: int = within(whole(1, 2**16), default=64)
    generator: torch.Generator | None = within(GENERATOR, default=None)
    encoder: Any = within(ENCODER, default=None)
    alignment: Any = within(ALIGNMENT, default=None)


@dataclass
class Drafts:
    """All drafts of one vector: their tokens, what they cost, and the likeliest one with its trajectory."""

    stream: torch.Generator  # the first draft's; a search goes on with it
    tokens: list[Tokens] = field(default_factory=list)
    model_calls: int = 0
    text: str = ""
    trajectory: Trajectory | None = None
    log_prob: float = -np.inf  # of the tokens as they were written


class Inverter:
    """Open one with `Inverter.load`, then `invert(vectors)`.

    `encoder` is opened when it is first used; inverting without it (`verify=False`) never asks for it.
    `name` is what `load` was given.
    """

    name: str | None = None

    def __init__(self, model: ConditionalMDLM, tokenizer: Tokenizer, encoder: Any = None):
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
        encoder: Any = None,
        tokenizer: Tokenizer | None = None,
    ) -> "Inverter":
        """Open a checkpoint: "minilm" (bundled), a folder that training wrote, or the published .pt file.

        dtype: of the weights; torch.int8 leaves them in fp32 and multiplies in eight bits, on a CPU that does so faster
          (else in fp32, on an accelerator in bf16).
        encoder, tokenizer: already open ones, instead of those that the checkpoint's configuration names.
        Raises `InputError` for a checkpoint that is absent, damaged, of other shapes, or that would run code.
        """
        DEVICE.check("device", device)
        PRECISION.check("dtype", dtype)
        require(isinstance(tokenizer, Tokenizer | None), "tokenizer", "an invlib.Tokenizer or None", tokenizer)
        path = checkpoint.locate(name)
        model, config = checkpoint.read(path)
        tokenizer = tokenizer or Tokenizer.load(path if path.is_dir() else config.decoder_tokenizer)
        checkpoint.check_tokenizer(config, tokenizer, path)
        model = model.to(device=device, dtype=torch.float32 if dtype == torch.int8 else dtype)
        inverter = cls(int8.quick(model) if dtype == torch.int8 else model, tokenizer, encoder)
        inverter.name = str(name)
        return inverter

    @cached_property
    def encoder(self) -> Any:
        """The `Encoder` whose vectors this checkpoint inverts."""
        from invlib.encoder import Encoder  # only here: it brings sentence-transformers along

        return Encoder.load(self.config.encoder_model, device=self.model.device)

    @property
    def corrects(self) -> bool:
        """Whether the checkpoint has a corrector, which `invlib.search.Rewrite` asks."""
        return bool(self.config.corrector_dim)

    @cached_property
    def quick(self) -> ConditionalMDLM:
        """The model as a search asks it: for proposals, which need not be exact."""
        return int8.quick(self.model)

    # Eight that decide what comes back have names of their own; all others are fields of two option values.
    def invert(
        self,
        vectors: Any,
        *,
        num_steps: int = 8,
        policy: Any = top_confidence,
        length: int | Sequence[int] | np.ndarray | None = None,
        noise_level: float | Sequence[float] | np.ndarray = 0.0,
        pinned: Mapping[int, int | str] | None = None,
        search: Strategy | Sequence[Strategy] = (),
        verify: bool = False,
        **options: Any,
    ) -> Inversion:
        """Vectors → sentences, from all masks: drafts, then a search from them, or one look at the result.

        vectors: [embed_dim] or [n, embed_dim], numpy, torch or lists; only their direction counts.
        length: number of tokens, for all or per vector; default: what the model predicts, or all its positions.
        noise_level: σ√d of the vectors' Gaussian noise, for all or per vector (needs a noise condition); 0: clean.
        search: the encoder in the loop: strategies of `invlib.search` in their order. verify: encode each text once.
        options: fields of `Decoding` (temperature, guidance_scale, …) and `Drafting` (candidates, generator, …).

        Raises `InputError` for a wrong dimension, NaN, infinite or zero vectors, none at all, and every option outside
        its domain. An encoder that fails during a search ends it: see `Inversion.errors`.
        """
        options |= {"num_steps": num_steps, "policy": policy, "pinned": pinned}
        decoding, drafting = _ways(options, search, verify)
        asked = self._checked(vectors, drafting.alignment)  # in the space of the encoder that is asked
        vectors = asked if drafting.alignment is None else self._checked(drafting.alignment(asked))
        noise = _noise_levels(noise_level, len(vectors))
        drafts = self._drafts(vectors, self._lengths(vectors, length, noise), noise, decoding, drafting)
        result = _likeliest(drafts, drafting, decoding)
        encode = getattr(drafting.encoder, "encode", drafting.encoder)
        if search:
            about = {"pinned": pinned, "encode": encode, "alignment": drafting.alignment}
            levels = np.zeros(len(vectors)) if noise is None else noise
            return self._searched(result, drafts, zip(asked, map(float, levels), strict=True), search, about)
        return self._verified(result, asked, encode) if verify else result

    def _searched(
        self, result: Inversion, drafts: list[Drafts], each: Iterable, search: Any, about: Mapping[str, Any]
    ) -> Inversion:
        """The result after a search from every vector's drafts. each: vectors with their noise levels."""
        targets = (
            self.target(vector, generator=own.stream, noise_level=level, **about)
            for (vector, level), own in zip(each, drafts, strict=True)
        )
        done = search_all(targets, search, [own.tokens for own in drafts])
        return replace(result, **closest(done, result.texts, result.model_calls))

    def _drafts(
        self,
        vectors: np.ndarray,
        lengths: np.ndarray,
        noise: np.ndarray | None,
        decoding: Decoding,
        drafting: Drafting,
    ) -> list[Drafts]:
        """`candidates` drafts of every vector, batches of similar length one after the other."""
        options = {f.name: getattr(decoding, f.name) for f in fields(decoding)}
        options["top_k"], each = TOP_K if drafting.keep_trajectories else 0, drafting.candidates
        streams = row_streams(len(vectors) * each, drafting.generator)
        drafts = [Drafts(streams[row * each]) for row in range(len(vectors))]
        for rows in _by_length(np.repeat(lengths, each), drafting.batch_size):
            own = rows // each
            options |= {"noise_level": None if noise is None else noise[own], "generator": [streams[r] for r in rows]}
            steps = list(self.steps(vectors[own], lengths[own], **options))
            for place, vector in enumerate(own):
                self._add(drafts[vector], steps, place, int(lengths[vector]), drafting.keep_trajectories)
        return drafts

    def _add(self, drafts: Drafts, steps: list[Step], place: int, length: int, keep_trajectory: bool) -> None:
        """One row of a finished batch; only the likeliest keeps its trajectory, so that many need little memory."""
        last = steps[-1]
        tokens = tuple(last.tokens[place, :length].tolist())
        drafts.tokens.append(tokens)
        drafts.model_calls += int(last.model_calls[place])
        log_prob = float(last.confidence[place, :length].log().sum())
        if len(drafts.tokens) > 1 and not log_prob > drafts.log_prob:
            return
        drafts.log_prob, drafts.text = log_prob, self.tokenizer.decode(tokens)
        if keep_trajectory:
            about = {"mask_token_id": self.config.mask_token_id, "pieces": self.tokenizer.pieces, "text": drafts.text}
            drafts.trajectory = Trajectory.from_steps(steps, place, length, **about)

    def steps(
        self,
        vectors: np.ndarray,
        lengths: np.ndarray,
        *,
        noise_level: np.ndarray | None = None,
        top_k: int = TOP_K,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        **options: Any,
    ) -> Iterator[Step]:
        """The Steps of one batch of unit vectors [n, embed_dim], as they happen; whoever iterates may stop.

        lengths: tokens of each [n]. noise_level: of each [n]; None: clean. options: fields of `Decoding`.
        """
        (decoding,), model = options_of((Decoding,), options), self.model
        lengths, mask = torch.as_tensor(lengths, device=model.device), self.config.mask_token_id
        pinned = self._grid("pinned", decoding.pinned or {}, lengths)
        start = torch.where(pinned == mask, self._grid("start", decoding.start or {}, lengths), pinned)
        embedding = torch.from_numpy(vectors).to(model.device)
        nothing = torch.ones(len(vectors), dtype=torch.bool, device=model.device)
        with torch.inference_mode():
            level = None if noise_level is None else torch.as_tensor(noise_level).to(model.device)
            modulation = model.modulation(embedding, None if decoding.conditional else nothing, level)
            predict = model.predictor(modulation, lengths)
            if decoding.guidance_scale != 1:
                prior = model.modulation(embedding[:1], nothing[:1]).rows(torch.zeros_like(lengths))
                predict = guided(predict, model.predictor(prior, lengths), lengths, decoding.guidance_scale, mask)
        how = {f.name: getattr(decoding, f.name) for f in fields(Sampling)}
        given = {"start": start, "pinned": pinned != mask, "top_k": top_k, "generator": generator}
        return denoise(predict, lengths, mask_token_id=mask, **given, **how)

    @torch.inference_mode()
    def length_log_probs(self, vectors: Any, noise_level: float | Sequence[float] | np.ndarray = 0.0) -> np.ndarray:
        """log p(number of tokens | vector), [n, max_seq_len]; column l is a length of l + 1.

        Without a length head all positions are decoded: the last column has probability 1.
        """
        embedding, level = self._heard(vectors, noise_level)
        if not self.config.length_head:
            return torch.eye(self.config.max_seq_len)[-1:].expand(len(embedding), -1).log().numpy()
        return self.model.length_logits(embedding, level).float().log_softmax(dim=1).cpu().numpy()

    @torch.inference_mode()
    def predict_lengths(self, vectors: Any, noise_level: float | Sequence[float] | np.ndarray = 0.0) -> np.ndarray:
        """Number of tokens that the model expects of each vector, [n]: the median; without a head all it has."""
        embedding, level = self._heard(vectors, noise_level)
        if not self.config.length_head:
            return np.full(len(embedding), self.config.max_seq_len)
        return self.model.predicted_lengths(embedding, level).cpu().numpy()

    def _checked(self, vectors: Any, alignment: Alignment | None = None) -> np.ndarray:
        """Unit vectors [n, embed_dim]; cells, as a data frame's column or an array of rows holds them, are stacked.

        With an alignment they are those of its foreign encoder, before it maps them.
        """
        cells = getattr(getattr(vectors, "dtype", None), "kind", "") == "O"
        vectors = stacked(list(vectors)) if cells else vectors
        if alignment is not None:
            return check_vectors(vectors, alignment.foreign_dim, TAKER)
        return check_vectors(vectors, self.config.embedding_cond_dim)

    def _heard(self, vectors: Any, noise_level: Any) -> tuple[Tensor, Tensor | None]:
        """Vectors and their noise levels as the model takes them."""
        vectors, device = self._checked(vectors), self.model.device
        noise = _noise_levels(noise_level, len(vectors))
        return torch.from_numpy(vectors).to(device), None if noise is None else torch.from_numpy(noise).to(device)

    def _lengths(self, vectors: np.ndarray, length: Any, noise: np.ndarray | None) -> np.ndarray:
        """How many tokens are decoded of each vector [n]: what was given, or the median of what the model expects."""
        if length is None:
            return self.predict_lengths(vectors, 0.0 if noise is None else noise)
        top = self.config.max_seq_len
        domain = f"an integer from 1 to {top}"
        given = _each("length", length, len(vectors), domain, lambda n: isinstance(n, np.integer) and 1 <= n <= top)
        return given.astype(np.int64)  # torch compares no unsigned ones

    def _grid(self, name: str, tokens: Mapping[int, int | str], lengths: Tensor) -> Tensor:
        """The tokens at their positions in every row of [batch, length], masks elsewhere."""
        grid = torch.full((len(lengths), int(lengths.max())), self.config.mask_token_id, device=lengths.device)
        for position, token in tokens.items():
            if not 0 <= position < int(lengths.min()):
                told = f"{name} position {position} is outside a text of {int(lengths.min())} tokens"
                raise InputError(f"{told}; positions count from 0, and length= sets how many there are")
            grid[:, position] = self.token_id(token)
        return grid

    def token_id(self, token: int | str) -> int:
        """A token id, or the id of the one piece that a text consists of. Raises `InputError` for anything else."""
        PINS.check("pinned", {0: token})
        ids = self.tokenizer.ids_of(token) if isinstance(token, str) else [token]
        if len(ids) != 1 or not 0 <= ids[0] < self.config.vocab_size or ids[0] == self.config.mask_token_id:
            pieces = self.tokenizer.pieces(ids) if isinstance(token, str) else ids
            told = f"{token!r} is not one token of the vocabulary ({pieces})"
            raise InputError(f"{told}; pin one piece or an id below {self.config.vocab_size} other than [MASK]")
        return int(ids[0])

    def target(self, vector: np.ndarray, *, pinned: Mapping[int, int | str] | None = None, **options: Any) -> Target:
        """What `search.improve` works on: one vector [embed_dim] and this denoiser; options: those of `Target.of`."""
        (vector,) = self._checked(vector, options.get("alignment"))
        _noise_levels(options.get("noise_level", 0.0), 1)
        PINS.check("pinned", pinned)
        pinned = {position: self.token_id(token) for position, token in (pinned or {}).items()}
        return Target.of(self, vector, pinned=pinned, **options)

    def _verified(self, result: Inversion, vectors: np.ndarray, encode: Encode | None) -> Inversion:
        from invlib.metrics import reencoded_cosines  # only here: metrics bring pandas and scipy along

        with guarded("the encoder failed", "repair it, or wait for its service; verify=False decodes without it"):
            cosines = reencoded_cosines(vectors, result.texts, encode or self.encoder.encode)
        queries = np.array([int(bool(text.strip())) for text in result.texts])
        return replace(result, cosines=cosines, encoder_queries=queries)


def _ways(options: Mapping[str, Any], search: Any, verify: Any) -> tuple[Decoding, Drafting]:
    """The two option values of an inversion, each checked, and all together."""
    STRATEGIES.check("search", search)
    FLAG.check("verify", verify)
    decoding, drafting = options_of((Decoding, Drafting), options)
    if drafting.candidates > 1 and not (decoding.temperature or decoding.order_noise):
        raise InputError("candidates would all be the same; set temperature or order_noise above 0")
    if drafting.alignment is not None and (search or verify) and drafting.encoder is None:
        raise InputError(
            "with an alignment the foreign encoder is asked; pass encoder=, a function texts → its vectors"
        )
    return decoding, drafting


def _likeliest(drafts: list[Drafts], drafting: Drafting, decoding: Decoding) -> Inversion:
    """The likeliest draft of every vector; all its drafts are paid for, twice where they are guided."""
    each = 1 if decoding.guidance_scale == 1 else 2
    return Inversion(
        texts=[own.text for own in drafts],
        cosines=None,
        model_calls=each * np.array([own.model_calls for own in drafts]),
        encoder_queries=np.zeros(len(drafts), int),
        trajectories=[own.trajectory for own in drafts] if drafting.keep_trajectories else [],
        errors=[None] * len(drafts),
    )


def _noise_levels(noise_level: Any, count: int) -> np.ndarray | None:
    """One level per vector [count]; None where all vectors are clean, which every checkpoint can invert."""
    levels = _each("noise_level", noise_level, count, "σ√d, a number from 0 on", lambda level: 0 <= level < np.inf)
    return levels.astype(np.float32) if levels.any() else None


def _each(name: str, value: Any, count: int, domain: str, fits: Callable[[Any], bool]) -> np.ndarray:
    """One value for each vector [count] from one for all, or from one for each."""
    try:
        array = np.asarray(value)
        right = array.dtype.kind in "fiu" and array.shape in ((), (count,)) and all(map(fits, array.flat))
    except (ValueError, TypeError, RuntimeError):  # rows of unequal lengths; tensors without numbers
        right = False
    if not right or isinstance(value, np.ma.MaskedArray):
        raise InputError(f"{name} must be {domain}, or one for each of the {count} vectors; got {shown(value)}")
    return np.broadcast_to(array, count)


def _by_length(lengths: np.ndarray, batch_size: int) -> Iterable[np.ndarray]:
    """Rows in batches of similar length, so that little padding is computed; a progress bar when long."""
    order = np.argsort(lengths, kind="stable")
    batches = np.split(order, range(batch_size, len(order), batch_size))
    # Inside another bar, as in an audit of many chunks, it goes when it is full.
    return tqdm(batches, desc="invert", unit=" batches", leave=None, disable=len(order) < LONG)
