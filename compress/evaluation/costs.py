"""What a model costs: parameters and FLOPs, and on request the time, memory and energy of a forward."""

import logging
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from compress.algorithms.budget import flops
from compress.model import modeling, structure
from compress.model.architectures import ARCHITECTURES, kind_of
from compress.model.layers import FORMS
from compress.model.modeling import SPARSE_FROM
from compress.model.walk import Batch

LENGTH = 128  # tokens of the sequence that FLOPs and latency are given for


@dataclass(frozen=True)
class Costs:
    """What is measured on request, since it takes time; bytes, parameters and FLOPs are counted always.

    Attributes
    ----------
    latency
        Of one forward.
    peak_memory
        Of loading and one forward, in a new process.
    energy
        Of one forward, estimated.
    """

    latency: bool = False
    peak_memory: bool = False
    energy: bool = False

    def check(self) -> None:
        """Raises ValueError where codecarbon is needed and missing."""
        if self.energy and find_spec("codecarbon") is None:
            raise ValueError("the energy is estimated by codecarbon: pip install 'transmeter[energy]'")

    def measure(self, name: str, model: nn.Module) -> dict[str, object]:
        """Seconds, bytes and joules by name, of a model and the folder or name that it was read from."""
        found: dict[str, object] = {}
        if self.latency:
            found["latency_seconds"] = latency(model)
        if self.peak_memory:
            found["peak_memory_bytes"] = peak_memory(name)
        if self.energy:
            found["energy_joules_estimate"] = _joules(model)
        return found


def size(model: nn.Module) -> dict[str, int | None]:
    """Parameters and FLOPs of a model.

    Parameters
    ----------
    model
        Whose weights may be on the meta device.

    Returns
    -------
    dict
        parameters: those that are not stored as zeros, on the meta device all; flops: at `LENGTH` tokens, None for an
        architecture that is not known.
    """
    parameters = 0
    packed = [m for m in model.modules() if isinstance(m, FORMS)]
    inside = {id(p) for form in packed for p in form.parameters()}
    for form in {id(next(f.parameters())): f for f in packed}.values():  # a tied one once
        parameters += form.rows * form.columns
    for parameter in model.parameters():
        if id(parameter) not in inside:
            zeros = 0 if parameter.is_meta else parameter.numel() - int(parameter.count_nonzero())
            stored = parameter.numel()
            parameters += stored - zeros if stored and zeros / stored >= SPARSE_FROM else stored
    known = kind_of(model) in ARCHITECTURES
    cost = round(flops(model, LENGTH)) if known else None
    return {"parameters": parameters, "flops": cost}


@torch.no_grad()
def latency(model: nn.Module, repeats: int = 20) -> dict[str, float | int]:
    """Time one forward of one sequence of `LENGTH` tokens; exits of a model are asked, but not taken.

    Parameters
    ----------
    model
        On any device.
    repeats
        Number of forwards, after three that do not count.

    Returns
    -------
    dict
        median, q1 and q3 in seconds, n and tokens.
    """
    batch = example(model)
    seconds = []
    with modeling.leaving_at(model, 2.0):
        for _ in range(repeats + 3):
            start = time.perf_counter()
            model(**batch)
            seconds.append(time.perf_counter() - start)
    low, median, high = statistics.quantiles(seconds[3:], n=4)
    return {"median": median, "q1": low, "q3": high, "n": repeats, "tokens": LENGTH}


def example(model: nn.Module) -> Batch:
    """An input for measuring.

    Parameters
    ----------
    model
        That reads it.

    Returns
    -------
    dict
        A batch of one sequence of `LENGTH` tokens.
    """
    ids = (torch.arange(structure.context(model, LENGTH)) * 37 % model.config.vocab_size)[None]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


_PEAK = """
import sys, torch
from compress.evaluation.costs import example
from compress.model.config import base_of, config_of
from compress.model.io import load
def status(key):
    return next(int(line.split()[1]) * 1024 for line in open('/proc/self/status') if line.startswith(key))
base_of(sys.argv[1], config_of(sys.argv[1]))  # imports what the model needs, so that only the model itself counts
with torch.no_grad():
    torch.nn.Linear(64, 64)(torch.zeros(64, 64))
    before = status('VmRSS')
    model = load(sys.argv[1], quantized=True)[0]
    model(**example(model))
print(status('VmHWM') - before)
"""


def peak_memory(source: str) -> int | None:
    """Memory that loading and one forward add to the peak of a new process.

    Parameters
    ----------
    source
        Folder, GGUF file or name on the Hub.

    Returns
    -------
    int or None
        Bytes; None where the system does not tell.
    """
    here = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {here!r})" + _PEAK, source]
    done = subprocess.run(command, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) if done.returncode == 0 and done.stdout.strip() else None


def _joules(model: nn.Module, seconds: float = 2.0) -> float:
    """Energy of one forward of `LENGTH` tokens, as codecarbon estimates it from the machine's power."""
    from codecarbon import OfflineEmissionsTracker

    logging.getLogger("codecarbon").disabled = True  # its own level comes too late for its first lines
    tracker = OfflineEmissionsTracker(
        country_iso_code="USA", save_to_file=False, log_level="critical", allow_multiple_runs=True
    )
    batch, count = example(model), 0
    tracker.start()
    end = time.perf_counter() + seconds
    with torch.no_grad():
        while time.perf_counter() < end:
            model(**batch)
            count += 1
    tracker.stop()
    return 3.6e6 * tracker.final_emissions_data.energy_consumed / count  # from kWh
