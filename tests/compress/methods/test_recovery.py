"""The training loop, and the method that prunes and regrows inside it."""

import copy
import sys
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, BertForSequenceClassification

from compress.algorithms import lora, training
from compress.algorithms.options import TrainingConfig
from compress.algorithms.resume import Progress
from compress.calibration.texts import batches, cut
from compress.methods import dynamic_sparse, kprune, wanda
from compress.model import structure
from compress.model.walk import run
from tests.conftest import compressed, strayed

few = partial(compressed, dynamic_sparse, ratio=0.6, steps=12, every=3, share=0.3)
both_models = pytest.mark.parametrize("kind", ["encoder", "decoder", "regression"])
both_ways = pytest.mark.parametrize("recovery", ["full", "lora"])


def bert(**settings):
    """A random BERT with weights that matter."""
    sizes = {"vocab_size": 4096, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForSequenceClassification(BertConfig(**sizes, max_position_embeddings=64, **settings)).eval()
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture
def model(request, kind):
    """A BERT with three classes, two blocks of the real Llama, or a BERT with a regression head."""
    if kind == "regression":
        return bert(num_hidden_layers=2, num_labels=1)
    return request.getfixturevalue("encoder" if kind == "encoder" else "two_blocks")


def masks(model):
    """Which weights of the blocks are not zero."""
    blocks = range(model.config.num_hidden_layers)
    return {p: linear.weight != 0 for i in blocks for p, linear in structure.block_linears(model, i)}


def equal(a, b):
    """Whether all weights are the same."""
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@both_models
def test_training_brings_the_student_to_the_teacher_and_leaves_all_else_alone(kind, model, calibration):
    before, state = copy.deepcopy(model), torch.get_rng_state()
    student = compressed(wanda, model, calibration, ratio=0.7)
    asked = [p.requires_grad for p in student.parameters()]
    settings = TrainingConfig(steps=10 if kind == "decoder" else 40, rate=2e-3)

    def loss():
        with torch.no_grad():
            return sum(float(training.distance(student, model, b)) for b in calibration)

    pruned = loss()
    assert training.train(student, model, calibration, settings) is student
    assert loss() < 0.8 * pruned
    assert equal(model, before) and torch.equal(torch.get_rng_state(), state)
    assert [p.requires_grad for p in student.parameters()] == asked and not student.training


def test_a_step_is_yielded_between_its_gradients_and_its_update(encoder, calibration):
    student = compressed(wanda, encoder, calibration, ratio=0.7)
    trained = {"classifier.weight": student.classifier.weight}
    before, changes = copy.deepcopy(student), []
    for step in training.steps(student, encoder, calibration, TrainingConfig(steps=4), trained):
        assert student.classifier.weight.grad.abs().sum() > 0 and student.bert.pooler.dense.weight.grad is None
        changes.append(torch.equal(student.classifier.weight, before.classifier.weight))
        assert step.number == len(changes) - 1 and step.loss > 0
    assert changes == [True, False, False, False]
    student.classifier.weight.data.copy_(before.classifier.weight)
    assert equal(student, before)


def test_every_pass_takes_all_batches_in_a_new_order():
    pieces = [{"input_ids": torch.tensor(i)} for i in range(6)]

    def drawn(seed):
        return [int(training._draw(pieces, i, seed)["input_ids"]) for i in range(12)]

    first, second = drawn(0)[:6], drawn(0)[6:]
    assert sorted(first) == sorted(second) == list(range(6)) and first != second
    assert drawn(0) == drawn(0) != drawn(1)


def test_the_rate_rises_and_falls():
    rates = [training._schedule(i, 20) for i in range(20)]
    assert rates[:2] == [0.5, 1.0] and rates[2] == 1.0 and rates[-1] == pytest.approx(1 / 18)
    assert rates[2:] == sorted(rates[2:], reverse=True) and training._schedule(0, 1) == 1.0


def test_a_loss_that_is_not_finite_ends_the_run(encoder, calibration):
    teacher = copy.deepcopy(encoder)
    teacher.classifier.weight.data[0, 0] = torch.inf
    with pytest.raises(RuntimeError, match="the loss is nan at step 0: lower the rate"):
        training.train(copy.deepcopy(encoder), teacher, calibration, TrainingConfig(steps=2))


@pytest.mark.parametrize("setting", [{"rate": 0}, {"temperature": 0}, {"rows": 0}, {"steps": -1}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        TrainingConfig(**setting)


@pytest.mark.parametrize("way", ["plain", "full", "lora"])
def test_a_killed_run_goes_on_to_the_same_result(way, encoder, calibration, tmp_path, monkeypatch, dying_at):
    monkeypatch.setattr(training, "KEEP_EVERY", 4)

    def go(folder):
        progress = Progress(tmp_path / folder)
        if way != "plain":
            return few(encoder, calibration, recovery=way, progress=progress)
        student = compressed(wanda, encoder, calibration, ratio=0.7)
        return training.train(student, encoder, calibration, TrainingConfig(steps=12), progress=progress)

    whole = go("undisturbed")
    with dying_at(6):
        go("killed")
    files = [f.name for f in (tmp_path / "killed").iterdir()]
    assert files == ["training.safetensors"]
    with dying_at(3, reached=False):  # the run goes on behind step 4
        assert equal(go("killed"), whole)
        assert equal(go("killed"), whole)  # all steps are done


@given(st.integers(0, 99), st.floats(0, 1), st.integers(0, 30))
def test_an_exchange_keeps_the_number_drops_the_smallest_and_grows_the_largest(seed, share, ones):
    g = torch.Generator().manual_seed(seed)
    mask = (torch.randperm(30, generator=g) < ones).view(5, 6)
    kept, grown = torch.rand(5, 6, generator=g), torch.rand(5, 6, generator=g)
    new = dynamic_sparse.exchange(mask, kept, grown, share)
    assert new.sum() == ones
    gone, come = mask & ~new, new & ~mask
    assert gone.sum() == come.sum() <= round(share * ones)
    if come.any():
        assert grown[come].min() >= grown[~new].max()
        assert kept[gone].max() <= kept[mask].sort().values[: round(share * ones)].max()


@both_models
@both_ways
def test_the_number_of_zeros_holds_at_every_step_and_connections_move(kind, recovery, model, calibration, monkeypatch):
    start = masks(compressed(wanda, model, calibration, ratio=0.6))
    whole, seen = training.steps, []

    def watched(student, teacher, data, settings, trained, also, progress):
        for step in whole(student, teacher, data, settings, trained, also, progress):
            yield step
            seen.append([int(mask.sum()) for mask in also.values()])
            if recovery == "full":
                assert not any((student.get_submodule(p).weight[~mask] != 0).any() for p, mask in also.items())

    monkeypatch.setattr(dynamic_sparse, "steps", watched)
    before, asked = copy.deepcopy(model), [p.requires_grad for p in model.parameters()]
    small = few(model, calibration, recovery=recovery)
    wanted = [int(mask.sum()) for mask in start.values()]
    assert len(seen) == 12 and all(counts == wanted for counts in seen)
    assert all(int(mask.sum()) <= n for mask, n in zip(masks(small).values(), wanted))
    moved = sum(int((mask & ~start[p]).sum()) for p, mask in masks(small).items())
    assert moved > 0.02 * sum(wanted)
    assert equal(model, before) and [p.requires_grad for p in model.parameters()] == asked
    assert small.state_dict().keys() == model.state_dict().keys()


@both_ways
def test_same_seed_same_model_and_the_global_generator_is_left_alone(recovery, encoder, calibration):
    state = torch.get_rng_state()
    a, b, c = (few(encoder, calibration, recovery=recovery, seed=s) for s in (0, 0, 1))
    assert equal(a, b) and not equal(a, c)
    assert torch.equal(torch.get_rng_state(), state)


@both_ways
def test_without_exchange_the_zeros_stay_where_they_were(recovery, encoder, calibration):
    start = masks(compressed(wanda, encoder, calibration, ratio=0.6))
    found = masks(few(encoder, calibration, recovery=recovery, share=0.0))
    assert all(torch.equal(found[p], start[p]) for p in start)


@both_models
def test_merging_changes_nothing(kind, model, calibration):
    student = structure.shallow_copy(model)
    chosen = {
        p: torch.rand(mask.shape, generator=torch.Generator().manual_seed(0)) < 0.5 for p, mask in masks(model).items()
    }
    adapters = lora.adapt(student, chosen, rank=4, seed=0)
    for adapter in adapters.values():
        adapter.lora_B["default"].weight.data.normal_(generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        trained = run(student, calibration[0])
        changes = {p: a.get_delta_weight("default") for p, a in adapters.items()}
        lora.merge(student, adapters)
        assert torch.equal(run(student, calibration[0]), trained)
    for path, change in changes.items():
        expected = chosen[path] * (model.get_submodule(path).weight + change)
        assert torch.equal(student.get_submodule(path).weight, expected)
        assert type(student.get_submodule(path)) is torch.nn.Linear
        assert torch.linalg.matrix_rank(change) <= 4
    assert not hasattr(student, "peft_config")


@both_ways
def test_what_other_methods_removed_is_no_obstacle(recovery, encoder, calibration):
    cut = compressed(kprune, encoder, calibration, ratio=0.9)
    small = few(cut, calibration, recovery=recovery)
    for path, mask in masks(small).items():
        assert mask.shape == cut.get_submodule(path).weight.shape
        assert not mask.numel() or mask.float().mean() < 0.5
    again = few(small, calibration, recovery=recovery)
    assert strayed(run(again, calibration[0]), run(small, calibration[0])) < 2


def test_lora_without_peft_says_what_to_install(encoder, calibration, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match="pip install peft"):
        few(encoder, calibration, recovery="lora")


@pytest.mark.parametrize("option", [{"start": "none"}, {"recovery": "none"}, {"every": 0}, {"rank": 0}, {"share": 2}])
def test_options_out_of_range_are_refused(option, encoder, calibration):
    with pytest.raises(ValueError, match=f"{next(iter(option))} .*{next(iter(option.values()))}"):
        few(encoder, calibration, **option)


@both_ways
def test_recovery_pays_on_text_it_has_not_seen(recovery, decoder, tokenizer, texts):
    data = batches(tokenizer, cut(tokenizer, texts, 2000, 64, seed=0))
    held_out = batches(tokenizer, cut(tokenizer, texts, 500, 64, seed=1))[0]

    def distance(student):
        with torch.no_grad():
            return float(training.distance(student, decoder[0], held_out))

    small = compressed(dynamic_sparse, decoder[0], data, ratio=0.7, recovery=recovery, steps=12)
    assert distance(small) < 0.8 * distance(compressed(wanda, decoder[0], data, ratio=0.7))
