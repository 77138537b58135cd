"""How much memory a compression takes, told before it starts, and whether its model has to stream from files.

In bytes, with w of one number in the working type, s in the stored one, P parameters in all, of which p in the largest
block and o outside the blocks, L blocks, d the width of the hidden states, f the widest input of a linear layer and m
its parameters, V the classes of a row, T tokens with padding in all batches and t in the largest one:

    in memory   max((w + s) P, w P (1 + kept (models - 1)) + held + beside)    loading, the method
    streamed    max(w (o + models p) + written + held, (2 w + s) o + w p) + 3 q    the method, reading back
    between     3 (w o + q) of packed bits, else 3 w P kept    in memory where a step follows: kept, its file, read back
    held        w states T d + max(forward + 8 matrices f^2, backward, 4 copies m)
    forward     w t (8 d + 3 f) + 16 t f
    backward    w t (12 d + 8 f + L d) + 20 t V + w p     streamed, a block at a time
                w t L (8 d + 4 f) + 20 t V                in memory, all blocks
    beside      s P + q of packed bits, else 2 w p: a changed block, and the gaps that the old weights leave
    written     0 of packed bits, else 2 w p: a changed block, and its bytes as they are written to a file
    q           (P - o) (bits + 1) / 8 of packed bits, else 0; three times: the model's, those saved, and their file

Where a block has e experts of n neurons each, k of them a token, their inputs take w t k (d + n) more in the forward,
and moments of all of them 8 e (d^2 + n^2) more in held, three times that where ranks are lowered.

kept is the share of the model that stays; models, states, matrices and copies are a method's own `Needs`. After the
last step the model in memory is freed before its file is read back, which takes no more than loading did. Attention is
taken to build no matrix of tokens x tokens.
What the process takes before, the interpreter and its libraries, is measured when the line is written and counts too.
Measured in benchmarks/prune_speed.py, part memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import nn

from compress.algorithms.options import Limits
from compress.algorithms.traits import Traits
from compress.model.architectures import blocks_path
from compress.model.structure import block_linears, experts, vocabulary
from compress.model.walk import Batch

CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
TRAINED = 6  # models where all weights are trained: the two, gradients, the optimizer's two, and one on the way
STATUS = Path("/proc/self/status")
FIRST_USE = 40 * 10**6  # bytes that libraries take when they are used for the first time


@dataclass(frozen=True)
class Estimate:
    """Bytes that a compression takes at most.

    Attributes
    ----------
    whole
        In memory.
    streamed
        Streamed from files; None: it cannot be streamed.
    between
        In memory, while the result is written for a step that follows.
    """

    whole: int
    streamed: int | None
    between: int


def estimate(
    model: nn.Module, batches: Sequence[Batch], traits: Traits, options: Mapping[str, object], dtype: torch.dtype
) -> Estimate:
    """What a method takes, by the formulas above.

    Parameters
    ----------
    model
        Of which only sizes are used.
    batches
        Calibration texts.
    traits
        Of the method.
    options
        Of the method; where they are missing it is no ratio, 8 bits and no recovery.
    dtype
        That the model computes in.

    Returns
    -------
    Estimate
        In bytes, without what the process takes before.
    """
    needs, trains = traits.needs, options.get("recovery", "none") != "none"
    models = max(needs.models, TRAINED) if trains else needs.models
    w, s = dtype.itemsize, (model.config.dtype or torch.float32).itemsize
    blocks = model.get_submodule(blocks_path(model))
    each = [sum(p.numel() for p in block.parameters()) for block in blocks]
    total, p = sum(p.numel() for p in model.parameters()), max(each)
    o = total - sum(each)
    linears = [linear for i in range(len(blocks)) for _, linear in block_linears(model, i)]
    f, m = max(x.in_features for x in linears), max(x.in_features * x.out_features for x in linears)
    d, v = model.config.hidden_size, vocabulary(model)
    tokens = [batch["input_ids"].numel() for batch in batches]
    t, everything = max(tokens, default=0), sum(tokens)
    limits = Limits(**{x.name: options[x.name] for x in fields(Limits) if x.name in options})
    kept = 1 - limits.share if needs.shrinks and limits == Limits(options.get("ratio", 0)) else 1

    routed, moments = _of_experts(model)
    moments *= 8 * (3 if traits.changes == "ranks" else 1) if needs.matrices and not traits.removes else 0

    def held(backward: int) -> int:
        forward = w * t * (8 * d + 3 * f + routed) + 16 * t * f if needs.states else 0
        most = moments + max(
            forward + 8 * needs.matrices * f**2, backward if needs.gradients else 0, 4 * needs.copies * m
        )
        return w * needs.states * everything * d + most

    a_block = w * t * (12 * d + 8 * f + len(each) * d) + 20 * t * v + w * p
    all_blocks = w * t * len(each) * (8 * d + 4 * f) + 20 * t * v
    whole = w * total * (1 + kept * (models - 1)) + held(a_block if needs.blockwise else all_blocks)
    packed = 0
    if traits.changes == "bits":
        packed = (total - o) * (options.get("bits", 8) / options.get("width", 1) + 1) / 8
    written = 0 if packed else 2 * w * p
    beside = s * total + packed if packed else written
    between = round(3 * (w * o + packed if packed else w * total * kept))
    whole = round(max((w + s) * total, whole + beside))
    if not traits.streams or limits.latency or trains:  # a latency is measured on the model as it runs
        return Estimate(whole, None, between)
    streamed = w * (o + p * models) + written + held(a_block)
    return Estimate(whole, round(3 * packed + max(streamed, (2 * w + s) * o + w * p)), between)


def _of_experts(model: nn.Module) -> tuple[int, int]:
    """Numbers that a token brings into the experts that it goes through, and those of the moments of all of a block."""
    mixtures = experts(model)
    if not mixtures:
        return 0, 0
    n, d = mixtures[0][0].get_submodule(mixtures[0][0].names[0]).weight.shape
    return model.config.num_experts_per_tok * (d + n), len(mixtures[0]) * (d**2 + n**2)


def plan(
    model: nn.Module,
    batches: Sequence[Batch],
    steps: Sequence[tuple[str, Traits, Mapping[str, object]]],
    dtype: torch.dtype,
    limit: int | None,
    taken: int = 0,
) -> tuple[bool, str]:
    """Whether a model has to stream from its files.

    Parameters
    ----------
    model
        Of which only sizes are used.
    batches
        Calibration texts.
    steps
        Name, traits and options of every method, in order.
    dtype
        That the model computes in.
    limit
        Bytes that may be used; None: unknown, so that nothing streams.
    taken
        Bytes of the interpreter and its libraries, as of `taken_before`.

    Returns
    -------
    tuple
        The answer, and a line that gives the reason.

    Raises
    ------
    ValueError
        The model does not fit; with the estimate.
    """
    found = [estimate(model, batches, traits, options, dtype) for _, traits, options in steps]
    whole = taken + max([e.whole for e in found] + [e.between for e in found[:-1]])
    stuck = [method for (method, *_), e in zip(steps, found) if e.streamed is None]
    program = f" ({_size(taken)} of it the program and its libraries)" if taken else ""
    line = f"memory: about {_size(whole)} in memory{program}"
    if limit is None or whole <= limit:
        return False, line + ("" if limit is None else f", {_size(limit)} may be used")
    if stuck:
        line += f", {stuck[0]} cannot stream with its options"
    else:
        streamed = taken + max(e.streamed for e in found)
        line += f", {_size(streamed)} streamed from files"
        if streamed <= limit:
            return True, f"{line}, {_size(limit)} may be used: the model streams"
    remedy = "lower --batch-size or --tokens, or raise --memory" if batches else "raise --memory"
    raise ValueError(f"{line}, but {_size(limit)} may be used: {remedy}")


def available(device: str | torch.device = "cpu") -> int | None:
    """Free memory.

    Parameters
    ----------
    device
        Where.

    Returns
    -------
    int or None
        Bytes that the system says are free for this process beside what it takes; None where it does not tell.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
        for most, used in CGROUPS:  # of the container; a number where it is limited
            if Path(most).exists() and (text := Path(most).read_text(encoding="utf-8").strip()).isdigit():
                free.append(int(text) - int(Path(used).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
    return max(min(free), 0) if free else None


def taken_before(device: str | torch.device = "cpu") -> int:
    """What the interpreter and its libraries take of the memory of a device.

    Parameters
    ----------
    device
        Where.

    Returns
    -------
    int
        Bytes, with what libraries will take on their first use; 0 where that is not known, or of a GPU.
    """
    if torch.device(device).type != "cpu":
        return 0
    try:
        lines = STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return FIRST_USE + next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")), 0)


def _size(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
