"""Small real things that several tests use: a configuration, two encoders, a tokenizer, a few sentences, a browser."""

import os
import runpy
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: no test may wait for a network
os.environ["OMP_NUM_THREADS"] = "1"  # one per worker, and for what a test starts: sums do not depend on the cores

# The sitecustomize there refuses every address but this machine's, here and in every process that a test starts.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).with_name("offline")), os.environ.get("PYTHONPATH")])
)

import pytest
import torch
from playwright.sync_api import Browser, Page, expect

from invlib.config import ModelConfig, load_config
from invlib.encoder import Encoder
from invlib.inverter import Inverter
from invlib.tokenizer import Tokenizer
from invlib.training.vocabulary import prune
from tests import pages

runpy.run_path(str(Path(__file__).with_name("offline") / "sitecustomize.py"))
torch.set_num_threads(1)  # a plugin may have imported torch before

SENTENCES = (
    "The old lighthouse keeper climbed the narrow stairs.",
    "She sold fresh fish at the market every morning.",
    "A small red boat drifted across the quiet lake.",
    "Nobody knew why the baker closed his shop.",
    "The children built a castle out of wet sand.",
    "Rain fell on the roof all night long.",
    "He repaired the broken clock with great care.",
    "The train to the coast leaves at noon.",
    "Two dogs chased a ball through the park.",
    "My neighbour grows tomatoes behind the house.",
    "The teacher read a story about the moon.",
    "Cold wind came down from the mountains.",
)
TINY_QWEN3_WORDS = [
    *("[PAD]", "[EOS]", "[UNK]", "Instruct", ":", "find", "the", "a", "big", "small", "red"),
    *("cat", "dog", "mat", "sat", "ran", "on", "under", ".", ","),
]


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    """Twelve sentences of 8 to 11 pieces."""
    return list(SENTENCES)


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    """A model with every option, of a few thousand weights."""
    return ModelConfig(
        vocab_size=60,
        max_seq_len=8,
        hidden_dim=32,
        num_layers=2,
        num_heads=4,
        ff_dim=64,
        embedding_cond_dim=16,
        mask_token_id=4,
        encoder_model="minilm",
        decoder_tokenizer="pruned",
        gate=True,
        length_head=True,
        tie_embeddings=True,
        null_embedding=True,
        standardize=True,
    )


@pytest.fixture(scope="session")
def minilm() -> Encoder:
    """The bundled encoder. It is shared, so its `queries` go on counting."""
    return Encoder.load()


@pytest.fixture(scope="session")
def inverter(minilm) -> Inverter:
    """The bundled checkpoint. It is shared: whoever changes it, changes a copy or undoes it."""
    return Inverter.load("minilm", encoder=minilm)


@pytest.fixture(scope="session")
def small_inverter() -> Inverter:
    """Random weights of the tiny configuration: for what holds whatever a model has learned."""
    from tests.speed.untrained import untrained

    return untrained(load_config(pages.ROOT / "configs" / "tiny.yaml").model)


@pytest.fixture(scope="session")
def pruned(minilm, sentences) -> Tokenizer:
    """The bundled encoder's tokenizer, pruned to little more than its single characters."""
    return prune(minilm.tokenizer, sentences, 2304)


@pytest.fixture(scope="session")
def tiny_qwen3_folder(tmp_path_factory) -> str:
    """A sentence-transformers folder of Qwen3-Embedding's make: left padding, last token, prompts. Random weights."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import Qwen3Config, Qwen3Model

    folder = tmp_path_factory.mktemp("tiny_qwen3")
    transformer = str(folder / "transformer")
    _tiny_qwen3_tokenizer().save_pretrained(transformer)
    config = Qwen3Config(
        vocab_size=len(TINY_QWEN3_WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen3Model(config).save_pretrained(transformer)
    modules = [Transformer(transformer, max_seq_length=32), Pooling(32, "lasttoken"), Normalize()]
    model = SentenceTransformer(modules=modules, device="cpu", prompts={"query": "Instruct: find "})
    model.save(str(folder / "encoder"))
    return str(folder / "encoder")


@pytest.fixture(scope="session")
def tiny_qwen3(tiny_qwen3_folder) -> Encoder:
    """That folder, opened. It is shared, so its `queries` go on counting."""
    return Encoder.load(tiny_qwen3_folder)


def _tiny_qwen3_tokenizer():
    from tokenizers import Tokenizer as FastTokenizer
    from tokenizers import models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {word: index for index, word in enumerate(TINY_QWEN3_WORDS)}
    backend = FastTokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(single="$A [EOS]", special_tokens=[("[EOS]", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", eos_token="[EOS]", unk_token="[UNK]", padding_side="left"
    )


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, headless. Not for the whole session: its event loop would be in the way of nbclient's."""
    with pages.chromium() as browser:
        expect.set_options(timeout=30_000)  # a slow machine under load is not an error
        yield browser


@pytest.fixture
def open_file(chromium):
    """Opens a file with the network off; in the end no request has left this machine and no error was seen."""
    requests, errors, contexts = [], [], []

    def opened(file: Path, *, width: int = 1000, theme: str = "light") -> Page:
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.clock.install(time=0)
        page.goto(file.as_uri())
        page.clock.pause_at(3600)  # from here on time stands still until a test lets it run
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not errors
    assert requests and all(url.startswith(("file:", "blob:")) for url in requests), requests


@pytest.fixture
def open_page(open_file, tmp_path):
    """Opens a body of HTML as a page of its own."""

    def opened(body: str, *, html: str = "", body_tag: str = "", **view) -> Page:
        file = tmp_path / "page.html"
        file.write_text(
            f'<!doctype html><html {html}><meta charset="utf-8"><title>page</title>'
            f'<body {body_tag} style="margin: 12px">{body}</body></html>',
            encoding="utf-8",
        )
        return open_file(file, **view)

    return opened
