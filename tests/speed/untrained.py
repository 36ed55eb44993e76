"""An inverter without training: random weights of any shape, to be timed where the trained ones are not at hand."""

import torch
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import WordLevel
from torch import nn

from invlib.config import ModelConfig
from invlib.inverter import Inverter
from invlib.model import ConditionalMDLM
from invlib.tokenizer import Tokenizer

SHARPNESS = 5.0  # standard deviation of the logits


def untrained(config: ModelConfig, seed: int = 0) -> Inverter:
    """An fp32 inverter of the configuration's shape; every piece of its vocabulary is a number.

    Training starts from a modulation of zero, small embeddings and logits that are nearly alike. Here vectors, tokens
    and positions are heard and the logits are `SHARPNESS` apart, so that rounding does not decide what is likeliest.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ConditionalMDLM(config).eval()
        for adaln in [*(a for block in model.blocks for a in (block.adaln1, block.adaln2)), model.final_norm]:
            nn.init.normal_(adaln.proj.weight, std=config.hidden_dim**-0.5)
        nn.init.normal_(model.cond_proj[0].weight)  # unit vectors come in, states of unit variance go on
        nn.init.normal_(model.cond_proj[2].weight, std=config.hidden_dim**-0.5)
        nn.init.normal_(model.token_embed.weight)
        nn.init.normal_(model.pos_embed.weight)
    spread = float(model.output_table.detach().std()) * config.hidden_dim**0.5  # of logits over states of unit variance
    nn.init.constant_(model.final_norm.proj.bias[: config.hidden_dim], SHARPNESS / spread - 1)
    numbers = FastTokenizer(WordLevel({str(number): number for number in range(config.vocab_size)}, unk_token="0"))
    return Inverter(model, Tokenizer(numbers, mask_token_id=None, unk_token_id=0))
