"""Distillation: what counts in the loss, where students come from, and several processes."""

import copy
import inspect
import os
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
)

from compress import pipeline
from compress.algorithms import distillation_loss, training
from compress.algorithms.distillation_loss import DistillationLoss
from compress.algorithms.options import DistillationConfig, TrainingConfig
from compress.algorithms.resume import Progress
from compress.algorithms.training import divergence
from compress.methods import distil, magnitude
from compress.model import architectures, io, modeling, structure
from compress.model.walk import run
from tests.conftest import DATA, compressed

TEXTS = DATA / "text/math_sample.txt"
both_models = pytest.mark.parametrize("kind", ["encoder", "decoder"])


@pytest.fixture
def model(request, kind):
    """A BERT with three classes or two blocks of the real Llama."""
    return request.getfixturevalue("encoder" if kind == "encoder" else "two_blocks")


def equal(a, b):
    """Whether all weights are the same."""
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@torch.no_grad()
def apart(student, teacher, data):
    """Mean divergence of the logits over all batches."""
    return sum(float(training.distance(student, teacher, b)) for b in data) / len(data)


def other(seed=0, cls=BertForSequenceClassification, config=BertConfig, **sizes):
    """A random model of another size than the fixture's encoder, with its tokens and classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = cls(config(**{"vocab_size": 4096, "num_labels": 3} | sizes)).eval()
        for parameter in made.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    modeling.linearise(made)
    return made


def small(seed=0, **sizes):
    """A random BERT of width 16."""
    wanted = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 1}
    return other(seed, **wanted | {"max_position_embeddings": 64} | sizes)


@both_models
@pytest.mark.parametrize("aim", [{}, {"hidden": 0.0}, {"hidden": 0.0, "top_k": 3}, {"attention": 1.0}])
def test_a_student_cut_from_its_teacher_comes_closer_to_it(kind, model, aim, calibration):
    before, state, calibration = copy.deepcopy(model), torch.get_rng_state(), calibration[:2]
    depth = model.config.num_hidden_layers // 2
    cut = compressed(distil, model, calibration, depth=depth, steps=0)
    found = compressed(distil, model, calibration, depth=depth, steps=10, rate=1e-3, **aim)
    assert found.config.num_hidden_layers == depth and model.config.num_hidden_layers == 2 * depth
    assert apart(found, model, calibration) < 0.9 * apart(cut, model, calibration)
    assert equal(model, before) and torch.equal(torch.get_rng_state(), state)
    assert found.config._attn_implementation == model.config._attn_implementation
    assert found.state_dict().keys() == cut.state_dict().keys() and not found.training


@both_models
@pytest.mark.parametrize("options", [{}, {"width": 1}, {"depth": -1}])
def test_nothing_to_do_is_the_identity(kind, model, options, calibration):
    options = {k: model.config.num_hidden_layers if v == -1 else v for k, v in options.items()}
    same = compressed(distil, model, calibration, steps=0, **options)
    assert same is not model and equal(same, model)
    with pytest.raises(ValueError, match="its own teacher: give depth, width or student"):
        compressed(distil, model, calibration, **options)


def test_width(encoder, calibration):
    model = compressed(distil, encoder, calibration, width=0.5, depth=1, steps=2)
    assert 0 < sum(s.units for s in structure.sublayers(model)) < 4 + 48


@both_models
def test_what_a_step_before_has_made_of_the_teacher_learns_from_it(kind, model, calibration):
    calibration = calibration[:2]
    pruned = compressed(magnitude, model, calibration, ratio=0.6)
    before, original = copy.deepcopy(pruned), copy.deepcopy(model)
    found = compressed(distil, copy.deepcopy(pruned), calibration, teacher=model, steps=10, rate=1e-3, attention=1.0)
    assert apart(found, model, calibration) < 0.9 * apart(pruned, model, calibration)
    assert equal(pruned, before) and equal(model, original)


def test_any_model_with_the_same_tokens_is_a_student(encoder, tokenizer, calibration, tmp_path):
    io.save(small(), tokenizer, tmp_path / "s", {})
    teacher = copy.deepcopy(encoder)
    teacher.config.id2label = {0: "a", 1: "b", 2: "c"}
    found = compressed(distil, teacher, calibration, student=str(tmp_path / "s"), steps=40, rate=1e-3, hidden=0.1)
    assert found.config.hidden_size == 16 and found.config.id2label == teacher.config.id2label
    assert apart(found, teacher, calibration) < 0.8 * apart(small(), teacher, calibration)
    assert not [name for name, _ in found.named_parameters() if "projection" in name]
    distil.require_student(str(tmp_path / "s"), tokenizer)


def test_a_student_that_does_not_fit_is_refused(encoder, tokenizer, letters, calibration, tmp_path):
    io.save(small(vocab_size=45), letters, tmp_path / "letters", {})
    io.save(small(num_labels=4), tokenizer, tmp_path / "classes", {})
    io.save(small(max_position_embeddings=20), tokenizer, tmp_path / "short", {})
    with pytest.raises(ValueError, match="another tokenizer .45 tokens, the teacher's 4096, of which"):
        distil.require_student(str(tmp_path / "letters"), tokenizer)
    with pytest.raises(ValueError, match=r"another task: it has outputs .* \(1, 4\), the teacher \(1, 3\)"):
        compressed(distil, encoder, calibration, student=str(tmp_path / "classes"))
    with pytest.raises(ValueError, match="has 20 positions, the texts 48 tokens"):
        compressed(distil, encoder, calibration, student=str(tmp_path / "short"))
    step = pipeline.Step("distil", {"student": str(tmp_path / "letters")})
    with pytest.raises(ValueError, match="another tokenizer"):
        pipeline.run(str(DATA / "mixlm"), [step], TEXTS, tmp_path / "out", tokens=300)
    with pytest.raises(ValueError, match="would take the place of what the steps before it make: put distil first"):
        pipeline.run(str(DATA / "mixlm"), [pipeline.Step("magnitude", {}), step], TEXTS, tmp_path / "out", tokens=300)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option, message",
    [
        ({"depth": 0}, "depth 0 is out of range: give 1 to 2"),
        ({"depth": 3}, "depth 3 is out of range"),
        ({"width": 0.0}, "width 0.0 is no share"),
        ({"hidden": -1.0}, "hidden -1.0 is out of range"),
        ({"on_policy": 2.0}, "on_policy 2.0 is not a share"),
        ({"on_policy": 0.5, "depth": 1}, "on_policy 0.5 asks a bert to write"),
        ({"labels": 1.0, "depth": 1}, "labels, which the batches do not have"),
        ({"top_k": 0}, "top_k 0 is out of range"),
        ({"top_k": 2, "hidden": 1.0}, "top_k keeps only logits"),
        ({"temperature": 0.0}, "temperature 0.0"),
        ({"rate": 0.0}, "rate 0.0"),
    ],
)
def test_bad_options_are_refused(option, message, encoder, calibration):
    with pytest.raises(ValueError, match=message):
        compressed(distil, encoder, calibration, **option)


def test_models_that_cannot_be_trained_are_refused(encoder, calibration):
    with pytest.raises(ValueError, match="distil cannot train weights of torch.float16: give --dtype"):
        compressed(distil, copy.deepcopy(encoder).half(), calibration, depth=1)
    quantized = copy.deepcopy(encoder)
    for path, _ in list(structure.block_linears(quantized, 1)):
        quantized.set_submodule(path, torch.nn.Identity())
    with pytest.raises(ValueError, match="layer.1 has no plain linear layer that distil could train"):
        compressed(distil, quantized, calibration, depth=1)


@pytest.mark.parametrize("shape, k", [((2, 5, 7), 7), ((2, 5, 7), 9), ((3, 1, 1), 1), ((2, 5, 7), 3)])
def test_bins_keep_the_mass_and_with_all_classes_the_divergence(shape, k):
    g = torch.Generator().manual_seed(0)
    teacher, student = (3 * torch.randn(shape, generator=g, dtype=torch.float64) for _ in "12")
    weights, chosen = torch.ones(shape[:2]), teacher.topk(min(k, shape[-1]), -1).indices
    p = (distillation_loss.bins(teacher, chosen, 2.0) / 2).softmax(-1)
    if shape[-1] > 1:
        torch.testing.assert_close(p[..., : chosen.shape[-1]], (teacher / 2).softmax(-1).gather(-1, chosen))
    exact = divergence(teacher, student, weights, 2.0)
    found = divergence(
        distillation_loss.bins(teacher, chosen, 2.0), distillation_loss.bins(student, chosen, 2.0), weights, 2.0
    )
    if k >= shape[-1]:
        torch.testing.assert_close(found, exact)
    else:
        assert (0 < found).all() and (found < exact).all()  # what is put together cannot be told apart


def test_the_teacher_runs_once_for_every_batch_with_top_k(decoder, calibration, monkeypatch):
    teacher, calls = structure.shallow_copy(decoder[0]), []
    monkeypatch.setattr(distillation_loss, "run", lambda m, b: calls.append(m is teacher) or run(m, b))
    compressed(distil, decoder[0], calibration[:1], teacher=teacher, depth=3, steps=6, top_k=5, hidden=0.0, rows=4)
    assert sum(calls) == 2 and len(calls) == 8
    student = compressed(distil, decoder[0], calibration[:1], depth=3, steps=0)
    for k in (4096, 5):
        kept = DistillationLoss(student, teacher, DistillationConfig(2.0, top_k=k), 0)
        exact = training.distance(student, teacher, calibration[0], temperature=2.0)
        for number in (0, 1):  # taken from the teacher, and kept
            found = kept.loss(calibration[0], number)
            torch.testing.assert_close(found, exact) if k == 4096 else None
            assert found <= exact + 1e-5


def test_distances_against_their_definitions(calibration):
    batch, g = calibration[-1], torch.Generator().manual_seed(0)
    n, t = batch["input_ids"].shape
    ours, theirs = torch.randn(n, t, 6, generator=g), torch.randn(n, t, 6, generator=g)
    a, b = torch.randn(n, 2, t, t, generator=g).softmax(-1), torch.randn(n, 3, t, t, generator=g).softmax(-1)
    for i, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        expected = (ours[i, :length] - theirs[i, :length]).square().mean() / theirs[i, :length].square().mean()
        torch.testing.assert_close(distillation_loss.hidden_distance(ours, theirs, batch)[i], expected)
        p, q = b[i, :, :length].mean(0), a[i, :, :length].mean(0)
        torch.testing.assert_close(distillation_loss.map_divergence(a, b, batch)[i], (p * (p / q).log()).sum(-1).mean())
        p, q = a[i, :, :length].flip(0), a[i, :, :length]
        expected = (p * (p / q).log()).sum(-1).mean()
        torch.testing.assert_close(distillation_loss.map_divergence(a, a.flip(1), batch)[i], expected)


def test_labels_count_for_classes_values_and_texts(encoder, decoder, calibration):
    batch = calibration[-1] | {"labels": torch.arange(len(calibration[-1]["input_ids"])) % 3}
    logits = torch.randn(len(batch["labels"]), 1, 3)
    expected = torch.nn.functional.cross_entropy(logits[:, 0], batch["labels"], reduction="none")
    torch.testing.assert_close(distillation_loss.labelled(logits, batch, False), expected)
    expected = (logits[:, 0, 0] - batch["labels"]).square()
    torch.testing.assert_close(distillation_loss.labelled(logits[..., :1], batch, False), expected)
    with torch.no_grad():
        text = run(decoder[0], calibration[-1])
        ids = calibration[-1]["input_ids"].masked_fill(calibration[-1]["attention_mask"] == 0, -100)
        one = {k: v[:1] for k, v in calibration[-1].items()}
        expected = decoder[0](**one, labels=ids[:1]).loss
    torch.testing.assert_close(distillation_loss.labelled(text, calibration[-1], True)[:1], expected[None])
    data = [b | {"labels": torch.zeros(len(b["input_ids"]), dtype=torch.long)} for b in calibration]
    found = compressed(distil, encoder, data, labels=5.0, steps=30, rate=1e-3)
    assert (run(found, data[0]).argmax(-1) == 0).all() and not (run(encoder, data[0]).argmax(-1) == 0).all()


def test_what_a_student_writes_depends_on_the_generator_alone_and_follows_its_odds(decoder, calibration):
    state = torch.get_rng_state()
    one, other, third = (
        distillation_loss.written(decoder[0], calibration[0], torch.Generator().manual_seed(s)) for s in (0, 0, 1)
    )
    assert torch.equal(one[0]["input_ids"], other[0]["input_ids"])
    assert not torch.equal(one[0]["input_ids"], third[0]["input_ids"])
    assert torch.equal(torch.get_rng_state(), state)
    text, prompt = one
    assert text["input_ids"].shape == calibration[0]["input_ids"].shape
    assert torch.equal(text["input_ids"][:, :prompt], calibration[0]["input_ids"][:, :prompt])
    ends = text["input_ids"][:, prompt:] == decoder[0].generation_config.eos_token_id
    before = ends.cumsum(1) - ends.long()
    assert torch.equal(text["attention_mask"][:, prompt:] == 1, before == 0)
    many = {k: v[:1, :4].expand(1000, -1) for k, v in calibration[0].items()}
    text, prompt = distillation_loss.written(decoder[0], many, torch.Generator().manual_seed(0))
    with torch.no_grad():
        odds = run(decoder[0], {k: v[:1, :prompt] for k, v in many.items()})[0, -1].softmax(-1)
    drawn = torch.bincount(text["input_ids"][:, prompt], minlength=4096) / 1000
    assert float((drawn - odds).abs().max()) < 0.06


def test_on_policy_is_the_reverse_divergence_on_its_share_of_the_steps(decoder, calibration):
    calibration = [{k: v[:4, :16] for k, v in calibration[0].items()}]
    student = compressed(distil, decoder[0], calibration, depth=3, steps=0)
    taught = DistillationLoss(student, decoder[0], DistillationConfig(on_policy=0.25), 7)
    plain = training.distance(student, decoder[0], calibration[0])
    own = [n for n in range(8) if not torch.equal(taught.loss(calibration[0], n), plain)]
    assert own == [3, 7]
    draw = torch.Generator().manual_seed((7 * 1_000_003 + 3) * 1009)
    text, prompt = distillation_loss.written(student, calibration[0], draw)
    ours, theirs = (run(m, text).log_softmax(-1)[:, prompt - 1 : -1] for m in (student, decoder[0]))
    real = text["attention_mask"][:, prompt:]
    each = (ours.exp() * (ours - theirs)).sum(-1) * real
    torch.testing.assert_close(taught.loss(calibration[0], 3), (each.sum(1) / real.sum(1)).mean())
    trained = compressed(distil, decoder[0], calibration, depth=3, steps=10, rate=1e-3, on_policy=1.0)
    assert apart(trained, decoder[0], calibration) < 0.9 * apart(student, decoder[0], calibration)


GPT2 = {"cls": GPT2LMHeadModel, "config": GPT2Config, "n_embd": 16, "n_head": 2, "n_layer": 2, "n_positions": 64}
DISTILBERT = {"cls": DistilBertForSequenceClassification, "config": DistilBertConfig, "dim": 16, "n_heads": 2}
DISTILBERT |= {"hidden_dim": 24, "n_layers": 2, "max_position_embeddings": 64}


@pytest.mark.parametrize("sizes", [GPT2, DISTILBERT], ids=["gpt2", "distilbert"])
def test_other_architectures_show_their_states_and_maps(sizes, calibration):
    teacher = other(**sizes)
    options = {"on_policy": 0.5} if sizes is GPT2 else {}
    student = compressed(distil, teacher, calibration, depth=1, steps=20, rate=1e-3, attention=1.0, **options)
    cut = compressed(distil, teacher, calibration, depth=1, steps=0)
    assert apart(student, teacher, calibration) < apart(cut, teacher, calibration)


@both_models
def test_checkpointing_changes_nothing_but_what_is_kept(kind, model, calibration, monkeypatch):
    plain, again = (
        compressed(distil, model, calibration, depth=1, steps=3, hidden=1.0, attention=1.0, checkpointing=c)
        for c in (False, True)
    )
    assert equal(plain, again)
    block = model.get_submodule(architectures.blocks_path(model))[0]
    calls, handle = [], block.register_forward_hook(lambda *_: calls.append(1))
    with training.checkpointed(model):
        run(model, calibration[0]).sum().backward()
    handle.remove()
    model.zero_grad()
    assert "forward" not in vars(block) and calls == [1]  # hooks are around what runs anew


@pytest.mark.parametrize("way", ["on_policy", "projected", "width"])
def test_a_killed_run_goes_on_to_the_same_result(
    way, encoder, decoder, tokenizer, calibration, tmp_path, monkeypatch, dying_at
):
    monkeypatch.setattr(training, "KEEP_EVERY", 4)
    io.save(small(), tokenizer, tmp_path / "s", {})
    options = {
        "on_policy": {"depth": 2, "on_policy": 0.5},
        "projected": {"student": str(tmp_path / "s"), "hidden": 1.0},
        "width": {"width": 0.5, "top_k": 2, "hidden": 0.0},
    }[way]
    model = decoder[0] if way == "on_policy" else encoder
    data = [{k: v[:, :16] for k, v in b.items()} for b in calibration[:2]]

    def go(folder):
        progress = Progress(tmp_path / folder)
        return compressed(distil, model, data, steps=10, progress=progress, **options)

    whole = go("undisturbed")
    with dying_at(6):
        go("killed")
    with dying_at(3, reached=False):  # the run goes on behind step 4
        assert equal(go("killed"), whole)


def learned(rows):
    """The weights of a small student after a few steps of so many rows in each process; 13 and 9 rows in all."""
    g = torch.Generator().manual_seed(0)
    data = []
    for count in (13, 9):
        mask = (torch.arange(10) < torch.randint(3, 11, (count, 1), generator=g)).long()
        data.append({"input_ids": torch.randint(5, 4096, (count, 10), generator=g), "attention_mask": mask})
    teacher, student = small(0), small(1)
    loss = DistillationLoss(student, teacher, DistillationConfig(hidden=1.0, attention=1.0), 0).loss
    settings, trained = TrainingConfig(steps=6, rows=rows), dict(student.named_parameters())
    with distillation_loss.showing_maps(student, teacher):
        losses = [s.loss for s in training.steps(student, teacher, data, settings, trained, loss=loss)]
    return {n: p.detach() for n, p in trained.items()} | {"losses": torch.tensor(losses)}


def test_two_processes_are_one_with_twice_the_rows(tmp_path, root):
    """As accelerate starts them: what each has in its environment. One divides into both when it has imported all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "ACCELERATE_USE_CPU": "true"}
    code = (
        "import os, sys; from safetensors.torch import save_file",
        "from tests.compress.methods.test_distil import learned",
        "child = os.fork(); rank = '1' if child else '0'; os.environ |= {'RANK': rank, 'LOCAL_RANK': rank}",
        "save_file(learned(4), os.path.join(sys.argv[1], rank))",
        "sys.exit(child and os.waitpid(child, 0)[1])",
    )
    given = {"WORLD_SIZE": "2", "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "\n".join(code), str(tmp_path)]
    done = subprocess.run(command, env=os.environ | place | given, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    one, first, second = learned(8), load_file(tmp_path / "0"), load_file(tmp_path / "1")
    for name, value in one.items():
        assert torch.equal(first[name], second[name])
        if not name.endswith("key.bias"):  # its gradient is 0, and what is left of it rounding
            torch.testing.assert_close(first[name], value, rtol=1e-4, atol=2e-5)
    assert not torch.equal(learned(4)["classifier.weight"], one["classifier.weight"])


def test_a_job_gives_the_model_as_it_came_to_a_step_that_learns(tmp_path, monkeypatch):
    seen, whole = [], distil.compress

    def watched(model, batches, *, teacher=None, **options):
        seen.append(None if teacher is None else copy.deepcopy(teacher))
        return whole(model, batches, teacher=teacher, **options)

    watched.__signature__ = inspect.signature(whole)
    watched.__module__ = whole.__module__
    monkeypatch.setattr(distil, "compress", watched)
    few = pipeline.Step("distil", {"steps": 2, "depth": 5})
    model = str(DATA / "mixlm")
    pipeline.run(model, [few, pipeline.Step("magnitude", {"ratio": 0.2}), few], TEXTS, tmp_path / "m", tokens=300)
    assert seen[0] is None and equal(seen[1], io.load(model)[0])
