"""Merging key-value heads: exact where heads are factors of one, far better than means on real text."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from compress.calibration.texts import batches, cut
from compress.methods import gqa, kprune
from compress.model import io
from tests.conftest import compressed, strayed


def build(kind, heads=4):
    """A random decoder of two blocks, of width 32 and heads of 8."""
    config = {"llama": LlamaConfig, "qwen2": Qwen2Config}[kind](
        vocab_size=4096,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=heads,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = {"llama": LlamaForCausalLM, "qwen2": Qwen2ForCausalLM}[kind](config).eval()
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def logits(model, batch):
    """Logits without gradients."""
    with torch.no_grad():
        return model(**batch).logits


@pytest.mark.parametrize("kind", ["llama", "qwen2"])  # qwen2 has biases
def test_heads_that_are_turns_and_maps_of_one_merge_without_loss(kind, calibration):
    model = build(kind)
    g = torch.Generator().manual_seed(0)
    for block in model.model.layers:
        for head in (1, 3):  # each a factor of the head before it, weight and bias alike
            size, angle = torch.rand(4, generator=g) + 0.5, torch.rand(4, generator=g) * 6
            turn, mix = torch.polar(size, angle), torch.randn(8, 8, generator=g)
            for parameter in block.self_attn.k_proj.parameters():
                heads = parameter.data.view(4, 8, -1)
                pair = torch.complex(heads[head - 1, :4], heads[head - 1, 4:]) * turn[:, None]
                heads[head] = torch.cat([pair.real, pair.imag])
            for parameter in block.self_attn.v_proj.parameters():
                heads = parameter.data.view(4, 8, -1)
                heads[head] = mix @ heads[head - 1]
    small = compressed(gqa, model, calibration, heads=2)
    torch.testing.assert_close(logits(small, calibration[0]), logits(model, calibration[0]), rtol=1e-3, atol=1e-3)
    mean = compressed(gqa, model, calibration, heads=2, merge="mean")
    assert (logits(mean, calibration[0]) - logits(model, calibration[0])).abs().max() > 0.1


def test_fit_beats_mean_on_real_text_and_leaves_a_plain_model(decoder, tokenizer, texts, tmp_path):
    data = batches(tokenizer, cut(tokenizer, texts, 3000, 128, seed=0))
    held = batches(tokenizer, cut(tokenizer, texts, 1000, 128, seed=1))[0]

    def loss(model):
        ids = held["input_ids"]
        each = torch.nn.functional.cross_entropy(logits(model, held)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        return float(each)

    fit, mean = (compressed(gqa, decoder[0], data, heads=3, merge=m) for m in ("fit", "mean"))
    assert loss(fit) - loss(decoder[0]) < 0.3 * (loss(mean) - loss(decoder[0]))
    io.save(fit, tokenizer, tmp_path / "m", {})
    again = LlamaForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    assert again.config.num_key_value_heads == 3
    assert torch.equal(logits(again, held), logits(io.load(tmp_path / "m")[0], held))


def test_groups_merge_further(calibration):
    model = build("llama", heads=2)
    small = compressed(gqa, model, calibration)
    assert small.config.num_key_value_heads == 1
    assert 0 < strayed(logits(small, calibration[0]), logits(model, calibration[0])) < 1
    same = compressed(gqa, model, calibration, heads=2)
    assert torch.equal(logits(same, calibration[0]), logits(model, calibration[0]))


def test_what_cannot_be_merged_is_refused(encoder, decoder, calibration):
    with pytest.raises(ValueError, match="model type 'bert' has no key-value groups"):
        compressed(gqa, encoder, calibration)
    with pytest.raises(ValueError, match="heads 4 does not divide the 6 key-value heads.*give one of 1, 2, 3, 6"):
        compressed(gqa, decoder[0], calibration, heads=4)
    pruned = compressed(kprune, decoder[0], calibration, ratio=0.5, iterative=False, tune=False)
    with pytest.raises(ValueError, match="fewer than the 6 key-value heads of the config: gqa comes first"):
        compressed(gqa, pruned, calibration, heads=3)
