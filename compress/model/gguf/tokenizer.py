"""The tokenizer in a GGUF file, built so that it gives the ids that llama.cpp gives."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from compress.model.gguf.container import field, opened, special
from compress.model.gguf.graphs import ADDED, CONTROL, DIGITS, SPLITS, UNKNOWN, UNUSED

if TYPE_CHECKING:
    from gguf import GGUFReader

_SAME_SPLIT = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "deepseek-r1-qwen": "qwen2"}  # other names of some
_SPACE = "▁"  # SentencePiece's


def read_tokenizer(file: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a GGUF file, which gives the ids that llama.cpp gives.

    Parameters
    ----------
    file
        That `check` has let through.

    Returns
    -------
    PreTrainedTokenizerBase
        A fast one, with the chat template.

    Raises
    ------
    ValueError
        It is of a kind, or takes texts apart in a way, that is not known here.
    """
    reader = opened(file)
    tokens, kinds = _ggml(reader, "tokens"), _ggml(reader, "token_type")
    kind = _ggml(reader, "model")
    if not tokens or not kinds or kind not in ("gpt2", "llama"):
        raise ValueError(f"it has a tokenizer of kind {kind}, known are gpt2 and llama: give the model in safetensors")
    plain = kind == "gpt2"
    backend = _byte_level(reader, tokens, kinds) if plain else _sentencepiece(reader, tokens)
    named = {name: tokens[i] for name, i in special(reader).items()}
    unsplit = {t: kind for t, kind in zip(tokens, kinds, strict=True) if kind in (CONTROL, UNKNOWN, ADDED)}
    unsplit |= dict.fromkeys(named.values(), CONTROL)
    backend.add_tokens([AddedToken(t, normalized=False, special=kind != ADDED) for t, kind in unsplit.items()])
    _add_ends(reader, backend, tokens, default=not plain or _split(reader) == "llama-bpe")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **named)
    tokenizer.chat_template = field(reader, "tokenizer.chat_template")
    return tokenizer


def _byte_level(reader: "GGUFReader", tokens: list[str], kinds: list[int]) -> Tokenizer:
    """A tokenizer that merges bytes as its file says."""
    split = _split(reader)
    vocabulary = {t: i for i, (t, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind != UNUSED}
    merges = [tuple(merge.split(" ", 1)) for merge in _ggml(reader, "merges") or ()]
    backend = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=split == "llama-bpe"))
    pattern = next(pattern for pattern, name in SPLITS.items() if name == split)
    steps = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern in ("", DIGITS))]
    if pattern == DIGITS:
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    elif pattern:
        steps.insert(0, pre_tokenizers.Split(Regex(pattern), "isolated"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(reader: "GGUFReader", tokens: list[str]) -> Tokenizer:
    """A tokenizer that merges letters, the pair whose token has the highest score first, and knows all bytes."""
    vocabulary = {token: i for i, token in enumerate(tokens)}
    scores, prefix = _ggml(reader, "scores"), _ggml(reader, "add_space_prefix", True)
    merges = []
    for token in sorted(vocabulary, key=lambda token: (-scores[vocabulary[token]], vocabulary[token])):
        pairs = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        merges += [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
    unknown = tokens[_ggml(reader, "unknown_token_id", 0)]
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    spaces = [normalizers.Prepend(_SPACE)] if prefix else []
    backend.normalizer = normalizers.Sequence([*spaces, normalizers.Replace(" ", _SPACE)])
    ends = [decoders.Strip(" ", 1, 0)] if prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *ends]
    )
    return backend


def _split(reader: "GGUFReader") -> str:
    """How a byte-level tokenizer takes texts apart, one of the values of `SPLITS`. Raises ValueError for others."""
    name = _ggml(reader, "pre", "(none)")
    name = _SAME_SPLIT.get(name, name)
    if name not in SPLITS.values():
        known = ", ".join([*SPLITS.values(), *_SAME_SPLIT])
        raise ValueError(f"it takes texts apart as '{name}' does, known are {known}: give the model in safetensors")
    return name


def _add_ends(reader: "GGUFReader", backend: Tokenizer, tokens: list[str], default: bool) -> None:
    """Let a tokenizer write the tokens at the begin and the end that the file says; default: of the begin."""
    ids = special(reader)
    begin, end = _ggml(reader, "add_bos_token", default), _ggml(reader, "add_eos_token", False)
    before = [ids["bos_token"]] if begin and "bos_token" in ids else []
    after = [ids["eos_token"]] if end and "eos_token" in ids else []
    if before or after:
        one = [tokens[i] for i in before], [tokens[i] for i in after]
        backend.post_processor = processors.TemplateProcessing(
            single=[*one[0], "$A", *one[1]],
            pair=[*one[0], "$A", *one[1], *(f"{t}:1" for t in one[0]), "$B:1", *(f"{t}:1" for t in one[1])],
            special_tokens=[(tokens[i], i) for i in {*before, *after}],
        )


def _ggml(reader: "GGUFReader", key: str, default: Any = None) -> Any:
    return field(reader, f"tokenizer.ggml.{key}", default)
