"""Every method on a tiny random model of every architecture; docs/architectures.md says what ran.

python -m tests.compress.methods.test_architectures    # writes that page anew
"""

import copy
import re
import sys
import tempfile
from pathlib import Path

import pytest
import torch
import transformers

from compress.methods import methods
from compress.model import architectures, io, modeling
from compress.model.walk import outputs
from tests.compress.methods.test_methods import LARGER, OTHERS, PRUNING
from tests.conftest import ROOT, compressed, letter_tokenizer
from transmeter.util.checkpoint import bytes_of

PAGE = ROOT / "docs/architectures.md"
SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
GROUPED = SIZES | {"num_key_value_heads": 2}
HEADED = GROUPED | {"head_dim": 8}
KINDS = ["sliding_attention", "full_attention"]
GEMMA = HEADED | {"query_pre_attn_scalar": 8, "sliding_window": 8, "layer_types": KINDS}
MIXTURE = GROUPED | {"num_experts_per_tok": 2}
# class of the model and settings of its config, by model type
MODELS = {
    "bert": ("BertForSequenceClassification", SIZES),
    "roberta": ("RobertaForSequenceClassification", SIZES),
    "xlm-roberta": ("XLMRobertaForSequenceClassification", SIZES),
    "electra": ("ElectraForSequenceClassification", SIZES | {"embedding_size": 32}),
    "deberta-v2": (
        "DebertaV2ForSequenceClassification",
        SIZES | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "share_att_key": True},
    ),
    "distilbert": (
        "DistilBertForSequenceClassification",
        {"vocab_size": 50, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 40},
    ),
    "llama": ("LlamaForCausalLM", GROUPED),
    "mixtral": ("MixtralForCausalLM", MIXTURE | {"num_local_experts": 4}),
    "mistral": ("MistralForCausalLM", GROUPED | {"sliding_window": 8}),
    "qwen2": ("Qwen2ForCausalLM", GROUPED),
    "qwen3": ("Qwen3ForCausalLM", HEADED),
    "qwen3_moe": (
        "Qwen3MoeForCausalLM",
        HEADED | MIXTURE | {"num_experts": 4, "moe_intermediate_size": 24, "norm_topk_prob": True},
    ),
    "smollm3": ("SmolLM3ForCausalLM", GROUPED | {"no_rope_layers": [1, 0]}),
    "granite": ("GraniteForCausalLM", GROUPED | {"residual_multiplier": 0.3, "attention_multiplier": 0.3}),
    "gemma2": ("Gemma2ForCausalLM", GEMMA),
    "gemma3_text": ("Gemma3ForCausalLM", GEMMA),
    "olmo2": ("Olmo2ForCausalLM", GROUPED),
    "olmo3": ("Olmo3ForCausalLM", GROUPED | {"sliding_window": 8, "layer_types": KINDS}),
    "olmoe": ("OlmoeForCausalLM", MIXTURE | {"num_experts": 4, "eos_token_id": 1}),
    "phi3": ("Phi3ForCausalLM", GROUPED),
    "gpt_neox": ("GPTNeoXForCausalLM", SIZES),
    "modernbert": ("ModernBertForSequenceClassification", SIZES | {"local_attention": 8, "layer_types": KINDS}),
    "gpt2": ("GPT2LMHeadModel", {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48}),
    # no entry: methods that need only the list of blocks
    "phi": ("PhiForCausalLM", GROUPED),
    "opt": ("OPTForCausalLM", SIZES | {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "albert": ("AlbertForSequenceClassification", SIZES | {"embedding_size": 16}),
    # other heads of an entry: masked tokens, and none, whose embeddings methods keep
    "bert-masked": ("BertForMaskedLM", SIZES),
    "bert-headless": ("BertModel", SIZES),
}
OPTIONS = {name: {"ratio": 0.5} for name in PRUNING} | {name: options for name, options, _ in OTHERS} | {"gqa": {}}
OPTIONS["dynamic_sparse"] |= {"steps": 2, "every": 1}


def build(kind, **others):
    """A random model of two blocks, flat enough for nothing to overflow, yet not so flat that nothing matters.

    others: settings of its config beside those of `MODELS`.
    """
    name, settings = MODELS[kind]
    cls = getattr(transformers, name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = cls(cls.config_class(**settings | others)).eval()
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    modeling.linearise(model)
    return model


def batches():
    """16 sequences of 6 to 14 random tokens, in two batches."""
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(2):
        ids = torch.randint(5, 45, (8, 14), generator=generator)
        mask = (torch.arange(14) < torch.randint(6, 15, (8, 1), generator=generator)).long()
        found.append({"input_ids": ids * mask, "attention_mask": mask})
    return found


@torch.no_grad()
def logits(model, batch):
    """Logits (batch, rows, classes)."""
    return outputs(model, model(**batch), batch)


def form(model):
    """What a folder of the model has to say beside its config: kinds of layers by their place in a block, what is tied.

    Methods that agree in it are written and read alike, and differ in numbers.
    """
    changed = modeling.changes(model)
    layers = changed.get("layers", {}).items()
    kinds = {(re.sub(r"\d+", "0", path), kind, spec.get("packed", {}).get("form")) for path, (kind, spec) in layers}
    return frozenset(kinds), bool(changed.get("tied")), hasattr(model, "exits")


def run(kind, tokenizer, folder):
    """Reason why a method is refused, by its name, None for one that runs; those that run are checked.

    One method of every form is saved; tests/compress/methods/test_methods.py saves all of an encoder and a decoder.
    """
    model, data, found, forms = build(kind), batches(), {}, set()
    dense = io.save(model, tokenizer, folder / "dense", {})
    before = copy.deepcopy(model.state_dict())
    for name in methods():
        try:
            small = compressed(name, model, data, **OPTIONS[name])
        except ValueError as error:
            found[name] = str(error)
            continue
        found[name] = None
        logit = logits(small, data[0])
        assert logit.shape == logits(model, data[0]).shape and logit.isfinite().all(), name
        assert not torch.equal(logit, logits(model, data[0])), name
        if form(small) not in forms:
            forms.add(form(small))
            saved = io.save(small, tokenizer, folder / name, {})  # raises where a reader's logits differ
            assert name in LARGER or bytes_of(saved) < bytes_of(dense), name
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    return found


def row(kind, found):
    """The line of the page."""
    ran = sum(reason is None for reason in found.values())
    reasons = {reason: [f"`{n}`" for n in found if found[n] == reason] for reason in found.values() if reason}
    refused = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items()) or "none"
    return f"| {kind} | {MODELS[kind][0]} | {ran} of {len(found)} | {refused} |"


def test_every_entry_is_tried():
    assert set(MODELS) >= set(architectures.ARCHITECTURES)


@pytest.mark.parametrize("kind", MODELS)
def test_the_page_says_what_runs(kind, letters, tmp_path):
    assert row(kind, run(kind, letters, tmp_path)) in PAGE.read_text(encoding="utf-8").splitlines()


def write(kinds):
    """Write the rows of these models anew."""
    text, *known = PAGE.read_text(encoding="utf-8").partition("| model type |")
    rows = {line.split()[1]: line for line in "".join(known).splitlines()[2:]}
    for kind in kinds or MODELS:
        with tempfile.TemporaryDirectory() as folder:
            rows[kind] = row(kind, run(kind, letter_tokenizer(), Path(folder)))
    head = ["| model type | tried as | methods that run | refused, and why |", "|---|---|---|---|"]
    PAGE.write_text(text + "\n".join([*head, *(rows[kind] for kind in MODELS)]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(sys.argv[1:])
