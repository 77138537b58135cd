"""One compression from a model folder to a model folder: steps in order, each on the same data, resumable."""

import hashlib
import inspect
import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import accelerate
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase as Tokenizer

from compress import hub
from compress.algorithms import memory, sparsity
from compress.algorithms.budget import Limits
from compress.algorithms.resume import Progress
from compress.calibration import sampling
from compress.calibration.texts import batches
from compress.evaluation import evaluate
from compress.evaluation.evaluate import EvaluationTask
from compress.evaluation.metrics import METRICS
from compress.methods import SHARED, distil, methods, quantizes  # noqa: F401, SHARED is a part of what a step is
from compress.model import io, structure
from compress.model.offload import move, store_of
from compress.model.reading import check_device
from compress.model.storage import stored_bytes, stored_type
from compress.model.structure import shallow_copy
from compress.model.walk import Batch
from compress.report.card import write_card
from transmeter.util import writing
from transmeter.util.checkpoint import hash_of

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """A method and its options."""

    method: str
    options: Mapping[str, object]


@dataclass(frozen=True)
class Machine:
    """What a job runs on. device: as of io.load; dtype: that it computes in; batch_size: sequences run at once;
    memory: bytes that may be used, beyond which the model streams from its files; None: what is free."""

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    batch_size: int = 32
    memory: int | None = None


def run(
    model: str,
    steps: Sequence[Step],
    texts: str | Path | None,
    out: Path,
    *,
    tokens: int = 20_000,
    seed: int = 0,
    machine: Machine = Machine(),  # noqa: B008, it is frozen
    task: EvaluationTask | None = None,
    resume: bool = False,
    tell: Callable[[str], None] | None = None,
) -> dict[str, object]:
    """Compress `model` and write the folder `out`; returns the card that lies in it as compression.json.

    texts: as calibration.spec.parse takes it, None where no step looks at any; tokens: drawn from what has no budget of
    its own; task: what the model is measured on before the first and after every step. Finished steps lie beside `out`
    until it is complete; resume goes on from them. tell: is given a line on the memory that it takes before the work,
    and one a step on what came of it. Raises ValueError for what is not to be read or written or does not fit, or when
    an unfinished run was another one.
    """
    writing.check_new_folder(out)
    check_steps(steps, texts is not None)
    if texts is not None:
        sampling.parse(texts)
    with writing.lock(out):
        work = out.absolute().parent / f".{out.name}.unfinished"
        if work.exists() and not resume:
            raise ValueError(f"{work} holds an unfinished run: add --resume to go on with it, or remove it")
        check_device(machine.device)
        sizes, tokenizer = io.skeleton(model)
        check_fit(steps, sizes, tokenizer)
        sequences, used = [], None
        if texts is not None:
            sequences, used = sampling.sample(texts, sizes, tokenizer, tokens, seed, lambda: io.load(model)[0])
            LOG.info("calibration: %s", used)
        cpu = batches(tokenizer, sequences, machine.batch_size)
        stream = False
        if machine.device != "auto":  # auto spreads the model over what there is
            stream, why = _plan(sizes, cpu, steps, machine)
            if tell:
                tell(why)
        if stream:
            memory.give_back()
        _check(work, _fingerprint(model, sequences, steps, seed, machine, task))
        scratch = work / "scratch"
        for left in (scratch, *work.rglob(f"*{writing.PARTIAL}")):  # of a killed run
            writing.remove(left)
        scratch.mkdir()
        try:
            load = partial(io.load, device=machine.device, dtype=machine.dtype, stream=stream, scratch=scratch)
            net, card = _run(load, model, tokenizer, cpu, steps, seed, work, task, tell)
            card |= {"calibration": used, "device": machine.device, "dtype": str(machine.dtype).removeprefix("torch.")}
            card |= _asked(texts, tokens, seed, machine, task)
            if machine.device == "auto":
                accelerate.hooks.remove_hook_from_submodules(net)
            memory.trim()
            io.save(move(net, "cpu"), tokenizer, out, card, write_card)
        except BaseException:
            writing.remove(scratch)  # it may be what fills the disk
            if not any(work.glob("[0-9]*/**/*.safetensors")):  # nothing is finished that could be gone on with
                shutil.rmtree(work)
            raise
        shutil.rmtree(work)
        return card


def _run(
    load: Callable[[str | Path], tuple[nn.Module, Tokenizer]],
    model: str,
    tokenizer: Tokenizer,
    cpu: Sequence[Batch],
    steps: Sequence[Step],
    seed: int,
    work: Path,
    task: EvaluationTask | None,
    tell: Callable[[str], None] | None,
) -> tuple[nn.Module, dict[str, object]]:
    """The model after all steps, those that are finished already read from `work`, and the card so far."""
    folders = [work / f"{index}-{step.method}" for index, step in enumerate(steps)]
    finished = max((i + 1 for i, folder in enumerate(folders) if (folder / "model").is_dir()), default=0)
    last = folders[finished - 1] / "model" if finished else None
    net, _ = load(last or model)
    if last:
        card = json.loads((last / "compression.json").read_text(encoding="utf-8"))
        net.config.dtype = getattr(torch, card.pop("stored"))
    else:
        card = {
            "base_model": model,
            "base": hub.about_base(model),
            "before": measured(net, tokenizer, task),
            "steps": [],
        }
    original = None  # what a later step learns from
    if any(_learns(step) for step in steps[max(finished, 1) :]):
        original = load(model)[0] if finished else shallow_copy(net)
    data = [{k: v.to(net.device) for k, v in b.items()} for b in cpu]
    for index, (step, folder) in enumerate(zip(steps, folders)):
        if index < finished:
            LOG.info("step %d of %d: %s is read from %s", index + 1, len(steps), step.method, folder)
            continue
        LOG.info("step %d of %d: %s, options %s", index + 1, len(steps), step.method, dict(step.options))
        start = time.perf_counter()
        net = apply(net, data, step, seed, original if index else None, Progress(folder))
        seconds = time.perf_counter() - start
        after = measured(net, tokenizer, task)
        card["steps"].append({**asdict(step), "seconds": seconds, "after": after})
        if tell:
            tell(_line(step, seconds, card["before"], after))
        if index + 1 < len(steps):
            _keep(net, tokenizer, folder / "model", card)
    return net, card


def _asked(
    texts: str | Path | None, tokens: int, seed: int, machine: Machine, task: EvaluationTask | None
) -> dict[str, object]:
    """What the card says of how the job was called: the options of compress but for steps and folders, and the task."""
    given = {"calibration": texts and str(texts), "tokens": tokens, "seed": seed}
    given |= {"data": task and str(task.file), "metric": task and task.metric, "device": machine.device}
    given |= {"dtype": str(machine.dtype).removeprefix("torch."), "batch_size": machine.batch_size}
    found = {"arguments": given | {"memory": machine.memory}, "versions": hub.versions()}
    return found | ({"exam": task.about()} if task else {})


def _keep(net: nn.Module, tokenizer: Tokenizer, folder: Path, card: Mapping[str, object]) -> None:
    """Write the model between two steps as it is, not in the type that the result is stored in."""
    folder.parent.mkdir(exist_ok=True)  # a method that keeps no progress makes none
    stored, net.config.dtype = stored_type(net), net.dtype
    io.save(net, tokenizer, folder, {**card, "stored": str(stored).removeprefix("torch.")})
    net.config.dtype = stored


def measured(net: nn.Module, tokenizer: Tokenizer, task: EvaluationTask | None = None) -> dict[str, object]:
    """Sizes of a model, and what it reaches in the task; empty for one that streams from files."""
    if store_of(net):
        return {}
    found = evaluate.size(net) | {"bytes": stored_bytes(net)}
    return found | {task.metric: task.value(task.outcome(net, tokenizer))} if task else found


def _line(step: Step, seconds: float, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What came of a step."""
    line = f"{step.method}: {seconds:.0f} s"
    if after:
        line += f", {after['bytes']:,} bytes, {before['bytes'] / after['bytes']:.2f} times fewer than at first"
    for metric in before.keys() & {m for names in METRICS.values() for m in names}:
        line += f", {metric} {before[metric]['value']:.4g} -> {after[metric]['value']:.4g}"
    return line


def check_steps(steps: Sequence[Step], texts: bool) -> None:
    """Raise ValueError for options out of range, an order that cannot work, or missing texts."""
    known = methods()
    for index, step in enumerate(steps):
        Limits(**{f.name: step.options[f.name] for f in fields(Limits) if f.name in step.options})
        sparsity.parse(step.options.get("ratio"), step.options.get("pattern"))
        earlier = [s.method for s in steps[:index]]
        grid = next(filter(quantizes, earlier), None)
        if grid and step.method != "early_exit":
            raise ValueError(f"{step.method} cannot follow {grid}: quantized weights do not change, quantize last")
        if "svd" in earlier and "parameters" in inspect.signature(known[step.method]).parameters:
            raise ValueError(f"{step.method} cannot follow svd: no heads and neurons are left to remove, prune first")
        if not texts and memory.needs_of(known[step.method]).batches:
            raise ValueError(f"{step.method} looks at calibration texts: give --calibration, in Python calibration=")


def check_fit(steps: Sequence[Step], sizes: nn.Module, tokenizer: Tokenizer) -> None:
    """Raise ValueError for steps that cannot work on this model, whose weights may be on the meta device."""
    _check_groups(steps, sizes)
    _check_exits(steps, sizes)
    for index, step in enumerate(steps):
        if step.options.get("student"):
            distil.require_student(step.options["student"], tokenizer, index == 0)


def _check_groups(steps: Sequence[Step], sizes: nn.Module) -> None:
    """Raise ValueError where the group of a quantizer may not divide the widths that pruning before it leaves."""
    multiple, cutter = 0, None
    for step in steps:
        taken = inspect.signature(methods()[step.method]).parameters
        if "multiple" in taken and "parameters" in taken:  # removes heads and neurons
            multiple, cutter = math.gcd(multiple, step.options.get("multiple", taken["multiple"].default)), step.method
        group = step.options.get("group", taken["group"].default) if "group" in taken else None
        if group and cutter and (multiple % group or structure.head_width(sizes) % group):
            fits = math.gcd(structure.head_width(sizes), group)
            fix = f"give {cutter} multiple={fits} and {step.method} group={fits}"
            raise ValueError(f"group {group} may not divide the widths that {cutter} leaves: {fix}, or group=none")


def _check_exits(steps: Sequence[Step], sizes: nn.Module) -> None:
    """Raise ValueError for a step that would change a model whose exits are fitted to it; quantizers may."""
    leaving = hasattr(sizes, "exits")
    for step in steps:
        if leaving and not quantizes(step.method):
            raise ValueError(f"{step.method} would change the model that the exits are fitted to: put early_exit last")
        leaving = leaving or step.method == "early_exit"


def _plan(sizes: nn.Module, data: Sequence[Batch], steps: Sequence[Step], machine: Machine) -> tuple[bool, str]:
    most = memory.available(machine.device) if machine.memory is None else machine.memory
    return memory.plan(sizes, data, [(methods()[s.method], s.options) for s in steps], machine.dtype, most)


def _learns(step: Step) -> bool:
    return "teacher" in inspect.signature(methods()[step.method]).parameters


def apply(
    net: nn.Module,
    data: Sequence[Batch],
    step: Step,
    seed: int,
    original: nn.Module | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """The model after a step, which may change `net` itself.

    original: what a step learns from, None: `net` as it is; progress: where finished parts are kept, None: nowhere.
    """
    function = methods()[step.method]
    taken = inspect.signature(function).parameters
    given: dict[str, object] = {"seed": seed} if "seed" in taken else {}
    if "progress" in taken:
        given["progress"] = progress
    if _learns(step):
        given["teacher"] = original
    return function(net, data, in_place=True, **given | step.options)


def _fingerprint(
    model: str,
    sequences: Sequence[Sequence[int]],
    steps: Sequence[Step],
    seed: int,
    machine: Machine,
    task: EvaluationTask | None,
) -> dict[str, object]:
    """What a resumed run must have in common with the one that it goes on with."""
    return {
        "model": hash_of(model),
        "texts": hashlib.sha256(json.dumps(sequences).encode()).hexdigest(),
        "steps": json.loads(json.dumps([asdict(s) for s in steps])),
        "seed": seed,
        "device": machine.device,
        "dtype": str(machine.dtype),
        "batch_size": machine.batch_size,
        "data": task and task.about(),
    }


def _check(work: Path, fingerprint: Mapping[str, object]) -> None:
    """Raise ValueError if `work` was begun with another fingerprint; else begin it."""
    file = work / "fingerprint.json"
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        for name, value in fingerprint.items():
            if before.get(name) != value:
                was, now = (
                    f" ({before.get(name)}, now {value})" if name not in ("model", "texts") else "" for _ in "12"
                )
                raise ValueError(f"{work} was begun with other {name}{was}: give the same, or remove it")
        return
    with writing.new_folder(work) as begun:
        writing.write_text(begun / file.name, json.dumps(fingerprint))
