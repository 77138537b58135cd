"""Units of every architecture, their costs, selection, removal, and the walk over blocks."""

from contextlib import contextmanager

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from compress.algorithms import hessian
from compress.algorithms.budget import flops, select
from compress.model import architectures, io, layers, modeling, structure, walk
from tests import rereader

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}
GROUPED = SMALL | {"num_key_value_heads": 2}
PADDED = GROUPED | {"pad_token_id": 0}  # where the default lies outside the vocabulary
GEMMA = PADDED | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 40}
MIXTURE = PADDED | {"num_experts_per_tok": 2}
MOE = MIXTURE | {"head_dim": 8, "num_experts": 4, "moe_intermediate_size": 12, "norm_topk_prob": True}
DEBERTA = SMALL | {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 4,
    "norm_rel_ebd": "layer_norm",
}
MODELS = {
    "bert": (transformers.BertConfig, transformers.BertForSequenceClassification, SMALL),
    "roberta": (transformers.RobertaConfig, transformers.RobertaForSequenceClassification, SMALL),
    "electra": (transformers.ElectraConfig, transformers.ElectraForSequenceClassification, SMALL),
    "deberta-v2": (
        transformers.DebertaV2Config,
        transformers.DebertaV2ForSequenceClassification,
        DEBERTA | {"share_att_key": True},
    ),
    "deberta-v2 with projections of positions": (
        transformers.DebertaV2Config,
        transformers.DebertaV2ForSequenceClassification,
        DEBERTA | {"position_biased_input": False},
    ),
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM, GROUPED),
    "llama with biases": (
        transformers.LlamaConfig,
        transformers.LlamaForCausalLM,
        SMALL | {"attention_bias": True, "mlp_bias": True},
    ),
    "distilbert": (
        transformers.DistilBertConfig,
        transformers.DistilBertForSequenceClassification,
        {"vocab_size": 50, "dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 40},
    ),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM, GROUPED),
    "gpt2": (
        transformers.GPT2Config,
        transformers.GPT2LMHeadModel,
        {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_inner": 24, "n_positions": 40},
    ),
    "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM, GROUPED),
    "gemma2": (transformers.Gemma2Config, transformers.Gemma2ForCausalLM, GEMMA),
    "gemma3_text": (transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM, GEMMA),
    "olmo2": (transformers.Olmo2Config, transformers.Olmo2ForCausalLM, PADDED),
    "olmo3": (transformers.Olmo3Config, transformers.Olmo3ForCausalLM, PADDED),
    "phi3": (transformers.Phi3Config, transformers.Phi3ForCausalLM, PADDED),
    "gpt_neox": (transformers.GPTNeoXConfig, transformers.GPTNeoXForCausalLM, SMALL),
    "gpt_neox in series": (
        transformers.GPTNeoXConfig,
        transformers.GPTNeoXForCausalLM,
        SMALL | {"use_parallel_residual": False},
    ),
    "modernbert": (
        transformers.ModernBertConfig,
        transformers.ModernBertForSequenceClassification,
        SMALL | {"pad_token_id": 0},
    ),
    "xlm-roberta": (transformers.XLMRobertaConfig, transformers.XLMRobertaForSequenceClassification, SMALL),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM, GROUPED | {"head_dim": 8}),
    "smollm3": (transformers.SmolLM3Config, transformers.SmolLM3ForCausalLM, PADDED | {"no_rope_layers": [1, 0]}),
    "mixtral": (transformers.MixtralConfig, transformers.MixtralForCausalLM, MIXTURE | {"num_local_experts": 4}),
    "qwen3_moe": (transformers.Qwen3MoeConfig, transformers.Qwen3MoeForCausalLM, MOE | {"mlp_only_layers": [1]}),
    "olmoe": (transformers.OlmoeConfig, transformers.OlmoeForCausalLM, MIXTURE | {"num_experts": 4, "eos_token_id": 1}),
    "granite": (
        transformers.GraniteConfig,
        transformers.GraniteForCausalLM,
        GROUPED | {"residual_multiplier": 0.3, "embedding_multiplier": 2.0, "attention_multiplier": 0.5},
    ),
}
WRITES = SMALL | {"is_decoder": True, "pad_token_id": 0}
# windows of four tokens, in the second block and in both
SLIDING = GROUPED | {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
DECODERS = {
    **{n: m for n, m in MODELS.items() if m[1].__name__.endswith(("CausalLM", "LMHeadModel")) and "bias" not in n},
    "bert": (transformers.BertConfig, transformers.BertLMHeadModel, WRITES),
    "roberta": (transformers.RobertaConfig, transformers.RobertaForCausalLM, WRITES),
    "electra": (transformers.ElectraConfig, transformers.ElectraForCausalLM, WRITES),
    "qwen2 with windows": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM, SLIDING),
    "mistral with windows": (
        transformers.MistralConfig,
        transformers.MistralForCausalLM,
        GROUPED | {"sliding_window": 4},
    ),
}
FOUR = {"num_hidden_layers": 4}
SCALED = MODELS["gpt2"][2] | {"n_layer": 4, "scale_attn_by_inverse_layer_idx": True}
KINDS = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]
# four blocks, of which each has settings of its own
OWN_SETTINGS = {
    "gpt2 scaled": (*MODELS["gpt2"][:2], SCALED),
    "gpt2 scaled only by number": (*MODELS["gpt2"][:2], SCALED | {"scale_attn_weights": False}),
    "gpt2 scaled, upcast": (
        *MODELS["gpt2"][:2],
        SCALED | {"reorder_and_upcast_attn": True, "attn_implementation": "eager"},
    ),
    "qwen2 with windows": (*MODELS["qwen2"][:2], SLIDING | FOUR | {"max_window_layers": 2}),
    "qwen2 with kinds": (*MODELS["qwen2"][:2], SLIDING | FOUR | {"layer_types": KINDS}),
    "mistral with windows": (*MODELS["mistral"][:2], GROUPED | FOUR | {"sliding_window": 4}),
    "llama with a list": (*MODELS["llama"][:2], GROUPED | FOUR | {"no_rope_layers": [1, 0, 1, 0]}),
    "smollm3 without some positions": (*MODELS["smollm3"][:2], PADDED | FOUR | {"no_rope_layers": [1, 0, 0, 1]}),
    "olmo3 with windows": (*MODELS["olmo3"][:2], PADDED | FOUR | {"sliding_window": 4, "layer_types": KINDS}),
    "gemma2 with windows": (*MODELS["gemma2"][:2], GEMMA | FOUR | {"sliding_window": 4}),
    "gemma3 with windows": (*MODELS["gemma3_text"][:2], GEMMA | FOUR | {"sliding_window": 4, "layer_types": KINDS}),
    "qwen3_moe with dense blocks": (*MODELS["qwen3_moe"][:2], MOE | FOUR | {"mlp_only_layers": [0, 2]}),
    "qwen3_moe in every other block": (*MODELS["qwen3_moe"][:2], MOE | FOUR | {"decoder_sparse_step": 2}),
    "qwen3 with windows": (*MODELS["qwen3"][:2], SLIDING | FOUR | {"head_dim": 8, "layer_types": KINDS}),
}
IDS = torch.arange(2 * 9).view(2, 9) + 3
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
every_model = pytest.mark.parametrize("name", MODELS)


def build(name, kinds=MODELS):
    """A random model, biases not zero."""
    config, cls, settings = kinds[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = cls(config(**settings)).eval()
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    modeling.linearise(model)
    return model


def logits(model):
    """Logits of BATCH, (batch, rows, classes)."""
    with torch.no_grad():
        return walk.outputs(model, model(**BATCH), BATCH)


@every_model
def test_every_registered_architecture_is_tried(name):
    assert {n.split()[0] for n in MODELS} == set(architectures.ARCHITECTURES)
    kinds = [(s.kind, s.block) for s in structure.sublayers(build(name))]
    whole = {"mixtral": (0, 1), "olmoe": (0, 1), "qwen3_moe": (0,)}.get(name, ())  # blocks with experts
    assert kinds == [
        (kind, i) for i in (0, 1) for kind in ("attention", "ffn") if kind == "attention" or i not in whole
    ]


def test_costs_are_those_of_the_paper():
    heads, neurons = structure.sublayers(build("bert"))[:2]
    n, d, head = 9, 16, 4
    assert heads.units == 4 and heads.unit_flops(n) == 8 * n * d * head + 4 * n**2 * head
    assert neurons.units == 24 and neurons.unit_flops(n) == 4 * n * d
    grouped, gated = structure.sublayers(build("llama"))[:2]
    assert grouped.units == 2 and grouped.unit_flops(n) == 2 * n * d * (8 + 4 + 4 + 8) + 4 * n**2 * 8
    assert gated.unit_flops(n) == 6 * n * d


@pytest.mark.parametrize("name", [name for name in MODELS if "olmo" not in name])
def test_removing_a_unit_equals_silencing_it(name):
    model, cut = build(name), build(name)
    keeps = [
        torch.rand(s.units, generator=torch.Generator().manual_seed(i)) < 0.6
        for i, s in enumerate(structure.sublayers(model))
    ]
    for sub, keep in zip(structure.sublayers(model), keeps):
        columns = keep.repeat_interleave(sub.columns)
        model.get_submodule(sub.output).weight.data[:, ~columns] = 0
        structure.remove(cut, sub, keep)
    torch.testing.assert_close(logits(cut), logits(model), rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in cut.parameters()) < sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["olmo2", "olmo3", "olmoe"])
@torch.no_grad()
def test_a_norm_over_all_heads_divides_as_before_where_one_head_tells_of_the_others(name):
    model = build(name)
    sub = structure.sublayers(model)[0]
    for module in model.modules():
        module.variance_epsilon = 0.0
    for path in sub.vectors:
        weight = model.get_submodule(path).weight
        weight[len(weight) // 2 :] = 3 * weight[: len(weight) // 2]
    cut, keep = structure.shallow_copy(model), torch.tensor([True, False])
    structure.remove(cut, sub, keep)
    model.get_submodule(sub.output).weight[:, sub.columns :] = 0
    torch.testing.assert_close(logits(cut), logits(model), rtol=1e-4, atol=1e-5)


@every_model
def test_removing_every_unit_leaves_residual_and_bias(name):
    model, cut = build(name), build(name)
    for sub in structure.sublayers(model):
        model.get_submodule(sub.output).weight.data.zero_()
        structure.remove(cut, sub, torch.zeros(sub.units, dtype=torch.bool))
    torch.testing.assert_close(logits(cut), logits(model), rtol=1e-4, atol=1e-5)
    assert structure.sublayers(cut) == []
    # 2 of 4 experts a token, of 3 x 16 x 24 weights each, in both blocks, or of 3 x 16 x 12 in one
    assert flops(cut, 9) == {"mixtral": 82944, "olmoe": 82944, "qwen3_moe": 20736}.get(name, 0)


def without_attention(model, blocks):
    """`model`, the attention of these blocks removed entirely."""
    for sub in structure.sublayers(model):
        if sub.kind == "attention" and sub.block in blocks:
            structure.remove(model, sub, torch.zeros(sub.units, dtype=torch.bool))
    return model


def rows():
    """Three rows of tokens, of other lengths."""
    return list(torch.randint(3, 50, (34,), generator=torch.Generator().manual_seed(0)).split([14, 9, 11]))


@pytest.mark.parametrize("blocks", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_a_cache_counts_its_tokens_where_attention_was_removed(name, blocks):
    model = without_attention(build(name, DECODERS), blocks)
    found = rereader.generation(model, rows())
    # padding between a text and what follows takes places of a window, in transformers itself
    rereader.check_generation(found, ("left",) if "windows" in name else ("left", "right"))
    cache = transformers.DynamicCache(config=model.config)
    rereader.last_cached(model, rows(), "left", cache)
    assert [cache.get_seq_length(layer) for layer in range(2)] == [14, 14]
    beams = {"max_new_tokens": 6, "num_beams": 2, "do_sample": False, "pad_token_id": 0}  # which reorder the cache
    cached, anew = (model.generate(rows()[0][None], use_cache=way, **beams) for way in (True, False))
    assert torch.equal(cached, anew)


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("blocks", [(0,), (0, 1)])
@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen2 with windows"])
@torch.no_grad()
def test_a_static_cache_counts_them_too(name, blocks, early):
    model = without_attention(build(name, DECODERS), blocks)
    cache = transformers.StaticCache(config=model.config, max_cache_len=20)
    if early:  # as an export does it, every layer of the sizes that the config says
        heads = getattr(model.config, "num_key_value_heads", model.config.num_attention_heads)
        cache.early_initialization(3, heads, structure.head_width(model), torch.float32, torch.device("cpu"))
    found = rereader.last_cached(model, rows(), "left", cache)
    torch.testing.assert_close(found, rereader.last_alone(model, rows()), rtol=1e-4, atol=1e-5)
    assert int(cache.get_seq_length(0)) == int(cache.get_seq_length(1)) == 14


@pytest.mark.parametrize("name", [n for n in MODELS if "bert" in n or n == "electra"])
@pytest.mark.parametrize("blocks", [(0,), (0, 1)])
@torch.no_grad()
def test_padding_does_not_matter_where_attention_was_removed(name, blocks):
    model = without_attention(build(name), blocks)
    ids, mask, _ = rereader.padded(rows(), "right")
    alone = torch.cat([model(input_ids=row[None]).logits for row in rows()])
    torch.testing.assert_close(model(input_ids=ids, attention_mask=mask).logits, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["past_key_values", "cache", "another"])
def test_a_cache_is_found_under_any_name(name):
    cache, nothing = transformers.DynamicCache(), layers.NoAttention(4, False, 0)
    given = {name: cache, "attention_mask": None, "use_cache": True, "position_embeddings": (torch.ones(2), {})}
    nothing(torch.ones(2, 5, 4), **given)
    nothing(torch.ones(2, 1, 4), cache)  # by its place
    both = transformers.EncoderDecoderCache(cache, transformers.DynamicCache())
    nothing(torch.ones(2, 1, 4), **{name: both})
    assert cache.get_seq_length() == 7 and both.cross_attention_cache.get_seq_length() == 0


@contextmanager
def bypassed(model, blocks):
    """While the context is open what enters these blocks of `model` leaves them."""

    def skip(module, args, kwargs, output):
        return args[0] if isinstance(output, torch.Tensor) else (args[0], *output[1:])

    found = model.get_submodule(architectures.blocks_path(model))
    handles = [found[i].register_forward_hook(skip, with_kwargs=True) for i in blocks]
    yield
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("kept", [(0, 2, 3), (1, 3), (3,)])
@pytest.mark.parametrize("name", OWN_SETTINGS)
@torch.no_grad()
def test_a_block_keeps_its_settings_when_others_go(name, kept, letters, tmp_path):
    model = build(name, OWN_SETTINGS)
    small = structure.shallow_copy(model)
    structure.keep_blocks(small, kept)
    with bypassed(model, set(range(4)) - set(kept)):
        torch.testing.assert_close(logits(small), logits(model), rtol=1e-4, atol=1e-6)
        changed = logits(model)
    assert not torch.equal(logits(model), changed)
    for setting in ("layer_types", "no_rope_layers"):
        if before := getattr(model.config, setting, None):
            assert getattr(small.config, setting) == [before[i] for i in kept]
    small.config.pad_token_id = 0
    io.save(small, letters, tmp_path / "m", {})
    assert not (tmp_path / "m/modeling.py").exists()  # a plain model, which transformers alone reads
    again, _ = io.load(tmp_path / "m")
    again.set_attn_implementation(model.config._attn_implementation)
    assert torch.equal(logits(again), logits(small))
    alone = type(model).from_pretrained(tmp_path / "m", attn_implementation=model.config._attn_implementation).eval()
    torch.testing.assert_close(logits(alone), logits(small), rtol=1e-4, atol=1e-6)
    structure.keep_blocks(small, [len(kept) - 1])  # once more, from what is left
    with bypassed(model, range(kept[-1])):
        torch.testing.assert_close(logits(small), logits(model), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", OWN_SETTINGS)
@torch.no_grad()
def test_the_walk_knows_the_settings_of_a_block(name):
    model = build(name, OWN_SETTINGS)
    hidden = walk.run(model, BATCH, stop=0)
    for block in range(4):
        torch.testing.assert_close(walk.run(model, BATCH, block, hidden=hidden), logits(model))
        hidden = walk.run(model, BATCH, block, block + 1, hidden)


@torch.no_grad()
def test_queries_of_low_rank_take_up_the_scale_too():
    model = build("gpt2 scaled", OWN_SETTINGS)
    for block in model.transformer.h:
        low = layers.LowRankLinear(16, 48, 16, True)
        low.up.weight.data, low.up.bias.data = block.attn.c_attn.weight.data, block.attn.c_attn.bias.data
        low.down.weight.data = torch.eye(16)
        block.attn.c_attn = low
    small = structure.shallow_copy(model)
    structure.keep_blocks(small, [1, 3])
    with bypassed(model, [0, 2]):
        torch.testing.assert_close(logits(small), logits(model), rtol=1e-4, atol=1e-6)


@every_model
def test_the_walk_gives_what_the_whole_model_gives(name):
    model = build(name)
    with torch.no_grad():
        hidden = walk.run(model, BATCH, stop=0)
        for block in range(2):
            hidden = walk.run(model, BATCH, block, block + 1, hidden)
            if block == 0:
                torch.testing.assert_close(walk.run(model, BATCH, 1, hidden=hidden), logits(model))
        torch.testing.assert_close(walk.run(model, BATCH, 0, 2, walk.run(model, BATCH, stop=0)), hidden)
    assert len(model.get_submodule(architectures.blocks_path(model))) == 2
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_the_walk_mends_the_model_after_an_error():
    model = build("llama")
    with pytest.raises(RuntimeError):
        walk.run(model, BATCH, 1, hidden=torch.zeros(2, 9, 5))
    assert len(model.model.layers) == 2 and torch.equal(logits(model), logits(build("llama")))


def test_an_unknown_architecture_is_refused():
    model = transformers.OPTForCausalLM(transformers.OPTConfig(**SMALL, ffn_dim=24, word_embed_proj_dim=16))
    with pytest.raises(ValueError, match="'opt' cannot be cut, as it has no entry in compress/model/architectures.py"):
        structure.sublayers(model)


def test_a_convolution_behind_the_first_block_is_refused():
    config = transformers.DebertaV2Config(**DEBERTA, conv_kernel_size=3)
    model = transformers.DebertaV2ForSequenceClassification(config)
    with pytest.raises(ValueError, match="'deberta-v2' with conv_kernel_size 3 cannot be compressed: its convolution"):
        walk.run(model, BATCH)


@torch.no_grad()
def test_moments_of_relative_positions_are_those_of_their_table():
    """Which is as long as no sequence, so that padding takes nothing from it."""
    model = build("deberta-v2 with projections of positions")
    batch = BATCH | {"attention_mask": (torch.arange(9) < torch.tensor([[9], [5]])).long()}
    for block, shared in enumerate(hessian.blocks(model, [batch, batch], hessian.gram, "")):
        names = [f"deberta.encoder.layer.{block}.attention.self.pos_{kind}_proj" for kind in ("key", "query")]
        moment = next(moment for paths, moment in shared if sorted(paths) == names)
        table = model.deberta.encoder.get_rel_embedding().double()
        torch.testing.assert_close(moment, 2 * table.T @ table, rtol=1e-5, atol=1e-5)


@given(
    st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=8), min_size=1, max_size=4),
    st.lists(st.integers(1, 9), min_size=4, max_size=4),
    st.floats(0, 1),
)
def test_selection_fits_the_budget_and_leaves_no_room(scores, costs, share):
    scores, costs = [torch.tensor(s) for s in scores], costs[: len(scores)]
    budget = share * sum(len(s) * c for s, c in zip(scores, costs))
    keep = select(scores, costs, budget)
    used = sum(int(k.sum()) * c for k, c in zip(keep, costs))
    assert used <= budget * (1 + 1e-9)
    left = [c for k, c in zip(keep, costs) if not k.all()]
    assert not left or budget - used < min(left) + 1e-9
