"""Sequences beyond a sliding window, and beyond the context that a rotary scaling extends."""

import pytest
import torch

from compress.model import io, walk
from compress.model.structure import context
from tests.compress.methods.test_architectures import build, logits
from tests.conftest import compressed, letter_tokenizer

LENGTH = 48
SCALED = {"max_position_embeddings": 64}
YARN = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {**YARN, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LINEAR = {"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0}
PLAIN = {"rope_type": "default", "rope_theta": 100.0}
# kind, settings, and settings of the model that has no window or scaling but is the same else
CASES = {
    "mistral": ("mistral", SCALED, SCALED | {"sliding_window": None}),
    "gemma2": ("gemma2", SCALED, SCALED | {"layer_types": ["full_attention"] * 2}),
    "gemma3": ("gemma3_text", SCALED, SCALED | {"sliding_window": 64}),
    "llama3": ("llama", SCALED | {"rope_parameters": LLAMA3}, SCALED | {"rope_parameters": PLAIN}),
    "linear": ("llama", SCALED | {"rope_parameters": LINEAR}, SCALED | {"rope_parameters": PLAIN}),
    "yarn": ("qwen3", SCALED | {"rope_parameters": YARN}, SCALED | {"rope_parameters": PLAIN}),
}


def batches():
    """8 sequences of 20 to 48 random tokens, in two batches."""
    generator, found = torch.Generator().manual_seed(0), []
    for lengths in ((48, 47, 40, 33), (48, 30, 25, 20)):
        ids = torch.randint(5, 45, (4, LENGTH), generator=generator)
        mask = (torch.arange(LENGTH) < torch.tensor(lengths)[:, None]).long()
        found.append({"input_ids": ids * mask, "attention_mask": mask})
    return found


@pytest.mark.parametrize("case", CASES)
def test_long_sequences_are_read_saved_and_compressed_as_the_model_means_them(case, tmp_path):
    kind, settings, without = CASES[case]
    model, data, tokenizer = build(kind, **settings), batches(), letter_tokenizer()
    batch, mask = data[0], data[0]["attention_mask"].bool()
    expected = logits(model, batch)[mask]
    assert context(model, 10**6) == 64
    assert not torch.allclose(expected, logits(build(kind, **without), batch)[mask], atol=1e-3)  # it does matter here
    with torch.no_grad():
        middle = walk.run(model, batch, stop=1)
        torch.testing.assert_close(walk.run(model, batch, start=1, hidden=middle)[mask], expected)
    again, _ = io.load(io.save(model, tokenizer, tmp_path / "m", {}))
    assert torch.equal(logits(again, batch)[mask], expected)
    for method, options in (("gptq", {"bits": 8, "group": None}), ("kprune", {"ratio": 0.3, "iterative": False})):
        small = compressed(method, model, data, **options)
        folder = io.save(small, tokenizer, tmp_path / method, {})
        assert torch.equal(logits(io.load(folder)[0], batch)[mask], logits(small, batch)[mask])
        if method == "gptq":
            assert (logits(small, batch)[mask] - expected).abs().mean() < 0.02 * expected.abs().mean()
