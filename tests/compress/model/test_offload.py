"""Models whose blocks stay in files: the same results, few blocks in memory, and a clear word where it cannot be."""

import copy
import json
import resource
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.multiprocessing.reductions import StorageWeakRef
from transformers import AutoModelForCausalLM

from compress import pipeline
from compress.algorithms import memory
from compress.algorithms.resume import Progress
from compress.algorithms.traits import Needs, Traits
from compress.methods import methods, traits
from compress.model import io, offload, structure
from tests.compress.model.test_structure import build, every_model, logits
from tests.conftest import DATA, compressed
from transmeter.util.signatures import keyword_options

NAMES = [name for name in methods() if traits(name).streams]
OPTIONS = {name: {option.name for option in keyword_options(method)} for name, method in methods().items()}
WAYS = [(name, {}) for name in NAMES] + [
    ("magnitude", {"unit": "weights"}),
    ("kprune", {"iterative": True, "knowledge": "gradient"}),
    ("svd", {"kind": "fisher"}),
]
every_way = pytest.mark.parametrize("name, options", WAYS, ids=[f"{n} {o}" if o else n for n, o in WAYS])


def small(name):
    """Options by which a method makes the small models here smaller."""
    if name == "vector":
        return {"bits": 4, "width": 2}
    return {"ratio": 0.5} if "ratio" in OPTIONS[name] else {"group": None} if "group" in OPTIONS[name] else {}


def same(one, other):
    """Whether all weights are equal bit for bit."""
    names = [n for n, _ in one.named_parameters()]
    assert names == [n for n, _ in other.named_parameters()]
    return all(torch.equal(one.get_parameter(n), other.get_parameter(n)) for n in names)


@pytest.fixture
def short(calibration):
    """Two batches of three sequences of 24 tokens."""
    return [{k: v[:3, :24] for k, v in b.items()} for b in calibration[:2]]


@pytest.fixture
def folder(request, kind, tokenizer, tmp_path):
    """A model folder: two blocks of the real small Llama, or the random BERT."""
    model = request.getfixturevalue("two_blocks" if kind == "decoder" else "encoder")
    return io.save(model, tokenizer, tmp_path / "model", {})


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@every_way
def test_streamed_equals_in_memory_also_when_saved(name, options, kind, folder, short, tokenizer, tmp_path):
    whole, streamed = io.load(folder)[0], io.load(folder, stream=True)[0]
    teacher = copy.deepcopy(streamed)
    options = options | small(name)
    expected = compressed(name, whole, short, **options)
    found = compressed(name, streamed, short, **options)
    assert same(found, expected) and same(streamed, teacher) and same(streamed, whole)
    one = io.save(expected, tokenizer, tmp_path / "one", {})
    other = io.save(found, tokenizer, tmp_path / "other", {})
    assert json.loads((one / "config.json").read_text()) == json.loads((other / "config.json").read_text())
    assert same(io.load(other)[0], io.load(one)[0])
    assert same(io.load(other, stream=True)[0], io.load(one, stream=True)[0])
    whole = {k: v for f in one.glob("*.safetensors") for k, v in load_file(f).items()}
    parts = {k: v for f in other.glob("*.safetensors") for k, v in load_file(f).items()}
    index = json.loads((other / "model.safetensors.index.json").read_text())
    assert whole.keys() == parts.keys() == index["weight_map"].keys()
    assert all(torch.equal(v, parts[k]) and v.dtype == parts[k].dtype for k, v in whole.items())
    if kind == "decoder":
        alone = AutoModelForCausalLM.from_pretrained(other, dtype=torch.float32, trust_remote_code=True).eval()
        with torch.no_grad():
            assert torch.equal(alone(**short[0]).logits, io.load(other)[0](**short[0]).logits)


@every_model
def test_every_architecture_streams_from_its_folder(name, letters, tmp_path):
    model = build(name)
    streamed = io.load(io.save(model, letters, tmp_path / "m", {}), stream=True)[0]
    assert torch.equal(logits(streamed), logits(model))
    again = io.load(io.save(streamed, letters, tmp_path / "again", {}))[0]
    assert same(again, model) and not (tmp_path / "again/modeling_compressed.py").exists()
    for sub in structure.sublayers(model):
        keep = torch.arange(sub.units) % 2 == 0
        structure.remove(model, sub, keep)
        structure.remove(streamed, sub, keep)
    assert torch.equal(logits(streamed), logits(model))
    smaller = io.load(io.save(streamed, letters, tmp_path / "small", {}), stream=True)[0]
    assert same(smaller, model)


@pytest.fixture
def alive(monkeypatch):
    """Counts the blocks whose weights are in memory, whoever holds them, and keeps the largest number."""
    seen, get, most = [], offload.Store.get, {"blocks": 0}

    def watch(self, block, name, like):
        value = get(self, block, name, like)
        seen[:] = [(b, ref) for b, ref in seen if not ref.expired()]
        seen.append(((id(self), block), StorageWeakRef(value.untyped_storage())))
        most["blocks"] = max(most["blocks"], len({b for b, _ in seen}))
        return value

    monkeypatch.setattr(offload.Store, "get", watch)
    return most


@every_way
def test_few_blocks_are_in_memory(name, options, short, tokenizer, tmp_path, alive):
    """One of each model of a method, and what a loop still holds of the one before, of a model that has more."""
    few, model = traits(name).needs.models + 1, io.load(DATA / "mixlm")[0]
    assert few < model.config.num_hidden_layers
    structure.keep_blocks(model, list(range(few + 1)))
    streamed = io.load(io.save(model, tokenizer, tmp_path / "more", {}), stream=True)[0]
    made = compressed(name, streamed, short, **options, **small(name))
    io.save(made, tokenizer, tmp_path / "m", {})
    assert 1 <= alive["blocks"] <= few


def test_scratch_files_live_as_long_as_a_model_needs_them(tmp_path):
    (tmp_path / "s").mkdir()
    model = io.load(DATA / "mixlm", stream=True, scratch=tmp_path / "s")[0]
    student = structure.shallow_copy(model)
    name = "model.layers.0.mlp.up_proj.weight"
    for value in (1.0, 2.0):
        other = None
        structure.set_parameter(student, name, torch.full_like(student.get_parameter(name), value))
        other = structure.shallow_copy(student)
        assert len(list((tmp_path / "s").iterdir())) == 1  # the one before is not needed any more
    structure.unshare(student, model)
    del student
    assert (other.get_parameter(name) == 2).all() and not (model.get_parameter(name) == 2).any()
    del other
    assert not list((tmp_path / "s").iterdir())


@pytest.mark.parametrize("name, finished", [("kprune", 5), ("gptq", 2), ("vector", 1), ("svd", 2), ("mixed", 1)])
def test_finished_steps_are_restored(name, finished, short, tmp_path):
    expected = compressed(name, io.load(DATA / "mixlm")[0], short, **small(name))
    runs = [io.load(DATA / "mixlm", stream=True)[0] for _ in range(2)]
    compressed(name, runs[0], short, **small(name), progress=Progress(tmp_path / "p"))
    for file in sorted((tmp_path / "p").glob("*.safetensors"))[finished:]:
        file.unlink()
    assert same(compressed(name, runs[1], short, **small(name), progress=Progress(tmp_path / "p")), expected)


def test_packed_weights_stay_in_memory_and_count(short):
    sizes, streamed = io.skeleton(DATA / "mixlm")[0], io.load(DATA / "mixlm", stream=True)[0]
    found = compressed("round_to_nearest", streamed, short, bits=4)
    blocks = sum(p.nbytes for n, p in found.named_parameters() if n.startswith("model.layers") and not p.is_meta)
    estimates = [
        memory.estimate(sizes, [], traits("round_to_nearest"), {"bits": bits}, torch.float32).streamed
        for bits in (4, 0)
    ]
    assert blocks <= (estimates[0] - estimates[1]) * 5 / 12 <= 1.3 * blocks  # of 3 (4 + 1) bits without 3 (0 + 1)


def test_what_needs_the_model_in_memory_is_refused(calibration):
    model = io.load(DATA / "mixlm", stream=True)[0]
    with pytest.raises(ValueError, match="latency .* streams from files does not allow: give more memory"):
        compressed("magnitude", model, calibration, latency=0.1)


def rewritten(tmp_path, change):
    """A copy of the small Llama whose weights `change` has changed."""
    folder = tmp_path / "changed"
    shutil.copytree(DATA / "mixlm", folder)
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})
    return folder


def test_keys_without_the_base_model_prefix_are_found(decoder, tmp_path):
    folder = rewritten(tmp_path, lambda t: {k.removeprefix("model."): v for k, v in t.items()})
    assert same(io.load(folder, stream=True)[0], decoder[0])


@pytest.mark.parametrize(
    "method, options", [("round_to_nearest", {"embeddings": True, "head": True}), ("smoothquant", {})]
)
def test_a_folder_of_packed_weights_streams(method, options, tokenizer, short, decoder, tmp_path):
    folder = io.save(compressed(method, decoder[0], short, **options), tokenizer, tmp_path / "m", {})
    whole, streamed = io.load(folder)[0], io.load(folder, stream=True)[0]
    with torch.no_grad():
        assert torch.equal(streamed(**short[0]).logits, whole(**short[0]).logits)
    again = io.save(streamed, tokenizer, tmp_path / "again", {})
    assert same(io.load(again)[0], whole)


def steps(**options):
    """What memory.plan takes, for two methods."""
    return [(name, traits(name), options) for name in ("kprune", "wanda")]


def test_the_plan_prefers_memory_then_streams_then_refuses(decoder, calibration):
    sizes = io.skeleton(DATA / "mixlm")[0]
    found = [memory.estimate(sizes, calibration, declared, {}, torch.float32) for _, declared, _ in steps()]
    whole, streamed = max(found[0].between, *(e.whole for e in found)), max(e.streamed for e in found)
    assert streamed < whole
    real = memory.estimate(decoder[0], calibration, Traits(), {}, torch.float32)
    assert real == memory.estimate(sizes, calibration, Traits(), {}, torch.float32)

    def plan(limit, **options):
        return memory.plan(sizes, calibration, steps(**options), torch.float32, limit)

    assert not plan(None)[0] and not plan(whole)[0]
    assert plan(whole - 1)[0] and "streams" in plan(whole - 1)[1]
    with pytest.raises(ValueError, match="MB streamed from files, but .* may be used: lower --batch-size or --tokens"):
        plan(streamed - 1)
    with pytest.raises(ValueError, match="kprune cannot stream with its options, but"):
        plan(whole - 1, latency=0.1)


def test_only_a_step_that_another_follows_is_kept_in_memory_while_it_is_written():
    sizes = io.skeleton(DATA / "mixlm")[0]
    step = ("magnitude", traits("magnitude"), {"unit": "weights"})
    found = memory.estimate(sizes, [], step[1], step[2], torch.float32)
    assert found.between == 3 * 4 * sum(p.numel() for p in sizes.parameters()) > found.whole
    assert not memory.plan(sizes, [], [step], torch.float32, found.whole)[0]
    assert memory.plan(sizes, [], [step, step], torch.float32, found.whole)[0]
    assert not memory.plan(sizes, [], [step, step], torch.float32, found.between)[0]


def test_more_of_anything_needs_more(calibration):
    sizes = io.skeleton(DATA / "mixlm")[0]

    def needed(batches=calibration, dtype=torch.float32, streams=True, **needs):
        found = memory.estimate(sizes, batches, Traits(Needs(**needs), streams=streams), {"ratio": 0.5}, dtype)
        return found.whole, found.streamed

    usual = needed()
    for more in (needed(calibration * 40), needed(states=90), needed(matrices=30), needed(models=3)):
        assert all(a > b for a, b in zip(more, usual))
    assert all(a < b for a, b in zip(needed(dtype=torch.bfloat16), usual))
    assert needed(streams=False) == (usual[0], None)


def test_training_refuses_to_stream(calibration):
    with pytest.raises(ValueError, match="trains all weights at once, which a model that streams"):
        compressed("dynamic_sparse", io.load(DATA / "mixlm", stream=True)[0], calibration)


def test_svd_that_trains_refuses_to_stream_before_it_starts(calibration):
    with pytest.raises(ValueError, match="recovery=lora trains all weights at once, which a model that streams"):
        compressed("svd", io.load(DATA / "mixlm", stream=True)[0], calibration, recovery="lora")
    sizes = io.skeleton(DATA / "mixlm")[0]
    found = [
        memory.estimate(sizes, calibration, traits("svd"), {"recovery": recovery}, torch.float32)
        for recovery in ("none", "full")
    ]
    assert found[0].streamed is not None and found[1].streamed is None and found[1].whole > found[0].whole


def test_the_process_counts(calibration):
    before = memory.taken_before()
    held = torch.ones(25_000_000)
    after = memory.taken_before()
    assert after - before == pytest.approx(held.nbytes, rel=0.05)
    most = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after <= memory.FIRST_USE + 1.01 * most  # the kernel counts in steps
    assert memory.taken_before("cuda") == 0  # its memory is another
    sizes = io.skeleton(DATA / "mixlm")[0]
    needed = memory.estimate(sizes, calibration, traits("wanda"), {}, torch.float32).whole
    arguments = (sizes, calibration, [("wanda", traits("wanda"), {})], torch.float32)
    for limit, streams in ((needed + after, False), (needed + after - 1, True)):
        streamed, line = memory.plan(*arguments, limit, after)
        assert streamed == streams and "B of it the program and its libraries)" in line


def test_a_job_streams_where_memory_asks_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "taken_before", lambda device: 979 * 10**6)  # here it depends on the tests before
    told = []

    def run(name, limit):
        texts, step = DATA / "text/math_sample.txt", [pipeline.Step("wanda", {"ratio": 0.5})]
        return pipeline.run(
            str(DATA / "mixlm"),
            step,
            texts,
            tmp_path / name,
            tokens=400,
            machine=pipeline.Machine(memory=limit),
            tell=told.append,
        )

    run("one", 2 * 10**9)
    run("other", 10**9)
    memory_lines = [line for line in told if line.startswith("memory: ")]  # the others say what came of a step
    assert "streams" not in memory_lines[0] and memory_lines[1].endswith(" 1 GB may be used: the model streams")
    assert same(io.load(tmp_path / "other")[0], io.load(tmp_path / "one")[0])
    assert "block by block" in json.loads((tmp_path / "other/compression.json").read_text())["reloaded"]
    assert {p.name for p in tmp_path.iterdir()} == {"one", "other"}
    with pytest.raises(ValueError, match="memory: about .* but 1 MB may be used"):
        run("third", 10**6)
    assert {p.name for p in tmp_path.iterdir()} == {"one", "other"}
