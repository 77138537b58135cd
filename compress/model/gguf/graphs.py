"""What llama.cpp calls the tensors and the tokenizers of the models that its graphs compute; written and read here.

The names of tensors and settings: https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

_OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_INNER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_GEMMA3 = {path: name for path, name in _INNER.items() if path != "post_attention_layernorm"} | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


@dataclass(frozen=True)
class Graph:
    """How llama.cpp computes a model type.

    Attributes
    ----------
    name
        Of the graph.
    neighbours
        Whether the two numbers that the rotary embedding turns lie side by side, not half a head apart as in
        transformers: then rows of the queries and the keys change places.
    inner
        What llama.cpp calls the modules of a block.
    shifted
        Whether transformers stores of the weight of a norm what it is above one.
    """

    name: str
    neighbours: bool = False
    inner: Mapping[str, str] = field(default_factory=lambda: _INNER)
    shifted: bool = False

    def tensor(self, path: str) -> str:
        """What llama.cpp calls a parameter.

        Parameters
        ----------
        path
            Of transformers.

        Returns
        -------
        str
            The name of the tensor.
        """
        module, _, end = path.rpartition(".")
        if module in _OUTER:
            return f"{_OUTER[module]}.{end}"
        _, _, number, inner = module.split(".", 3)
        return f"blk.{number}.{self.inner[inner]}.{end}"

    def parameter(self, tensor: str) -> str | None:
        """What transformers calls a tensor.

        Parameters
        ----------
        tensor
            Of llama.cpp.

        Returns
        -------
        str or None
            The path of the parameter; None for a tensor that the graph has not.
        """
        module, _, end = tensor.rpartition(".")
        if not module.startswith("blk."):
            path = {name: path for path, name in _OUTER.items()}.get(module)
            return path and f"{path}.{end}"
        _, number, name = module.split(".", 2)
        path = {name: path for path, name in self.inner.items()}.get(name)
        return path and f"model.layers.{number}.{path}.{end}"

    def turned(self, path: str) -> str:
        """Of which heads the rows of a parameter are, where they change places.

        Parameters
        ----------
        path
            Of transformers.

        Returns
        -------
        str
            The setting of the config that counts these heads; "" for other parameters.
        """
        module = path.rpartition(".")[0]
        if self.neighbours and module.endswith("q_proj"):
            return "num_attention_heads"
        return "num_key_value_heads" if self.neighbours and module.endswith("k_proj") else ""

    def shift(self, path: str) -> float:
        """By how much llama.cpp's numbers of a parameter are larger.

        Parameters
        ----------
        path
            Of transformers.

        Returns
        -------
        float
            0 or 1.
        """
        return float(self.shifted and path.endswith("norm.weight"))


GRAPHS = {  # by model type
    "llama": Graph("llama", neighbours=True),
    "mistral": Graph("llama", neighbours=True),
    "qwen2": Graph("qwen2"),
    "qwen3": Graph("qwen3"),
    "smollm3": Graph("smollm3", neighbours=True),
    "granite": Graph("granite", neighbours=True),
    "gemma3_text": Graph("gemma3", inner=_GEMMA3, shifted=True),
}
# the way in which llama.cpp takes texts apart before it merges bytes, by the pattern of the tokenizer's own split
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_OTHERS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SENTENCEPIECE = "SentencePiece"  # letters are merged, by scores, and bytes only where there is no token
DIGITS = "digits"  # every one by itself, the rest as GPT-2 does
SPLITS = {
    _LETTERS + r"|\p{N}{1,3}" + _OTHERS: "llama-bpe",
    _LETTERS + r"|\p{N}" + _OTHERS: "qwen2",
    DIGITS: "smollm",
    "": "gpt-2",
}
SCALES = {  # of Granite: what llama.cpp calls the settings
    "attention_multiplier": "attention.scale",
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "logits_scaling": "logit_scale",
}
PERIOD = 6  # one block of Gemma 3 in so many looks at all tokens, unless the file says otherwise
NORMAL, UNKNOWN, CONTROL, ADDED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # kinds of tokens


def side_by_side(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows in the order in which the two halves of every head alternate.

    Parameters
    ----------
    rows
        (heads * width, ...), as of transformers.
    heads
        Number of heads.

    Returns
    -------
    ndarray
        Of the same shape.
    """
    halves = rows.reshape(heads, 2, -1, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def apart(rows: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `side_by_side`.

    Parameters
    ----------
    rows
        (heads * width, ...), as of llama.cpp.
    heads
        Number of heads.

    Returns
    -------
    ndarray
        Of the same shape.
    """
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)


def kinds_of_blocks(count: int, period: int) -> list[str]:
    """How far the blocks of Gemma 3 look back.

    Parameters
    ----------
    count
        Number of blocks.
    period
        One block in so many looks at all tokens.

    Returns
    -------
    list
        Of the names that transformers gives them.
    """
    return ["sliding_attention" if (i + 1) % period else "full_attention" for i in range(count)]


def query_scalar(count: int, width: int, share: int) -> int:
    """By the root of what the graph of Gemma 3 divides the products of queries and keys.

    Parameters
    ----------
    count
        Number of blocks.
    width
        Of a head.
    share
        Of a head of the width of the residual stream, which the largest model takes, known by its 62 blocks.

    Returns
    -------
    int
        As in transformers' config.
    """
    return share if count == 62 else width


def factors(rope: Mapping[str, float], width: int) -> np.ndarray:
    """By what the rotary frequencies of Llama 3 are divided, as transformers does.

    Parameters
    ----------
    rope
        The rotary settings of the config.
    width
        Of a head.

    Returns
    -------
    ndarray
        (width / 2,).
    """
    waves = 2 * np.pi * rope["rope_theta"] ** (np.arange(0, width, 2) / width)
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    smooth = np.clip((rope["original_max_position_embeddings"] / waves - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
