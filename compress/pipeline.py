"""One compression from a model folder to a model folder: steps in order, each on the same data, resumable."""

import hashlib
import json
import logging
import math
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import accelerate
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase as Tokenizer

from compress import hub
from compress.algorithms import memory, sparsity
from compress.algorithms.resume import Progress
from compress.calibration import sampling
from compress.calibration.texts import batches
from compress.evaluation import costs
from compress.evaluation.evaluate import EvaluationTask, Predictions
from compress.evaluation.metrics import METRICS
from compress.methods import check, distil, methods, traits
from compress.model import io, structure
from compress.model.embedding import has_head, pooling_of
from compress.model.offload import move, store_of
from compress.model.reading import check_device
from compress.model.storage import forget, stored_bytes, stored_type
from compress.model.structure import shallow_copy, unshare, weights_of_layers
from compress.model.walk import Batch
from compress.report import tables
from compress.report.card import write_card
from transmeter.util import heap, writing
from transmeter.util.checkpoint import hash_of
from transmeter.util.counts import counted
from transmeter.util.signatures import grouped, keyword_options

LOG = logging.getLogger(__name__)
NEARLY_ALL = 0.95  # ratio from which what is left is doubtful
Load = Callable[[str | Path], tuple[nn.Module, Tokenizer]]


@dataclass(frozen=True)
class Step:
    """A step of the pipeline.

    Attributes
    ----------
    method
        Name of a file in compress/methods.
    options
        Its options, by name.
    """

    method: str
    options: Mapping[str, object]


@dataclass(frozen=True)
class Machine:
    """What the pipeline runs on.

    Attributes
    ----------
    device
        As of `compress.load`.
    dtype
        That it computes in.
    batch_size
        Number of sequences that run at once.
    memory
        Bytes that the whole process may use, beyond which the model streams from its files; None: what is free.
    """

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    batch_size: int = 32
    memory: int | None = None


@dataclass(frozen=True)
class _Run:
    """The arguments of `run`, and the folder beside `out` that finished steps are in."""

    model: str
    steps: Sequence[Step]
    texts: str | Path | None
    out: Path
    tokens: int
    length: int | None
    pack: bool
    seed: int
    machine: Machine
    task: EvaluationTask | None
    tell: Callable[[str], None]

    @property
    def work(self) -> Path:
        return self.out.absolute().parent / f".{self.out.name}.unfinished"


def run(
    model: str,
    steps: Sequence[Step],
    texts: str | Path | None,
    out: Path,
    *,
    tokens: int = 20_000,
    length: int | None = None,
    pack: bool = False,
    seed: int = 0,
    machine: Machine = Machine(),
    task: EvaluationTask | None = None,
    resume: bool = False,
    tell: Callable[[str], None] | None = None,
) -> dict[str, object]:
    """Compress a model and write the result to a new folder.

    Parameters
    ----------
    model
        Folder, GGUF file or hub name.
    steps
        Methods with their options, which run in order.
    texts
        As calibration.spec.parse takes it, None where no step looks at any.
    out
        A new folder. Finished steps lie beside it until it is complete.
    tokens
        Number of tokens that are sampled from what has no budget of its own.
    length, pack
        Largest number of tokens of a sequence, and whether texts are joined to full ones, as of
        `calibration.sampling.sequences_of`.
    seed
        Of sampling and of the methods.
    machine
        What the pipeline runs on.
    task
        What the model is evaluated on before the first and after every step.
    resume
        Whether to go on from the steps that an earlier run has finished.
    tell
        Is given a line on the memory that it takes before the work, and one a step on the result.

    Returns
    -------
    dict
        The card that lies in the folder as compression.json.

    Raises
    ------
    ValueError
        Something cannot be read or written or does not fit, or the unfinished run was another one.
    RuntimeError
        What a step reaches misses the request.
    """
    writing.check_new_folder(out)
    check_steps(steps, texts is not None)
    if texts is not None:
        sampling.parse(texts)
    with writing.lock(out):
        return _run(
            _Run(model, steps, texts, out, tokens, length, pack, seed, machine, task, tell or LOG.debug), resume
        )


def _run(run: _Run, resume: bool) -> dict[str, object]:
    """`run`, of which the output is locked."""
    if run.work.exists() and not resume:
        raise ValueError(f"{run.work} holds an unfinished run: add --resume to go on with it, or remove it")
    check_device(run.machine.device)
    sizes, tokenizer = io.skeleton(run.model)
    check_fit(run.steps, sizes, tokenizer)
    sequences, used = [], None
    if run.texts is not None:
        sequences, used = sampling.sample(
            run.texts,
            sizes,
            tokenizer,
            run.tokens,
            run.seed,
            lambda: io.load(run.model)[0],
            length=run.length,
            pack=run.pack,
        )
        LOG.info("calibration: %s", used)
        run.tell(_lengths(sequences, run.pack))
    data = batches(tokenizer, sequences, run.machine.batch_size, structure.vocabulary(sizes))
    if not has_head(sizes):
        run.tell(f"embedding: {pooling_of(sizes).about()}")
    stream = _plan(run, sizes, data)
    _begin(run.work, _fingerprint(run, sequences))
    record = {"calibration": used, **_record(run), **about_embedding(sizes)}
    with _scratch(run.work) as scratch:
        load = partial(io.load, device=run.machine.device, dtype=run.machine.dtype, stream=stream, scratch=scratch)
        net, card = _run_steps(run, load if stream else heap.giving_back()(load), tokenizer, data)
        card = {**card, **record}
        if run.machine.device == "auto":
            accelerate.hooks.remove_hook_from_submodules(net)
        forget(net)
        heap.collect()
        with heap.giving_back():
            io.save(move(net, "cpu"), tokenizer, run.out, card, write_card, keep=False)
    shutil.rmtree(run.work)
    return card


def _plan(run: _Run, sizes: nn.Module, data: Sequence[Batch]) -> bool:
    """Whether the model has to stream from its files; says why."""
    machine = run.machine
    if machine.device == "auto":  # the model is spread over what there is
        return False
    limit, taken = machine.memory, memory.taken_before(machine.device)
    if limit is None and (free := memory.available(machine.device)) is not None:
        limit = free + taken
    steps = [(step.method, traits(step.method), _options(step)) for step in run.steps]
    stream, reason = memory.plan(sizes, data, steps, machine.dtype, limit, taken)
    run.tell(reason)
    if stream:
        heap.give_back()
    return stream


@contextmanager
def _scratch(work: Path) -> Iterator[Path]:
    """A new folder in `work`, which goes with all of `work` on an error, unless there is something to go on with."""
    scratch = work / "scratch"
    for remnant in (scratch, *work.rglob(f"*{writing.PARTIAL}")):  # of a killed run
        writing.remove(remnant)
    scratch.mkdir()
    try:
        yield scratch
    except BaseException:
        writing.remove(scratch)  # it may be what fills the disk
        if not any(work.glob("[0-9]*/**/*.safetensors")):
            shutil.rmtree(work)
        raise


def _run_steps(run: _Run, load: Load, tokenizer: Tokenizer, data: Sequence[Batch]) -> tuple[nn.Module, dict[str, Any]]:
    """The model after all steps, those that are finished already read from `work`, and the card so far."""
    folders = [run.work / f"{index}-{step.method}" for index, step in enumerate(run.steps)]
    done = max((i + 1 for i, folder in enumerate(folders) if (folder / "model").is_dir()), default=0)
    if done:
        LOG.info("step %d of %d is read from %s", done, len(folders), folders[done - 1])
        net, card = _restore(load, folders[done - 1] / "model")
        dense = _measured(load(run.model)[0], tokenizer, run.task)[1] if run.task else None
    else:
        net, _ = load(run.model)
        before, dense = _measured(net, tokenizer, run.task)
        card = {"base_model": run.model, "base": hub.about_base(run.model), "before": before, "steps": []}
    teacher = None  # the model before the first step, where a later one learns from it
    if any(traits(step.method).learns for step in run.steps[max(done, 1) :]):
        teacher = load(run.model)[0] if done else shallow_copy(net)
    data = [{k: v.to(net.device) for k, v in batch.items()} for batch in data]
    for index, (step, folder) in enumerate(zip(run.steps[done:], folders[done:]), done):
        LOG.info("step %d of %d: %s, options %s", index + 1, len(folders), step.method, dict(step.options))
        start = time.perf_counter()
        net = apply(net, data, step, run.seed, teacher if index else None, Progress(folder))
        seconds = time.perf_counter() - start
        after, _ = _measured(net, tokenizer, run.task, dense)
        card["steps"].append({**asdict(step), "seconds": seconds, "after": after})
        run.tell(_line(step, seconds, card["before"], after))
        if index + 1 < len(folders):
            _keep(net, tokenizer, folder / "model", card)
    return net, card


def _restore(load: Load, folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The model that `_keep` wrote, and its card."""
    net, _ = load(folder)
    card = json.loads((folder / "compression.json").read_text(encoding="utf-8"))
    net.config.dtype = getattr(torch, card.pop("stored"))
    return net, card


def _record(run: _Run) -> dict[str, object]:
    """What the card says of the run: its arguments but for steps and folders, its task, and the libraries."""
    machine, task = run.machine, run.task
    dtype = _name(machine.dtype)
    arguments = {
        "calibration": run.texts and str(run.texts),
        "tokens": run.tokens,
        "length": run.length,
        "pack": run.pack or None,
        "seed": run.seed,
        "data": task and str(task.file),
        "metric": task and task.metric,
        **(task.reading.arguments() if task and task.reading else {}),
        "device": machine.device,
        "dtype": dtype,
        "batch_size": machine.batch_size,
        "memory": machine.memory,
    }
    record = {"device": machine.device, "dtype": dtype, "arguments": arguments, "versions": hub.versions()}
    return {**record, "exam": task.about()} if task else record


def _lengths(sequences: Sequence[Sequence[int]], packed: bool) -> str:
    """What the calibration consists of."""
    longest, tokens = max(map(len, sequences)), sum(map(len, sequences))
    joined = ", texts joined" if packed else ""
    parts = counted(len(sequences), "sequence")
    return f"calibration: {counted(tokens, 'token')} in {parts} of at most {longest:,}{joined}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _keep(net: nn.Module, tokenizer: Tokenizer, folder: Path, card: Mapping[str, object]) -> None:
    """Write the model between two steps as it is, not in the type that the result is stored in."""
    folder.parent.mkdir(exist_ok=True)  # a method that keeps no progress makes none
    stored, net.config.dtype = stored_type(net), net.dtype
    io.save(net, tokenizer, folder, {**card, "stored": _name(stored)})
    net.config.dtype = stored


def about_embedding(net: nn.Module) -> dict[str, object]:
    """What the model card says of the embeddings of a model.

    Parameters
    ----------
    net
        The model.

    Returns
    -------
    dict
        Its pooling, and the file that says so; empty for a model with a head.
    """
    if has_head(net):
        return {}
    pooling = pooling_of(net)
    return {"embedding": {"pooling": pooling.about(), "file": pooling.file}}


def sizes_of(net: nn.Module) -> dict[str, object]:
    """Parameters, FLOPs and bytes of a model.

    Parameters
    ----------
    net
        The model.

    Returns
    -------
    dict
        Empty for a model that streams from files.
    """
    return {} if store_of(net) else {**costs.size(net), "bytes": stored_bytes(net)}


def _measured(
    net: nn.Module, tokenizer: Tokenizer, task: EvaluationTask | None, dense: Predictions | None = None
) -> tuple[dict[str, object], Predictions | None]:
    """Sizes of a model, the values of the task with their paired change to the `dense` model's, and its predictions."""
    sizes = sizes_of(net)
    if not (task and sizes):
        return sizes, None
    found = task.predict(net, tokenizer)
    return {**sizes, **task.values(found, dense), **(task.change(found, dense) if dense else {})}, found


def _line(step: Step, seconds: float, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What came of a step."""
    line = f"{step.method}: {seconds:.0f} s"
    if after:
        line += f", {after['bytes']:,} bytes, {before['bytes'] / after['bytes']:.2f} times fewer than at first"
    for metric in before.keys() & {m for names in METRICS.values() for m in names}:
        line += f", {metric} {before[metric]['value']:.4g} -> {after[metric]['value']:.4g}"
    if change := tables.change(after):
        line += f", change {change}"
    return line


def check_steps(steps: Sequence[Step], texts: bool) -> None:
    """Refuse steps that cannot work on any model.

    Parameters
    ----------
    steps
        In order.
    texts
        Whether there are calibration texts.

    Raises
    ------
    ValueError
        For options out of range, an order that cannot work, or missing texts.
    """
    earlier: list[str] = []
    for step in steps:
        options = check(step.method, step.options)
        grouped(methods()[step.method], options)  # which checks their values
        sparsity.parse(options.get("ratio"), options.get("pattern"))
        own = traits(step.method)
        quantizer = next((name for name in earlier if traits(name).quantizes), None)
        if quantizer and own.changes != "exits":
            raise ValueError(f"{step.method} cannot follow {quantizer}: quantized weights do not change, quantize last")
        factorised = next((name for name in earlier if traits(name).changes == "ranks"), None)
        if factorised and own.removes:
            reason = "no heads and neurons are left to remove, prune first"
            raise ValueError(f"{step.method} cannot follow {factorised}: {reason}")
        if not texts and own.texts:
            raise ValueError(f"{step.method} looks at calibration texts: give --calibration, in Python calibration=")
        earlier.append(step.method)


def check_fit(steps: Sequence[Step], sizes: nn.Module, tokenizer: Tokenizer) -> None:
    """Refuse steps that cannot work on a model.

    Parameters
    ----------
    steps
        In order.
    sizes
        The model; its weights may be on the meta device.
    tokenizer
        Its own.

    Raises
    ------
    ValueError
        For a plain shape of what another step leaves uneven, a group that may not divide the widths that are left, a
        change behind early exits, or a student with another tokenizer.
    """
    _check_shapes(steps)
    _check_groups(steps, sizes)
    _check_exits(steps, sizes)
    for index, step in enumerate(steps):
        if step.options.get("student"):
            distil.require_student(step.options["student"], tokenizer, index == 0)


def _check_shapes(steps: Sequence[Step]) -> None:
    """Raise ValueError for shape=uniform behind a step that leaves layers of several sizes."""
    uneven = None
    for step in steps:
        uniform = step.options.get("shape") == "uniform"
        if uniform and uneven:
            what = f"{step.method} with shape=uniform takes layers of one size, {uneven} leaves several"
            raise ValueError(f"{what}: leave it out, or give it shape=uniform too where it takes it")
        if (_cuts_units(step) or traits(step.method).changes == "sublayers") and not uniform:
            uneven = step.method


def _cuts_units(step: Step) -> bool:
    """Whether a step removes single heads and neurons."""
    return traits(step.method).changes == "units" and step.options.get("unit") != "weights"


def _check_groups(steps: Sequence[Step], sizes: nn.Module) -> None:
    """Raise ValueError where the group of a quantizer may not divide the widths that pruning before it leaves."""
    multiple, pruner = 0, None
    for step in steps:
        options = _options(step)
        if _cuts_units(step):
            multiple, pruner = math.gcd(multiple, options.get("multiple", 1)), step.method
        group = options.get("group") if traits(step.method).quantizes else None
        if group and pruner and (multiple % group or structure.head_width(sizes) % group):
            fits = math.gcd(structure.head_width(sizes), group)
            fix = f"give {pruner} multiple={fits} and {step.method} group={fits}"
            raise ValueError(f"group {group} may not divide the widths that {pruner} leaves: {fix}, or group=none")


def _options(step: Step) -> dict[str, object]:
    """All options of a step, those that are not given at their defaults."""
    return {option.name: option.default for option in keyword_options(methods()[step.method])} | step.options


def _check_exits(steps: Sequence[Step], sizes: nn.Module) -> None:
    """Raise ValueError for a step that would change a model whose exits are fitted to it; quantizers may."""
    exits = hasattr(sizes, "exits")
    for step in steps:
        if exits and not traits(step.method).quantizes:
            raise ValueError(f"{step.method} would change the model that the exits are fitted to: put early_exit last")
        exits = exits or traits(step.method).changes == "exits"


def apply(
    net: nn.Module,
    data: Sequence[Batch],
    step: Step,
    seed: int = 0,
    teacher: nn.Module | None = None,
    progress: Progress | None = None,
    in_place: bool = True,
) -> nn.Module:
    """Run one step.

    Parameters
    ----------
    net
        The model.
    data
        Batches of calibration texts.
    step
        A method and its options.
    seed
        Of the method, where it takes one.
    teacher
        What a method learns from; None: `net` as it is.
    progress
        Where finished parts are kept; None: nowhere.
    in_place
        Whether the step changes `net` itself; else a copy, which shares its weights until they are replaced.

    Returns
    -------
    nn.Module
        `net` or its copy, or another model in its place.

    Raises
    ------
    ValueError
        For options that the model does not allow.
    RuntimeError
        What is reached misses the request.
    """
    ratio = step.options.get("ratio")
    if isinstance(ratio, float) and ratio >= NEARLY_ALL:
        left = f"leaves {1 - ratio:.3g} of what it removes from"
        warnings.warn(f"{step.method} ratio={ratio:g} {left}: evaluate the result before you use it", stacklevel=2)
    method = methods()[step.method]
    shared: dict[str, object] = {}
    if any(option.name == "seed" for option in keyword_options(method)):
        shared["seed"] = seed
    if traits(step.method).learns:
        shared["teacher"] = teacher
    if traits(step.method).resumes:
        shared["progress"] = progress
    arguments = grouped(method, {**shared, **check(step.method, step.options)})
    before = weights_of_layers(net)
    found = method(net, data, **arguments) if in_place else unshare(method(shallow_copy(net), data, **arguments), net)
    _tell_apart(step, before, weights_of_layers(found))
    return found


def _tell_apart(step: Step, before: Mapping[str, int], after: Mapping[str, int]) -> None:
    """Warn where layers of several blocks had one weight (`share`) and the step has given each its own."""
    groups: dict[int, set[int]] = {}
    for path, weight in before.items():
        if path in after:
            groups.setdefault(weight, set()).add(after[path])
    more = sum(len(group) - 1 for group in groups.values())
    if more:
        apart = f"{step.method} gives {counted(more, 'layer')} a weight of its own that other blocks shared"
        warnings.warn(f"{apart}: the file holds it once for each of them", stacklevel=3)


def _fingerprint(run: _Run, sequences: Sequence[Sequence[int]]) -> dict[str, object]:
    """What a resumed run must have in common with the one that it goes on with."""
    return {
        "model": hash_of(run.model),
        "texts": hashlib.sha256(json.dumps(sequences).encode()).hexdigest(),
        "steps": json.loads(json.dumps([asdict(step) for step in run.steps])),
        "seed": run.seed,
        "device": run.machine.device,
        "dtype": str(run.machine.dtype),
        "batch_size": run.machine.batch_size,
        "data": run.task and run.task.about(),
    }


def _begin(work: Path, fingerprint: Mapping[str, object]) -> None:
    """Raise ValueError if `work` was begun with another fingerprint; else begin it."""
    file = work / "fingerprint.json"
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        for name, value in fingerprint.items():
            if before.get(name) != value:
                values = "" if name in ("model", "texts") else f" ({before.get(name)}, now {value})"
                raise ValueError(f"{work} was begun with other {name}{values}: give the same, or remove it")
        return
    with writing.new_folder(work) as begun:
        writing.write_text(begun / file.name, json.dumps(fingerprint))
