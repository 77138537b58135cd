"""One compression from a model folder to a model folder: steps in order, each on the same data, resumable."""

import hashlib
import inspect
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import accelerate
import torch

from compress import calibration, memory, models, sparsity
from compress.budget import Limits
from compress.methods import distil, methods
from compress.offload import move
from compress.progress import Progress
from compress.structure import fork
from compress.texts import batches, read_texts
from compress.walk import Batch

SHARED = ("in_place", "progress", "seed", "teacher")  # arguments of a method that are not options of one step


@dataclass(frozen=True)
class Step:
    """A method and its options."""

    method: str
    options: Mapping[str, object]


@dataclass(frozen=True)
class Machine:
    """What a job runs on. device: as of models.load; dtype: that it computes in; batch_size: sequences run at once;
    memory: bytes that may be used, beyond which the model streams from its files; None: what is free."""

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    batch_size: int = 32
    memory: int | None = None


def run(
    model: str,
    steps: Sequence[Step],
    texts: Path,
    out: Path,
    *,
    tokens: int = 20_000,
    seed: int = 0,
    machine: Machine = Machine(),  # noqa: B008, it is frozen
    resume: bool = False,
    tell: Callable[[str], None] | None = None,
) -> dict[str, object]:
    """Compress `model` and write the folder `out`; returns the card that lies in it as compression.json.

    texts: calibration texts, or a folder that calibration.save wrote; tokens: drawn from texts that have no budget of
    their own. Finished steps lie beside `out` until it is complete; resume goes on from them. tell: is given a line on
    the memory that it takes before the work. Raises ValueError for what is not to be read or written or does not fit,
    or when an unfinished run was another one.
    """
    models.check_output(out)
    for step in steps:
        Limits(**{f.name: step.options[f.name] for f in fields(Limits) if f.name in step.options})
        sparsity.parse(step.options.get("ratio"), step.options.get("pattern"))
    work = out.absolute().parent / f".{out.name}.unfinished"
    if work.exists() and not resume:
        raise ValueError(f"{work} holds an unfinished run: add --resume to go on with it, or remove it")
    pool = read_texts(texts)
    models.check_device(machine.device)
    sizes, tokenizer = models.skeleton(model)
    for step in steps:
        if step.options.get("student"):
            distil.require_student(step.options["student"], tokenizer)
    sequences, used = calibration.draw(texts, pool, sizes, tokenizer, tokens, seed)
    cpu = batches(tokenizer, sequences, machine.batch_size)
    stream = False
    if machine.device != "auto":  # which spreads the model over what there is
        stream, why = _plan(sizes, cpu, steps, machine)
        if tell:
            tell(why)
    if stream:
        memory.give_back()
    scratch = work / "scratch"
    net, _ = models.load(model, machine.device, machine.dtype, stream=stream, scratch=scratch)
    _check(work, _fingerprint(model, sequences, steps, seed, machine))
    shutil.rmtree(scratch, ignore_errors=True)  # of a killed run
    scratch.mkdir()
    data = [{k: v.to(net.device) for k, v in b.items()} for b in cpu]
    done = []
    original = fork(net) if any(_learns(step) for step in steps[1:]) else None  # as the first step changes it
    try:
        for index, step in enumerate(steps):
            start = time.perf_counter()
            folder = work / f"{index}-{step.method}"
            net = _apply(net, data, step, seed, folder, original if index else None)
            done.append({**asdict(step), "seconds": time.perf_counter() - start})
        card = {
            "base_model": model,
            "steps": done,
            "calibration": used,
            "device": machine.device,
            "dtype": str(machine.dtype).removeprefix("torch."),
        }
        if machine.device == "auto":
            accelerate.hooks.remove_hook_from_submodules(net)
        models.save(move(net, "cpu"), tokenizer, out, card)
    except BaseException:
        if not any(work.glob("[0-9]*/**/*.safetensors")):  # nothing is finished that could be gone on with
            shutil.rmtree(work)
        raise
    shutil.rmtree(work)
    return card


def _plan(sizes: torch.nn.Module, data: Sequence[Batch], steps: Sequence[Step], machine: Machine) -> tuple[bool, str]:
    most = memory.available(machine.device) if machine.memory is None else machine.memory
    return memory.plan(sizes, data, [(methods()[s.method], s.options) for s in steps], machine.dtype, most)


def _learns(step: Step) -> bool:
    return "teacher" in inspect.signature(methods()[step.method]).parameters


def _apply(
    net: torch.nn.Module,
    data: Sequence[Batch],
    step: Step,
    seed: int,
    folder: Path,
    original: torch.nn.Module | None,
) -> torch.nn.Module:
    function = methods()[step.method]
    taken = inspect.signature(function).parameters
    given = {"seed": seed} if "seed" in taken else {}
    if "progress" in taken:
        given["progress"] = Progress(folder)
    if _learns(step):
        given["teacher"] = original
    return function(net, data, in_place=True, **given | step.options)


def _fingerprint(
    model: str, sequences: Sequence[Sequence[int]], steps: Sequence[Step], seed: int, machine: Machine
) -> dict[str, object]:
    """What a resumed run must have in common with the one that it goes on with."""
    return {
        "model": models.hash_of(model),
        "texts": hashlib.sha256(json.dumps(sequences).encode()).hexdigest(),
        "steps": json.loads(json.dumps([asdict(s) for s in steps])),
        "seed": seed,
        "device": machine.device,
        "dtype": str(machine.dtype),
        "batch_size": machine.batch_size,
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
    work.mkdir(exist_ok=True)
    partial = work / "fingerprint.partial"
    partial.write_text(json.dumps(fingerprint), encoding="utf-8")
    os.replace(partial, file)
