"""The tokenizer in a GGUF file, which gives the ids that llama.cpp gives: written and read."""

import json
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from compress.model.gguf.container import field, opened, special
from compress.model.gguf.graphs import ADDED, BYTE, CONTROL, DIGITS, NORMAL, SENTENCEPIECE, SPLITS, UNKNOWN, UNUSED

if TYPE_CHECKING:
    from gguf import GGUFReader, GGUFWriter

_SAME_SPLIT = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "deepseek-r1-qwen": "qwen2"}  # other names of some
_SPACE = "▁"  # SentencePiece's
_BYTES = {f"<0x{byte:02X}>" for byte in range(256)}


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
    order = sorted(vocabulary, key=lambda token: (-scores[vocabulary[token]], vocabulary[token]))
    merges = [pair for token in order for pair in _pairs(token, vocabulary)]
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


def write_tokenizer(writer: "GGUFWriter", tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Add a tokenizer to a GGUF file.

    Parameters
    ----------
    writer
        Of the file.
    tokenizer
        That `form_of` has let through.
    rows
        Of the embeddings, of which some may have no token.

    Raises
    ------
    ValueError
        As `form_of`.
    """
    form = form_of(tokenizer)
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    model = backend["model"]
    names = {i: token for token, i in tokenizer.get_vocab().items()}
    added = {i: CONTROL if token.special else ADDED for i, token in tokenizer.added_tokens_decoder.items()}
    plain = form != SENTENCEPIECE
    writer.add_tokenizer_model("gpt2" if plain else "llama")
    writer.add_tokenizer_pre(form if plain else "default")
    kinds = {i: NORMAL for i in names} | added
    if plain:
        writer.add_token_merges([" ".join(pair) for pair in _merges(model)])
    else:
        kinds |= {i: BYTE for i, name in names.items() if name in _BYTES}
        kinds[model["vocab"][model["unk_token"]]] = UNKNOWN
        scores = _scores(model)
        writer.add_token_scores([scores.get(names.get(i, ""), 0.0) for i in range(rows)])
        writer.add_add_space_prefix(backend["normalizer"]["type"] == "Sequence")
        writer.add_unk_token_id(model["vocab"][model["unk_token"]])
    writer.add_token_list([names.get(i, f"[UNUSED{i}]") for i in range(rows)])
    writer.add_token_types([kinds.get(i, UNUSED) for i in range(rows)])
    ids = tokenizer("a")["input_ids"]
    bos, eos, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    for add, token in ((writer.add_bos_token_id, bos), (writer.add_eos_token_id, eos), (writer.add_pad_token_id, pad)):
        if token is not None:
            add(token)
    writer.add_add_bos_token(bos is not None and ids[0] == bos)
    writer.add_add_eos_token(eos is not None and ids[-1] == eos)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def form_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """How llama.cpp calls the way in which a tokenizer takes texts apart.

    Parameters
    ----------
    tokenizer
        A fast one.

    Returns
    -------
    str
        One of the values of `SPLITS`, or SENTENCEPIECE.

    Raises
    ------
    ValueError
        llama.cpp does not know it.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    if backend["model"]["type"] == "BPE" and backend["model"].get("byte_fallback"):
        _check_sentencepiece(backend)
        return SENTENCEPIECE
    before, kinds = backend["pre_tokenizer"] or {}, []
    steps = before.get("pretokenizers", [before])
    for step in steps:
        if step.get("type") == "Split":
            kinds.append(step["pattern"].get("Regex", "?"))
        elif step.get("type") == "Digits" and step["individual_digits"]:
            kinds.append(DIGITS)
        elif step.get("type") != "ByteLevel" or step["add_prefix_space"] or not (step["use_regex"] or kinds):
            kinds.append("?")
    found = SPLITS.get("".join(kinds))
    normal = (backend["normalizer"] or {"type": "NFC"})["type"] == "NFC"
    if found is None or not normal or backend["model"]["type"] != "BPE" or steps[-1].get("type") != "ByteLevel":
        known = ", ".join([*SPLITS.values(), SENTENCEPIECE])
        raise ValueError(f"gguf knows tokenizers as of {known}: give such a model")
    return found


def _check_sentencepiece(backend: dict[str, Any]) -> None:
    """Raise ValueError for a tokenizer that merges letters otherwise than llama.cpp does, by a score of every token."""
    model, normalizer, before = backend["model"], backend["normalizer"] or {}, backend["pre_tokenizer"] or {}
    steps = normalizer.get("normalizers", [normalizer])
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    known = steps in ([spaces], [{"type": "Prepend", "prepend": _SPACE}, spaces])
    if not known or before.get("pattern", {"String": " "}) != {"String": " "} or before.get("type", "Split") != "Split":
        raise ValueError("gguf has SentencePiece tokenizers that replace spaces, and do no more: give such a model")
    apart = {token["content"] for token in backend["added_tokens"]}
    merges, vocabulary = _merges(model), model["vocab"]
    runs = [token for token, _ in groupby(first + second for first, second in merges)]
    pairs = {pair for token in vocabulary if token not in apart for pair in _pairs(token, vocabulary)}
    if len(runs) != len(set(runs)) or pairs != {pair for pair in merges if "".join(pair) not in apart}:
        raise ValueError("gguf has SentencePiece tokenizers that merge by a score of every token: give such a model")
    if not _BYTES <= vocabulary.keys() or model["unk_token"] not in vocabulary:
        raise ValueError("gguf has SentencePiece tokenizers that know every byte: give such a model")


def _merges(model: dict[str, Any]) -> list[tuple[str, str]]:
    """The pairs that a tokenizer merges, the first one first."""
    return [tuple(pair.split(" ", 1) if isinstance(pair, str) else pair) for pair in model["merges"]]


def _pairs(token: str, vocabulary: Iterable[str]) -> list[tuple[str, str]]:
    """The pairs of tokens that a token can be merged of."""
    pairs = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
    return [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]


def _scores(model: dict[str, Any]) -> dict[str, float]:
    """By token, the higher the earlier it is merged."""
    scores: dict[str, float] = {}
    for rank, (first, second) in enumerate(_merges(model), 1):
        scores.setdefault(first + second, -float(rank))
    return scores
