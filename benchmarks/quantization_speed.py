r"""Quantizers and pruners on a real decoder: time, memory and perplexity of this build, a former one and llmcompressor.

    python benchmarks/quantization_speed.py MODEL CALIBRATION HELD_OUT --work W \
        [--former CHECKOUT] [--peer PYTHON] [--method gptq --method awq] [--blocks 4]

The sides take turns, each run in a process of its own with one thread. What counts
is from the command to the saved folder, imports left out: processor seconds, and the peak of resident memory less what
imports take. Options are the defaults of the method (gptq: 4 bits, groups of 64, asymmetric), which llmcompressor gets
too, with the same number of tokens of the same file in sequences of the same length. Perplexity is that of the saved
folders (of llmcompressor: of the weights it rounds to) on windows of 512 tokens of HELD_OUT.

CHECKOUT is another checkout of this repository, which runs on the same libraries; PYTHON is that of an environment with
llmcompressor, which quantizes with GPTQ alone. `--blocks` leaves the first blocks of the model alone.

The part `products` is what the matrix products of GPTQ take at the rate of this machine: two forwards of the blocks,
the moments, of which half would do, and the updates.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
TOKENS, LENGTH = 8064, 128  # of the calibration texts, and of one sequence of them
WINDOW, WINDOWS = 512, 8  # tokens of held-out text in one piece, and pieces


def resident(key: str) -> int:
    """Bytes of this process by /proc/self/status: VmRSS now, VmHWM at most."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in status if line.startswith(key))


class Meter:
    """Processor seconds and peak memory of blocks of code, together."""

    def __init__(self):
        self.seconds, self.peak, self.before = 0.0, 0, resident("VmRSS")

    def __enter__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is that of now
        self.begin = time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.process_time() - self.begin
        self.peak = max(self.peak, resident("VmHWM") - self.before)

    def found(self) -> dict[str, float]:
        """What was measured."""
        return {"cpu_seconds": self.seconds, "peak_bytes": self.peak}


def job(*words: str) -> dict[str, float]:
    """One run of a command line of the checkout that PYTHONPATH names, in one thread."""
    import torch
    import transformers  # noqa: F401

    import cli
    import compress.api  # noqa: F401
    import transmeter.api  # noqa: F401

    torch.set_num_threads(1)
    meter = Meter()
    with meter, contextlib.redirect_stdout(sys.stderr):
        cli.main(["-q", *words], standalone_mode=False)
    return meter.found()


def multiplied(*words: str) -> dict[str, float]:
    """Seconds that the matrix products of a command line would take by themselves, at the rate of a large one."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    import cli

    class Counter(TorchDispatchMode):
        """Operations of products; torch's own FlopCounterMode fails under torch.autograd.grad of leaves."""

        flops = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            found = func(*args, **(kwargs or {}))
            if func._overloadpacket in flop_registry:
                self.flops += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=found)
            return found

    torch.set_num_threads(1)
    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    times = []
    for _ in range(20):
        begin = time.thread_time()
        a @ b
        times.append(time.thread_time() - begin)
    with Counter() as counter, contextlib.redirect_stdout(sys.stderr):
        cli.main(["-q", *words], standalone_mode=False)
    return {"products_seconds": counter.flops / 2 / 1024**3 * statistics.median(times)}


def command(model: str, calibration: str, method: str, out: str) -> dict[str, Any]:
    """One compression by it."""
    import click

    import cli

    words = ["compress", model, "--method", method, "--calibration", calibration]
    options = cli.main.get_command(click.Context(cli.main), "compress").params
    if any(option.name == "length" for option in options):  # else that is what sequences have at most
        words += ["--length", str(LENGTH)]
    found = job(*words, "--tokens", str(TOKENS), "--out", out)
    return found | {"saved_bytes": sum(f.stat().st_size for f in Path(out).glob("*.safetensors"))}


def peer(model: str, calibration: str, method: str, out: str) -> dict[str, Any]:
    """One run of llmcompressor's GPTQ; the weights that it rounds to go to OUT/rounded.safetensors."""
    import torch
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    stored = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": 64}
    recipe = GPTQModifier(config_groups={"group_0": {"targets": ["Linear"], "weights": stored}}, ignore=["lm_head"])
    meter = Meter()
    with meter:
        net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(model)
        ids = tokenizer(Path(calibration).read_text(encoding="utf-8"))["input_ids"]
        rows = [ids[i : i + LENGTH] for i in range(0, TOKENS, LENGTH)]
        data = Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]})
        oneshot(
            model=net,
            tokenizer=tokenizer,
            dataset=data,
            recipe=[recipe],
            batch_size=32,
            num_calibration_samples=len(rows),
            max_seq_length=LENGTH,
        )
    rounded = {k: v.detach().half().contiguous() for k, v in net.state_dict().items() if k.endswith("proj.weight")}
    save_file(rounded, Path(out).with_suffix(".rounded"))
    with meter:
        net.half().save_pretrained(out, save_compressed=True)
        tokenizer.save_pretrained(out)
    return meter.found() | {"saved_bytes": sum(f.stat().st_size for f in Path(out).glob("*.safetensors"))}


def losses(folder: str, held_out: str, rounded: str | None) -> dict[str, Any]:
    """Sum of the losses and number of tokens of every window; rounded: a file of weights that take those of a model."""
    import torch
    from safetensors.torch import load_file

    from compress.model import io

    torch.set_num_threads(1)
    net, tokenizer = io.load(folder)
    if rounded:
        unknown = net.load_state_dict(load_file(rounded), strict=False).unexpected_keys
        if unknown:
            raise RuntimeError(f"weights of layers that are not there, such as {unknown[0]}")
    ids = torch.tensor(tokenizer(Path(held_out).read_text(encoding="utf-8"))["input_ids"])
    found = []
    for window in ids[: WINDOWS * WINDOW].view(WINDOWS, 1, WINDOW):
        with torch.no_grad():
            logits = net(input_ids=window).logits[0, :-1]
        found.append([float(torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="sum")), WINDOW - 1])
    return {"losses": found}


def products(model: str) -> dict[str, float]:
    """Seconds that the matrix products of GPTQ take on this machine, by kind."""
    import torch

    from compress.model import io, structure

    torch.set_num_threads(1)
    net, _ = io.load(model)

    def rate(rows: int, inside: int, columns: int) -> float:
        one, other = torch.randn(rows, inside), torch.randn(inside, columns)
        one @ other
        begin = time.process_time()
        for _ in range(3):
            one @ other
        return 3 * 2 * rows * inside * columns / (time.process_time() - begin)

    shapes = {path: tuple(m.weight.shape) for path, m in structure.block_linears(net, 0)}
    blocks, forward = net.config.num_hidden_layers, {}
    for path, (out, inside) in shapes.items():
        forward[path] = 2 * TOKENS * out * inside / rate(4096, inside, out)
    inputs = [max(shapes.values())[1], *(inside for path, (_, inside) in shapes.items() if path.endswith("o_proj"))]
    inputs += [inside for path, (_, inside) in shapes.items() if path.endswith(("gate_proj", "down_proj"))][:2]
    moments = sum(TOKENS * i * i / rate(i, 4096, i) for i in inputs)  # the upper half
    updates = sum(out * inside**2 / rate(out, 128, inside) for out, inside in shapes.values())
    last = list(forward.values())[-1]  # runs once: what enters it is known before
    seconds = {"forward": (2 * sum(forward.values()) - last) * blocks, "moments": moments * blocks}
    return seconds | {"updates": updates * blocks}


ROLES = {f.__name__: f for f in (job, multiplied, command, peer, losses, products)}


def run(role: str, *arguments: str | None, python: str | Path = sys.executable, checkout: Path | None = None) -> dict:
    """What a role gives in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout or HERE.parent.parent)}
    if role == "peer":
        environment.pop("PYTHONPATH")
    line = [str(python), "-W", "ignore", str(HERE), role, json.dumps(arguments)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{role} {arguments} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def cut(model: Path, blocks: int | None, folder: Path) -> Path:
    """MODEL with its first blocks alone."""
    if blocks is None:
        return model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    net = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
    net.model.layers, net.config.num_hidden_layers = net.model.layers[:blocks], blocks
    net.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


def compare(method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Figures of all sides of one method."""
    work, calibration = options.work.absolute(), str(options.calibration.absolute())
    model = str(cut(options.model.absolute(), options.blocks, work / f"dense{options.blocks}"))
    sides = {"ours": {}, "former": {"checkout": options.former}, "peer": {"python": options.peer}}
    asked = ["ours", *(s for s in ("former", "peer") if getattr(options, s) and (s == "former" or method == "gptq"))]
    runs: dict[str, list[dict]] = {side: [] for side in asked}
    for side in options.repeats * asked:
        out = work / f"{method} {side}"
        for old in (out, out.with_suffix(".rounded"), out.parent / f".{out.name}.unfinished"):
            shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink(missing_ok=True)
        role = "peer" if side == "peer" else "command"
        runs[side].append(run(role, model, calibration, method, str(out), **sides[side]))
        print(method, side, json.dumps(runs[side][-1]), flush=True)
    found: dict[str, Any] = {"blocks": options.blocks or "all", "tokens": TOKENS, "runs": runs, "ratio": {}}
    for key in ("cpu_seconds", "peak_bytes"):
        ours = statistics.median(r[key] for r in runs["ours"])
        found["ratio"][key] = {side: min(r[key] for r in runs[side]) / ours for side in asked[1:]}
    return found | quality(method, model, asked, options)


def quality(method: str, model: str, asked: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Perplexity of all sides, and what this build loses more than each, in nats per token, window by window."""
    import numpy as np

    from compress.evaluation import metrics

    held, work = str(options.held_out.absolute()), options.work.absolute()
    lost = {"dense": run("losses", model, held, None)["losses"]}
    for side in asked:
        out = work / f"{method} {side}"
        given = (model, held, str(out.with_suffix(".rounded"))) if side == "peer" else (str(out), held, None)
        lost[side] = run("losses", *given)["losses"]
    arrays = {side: np.array(values) for side, values in lost.items()}
    change = {side: metrics.loss_change(arrays["ours"], arrays[side]) for side in asked[1:]}
    perplexity = {side: metrics.perplexity(values) for side, values in arrays.items()}
    return {"perplexity": perplexity, "ours less theirs, nats": change}


def main() -> None:
    """Measure the methods and put each into the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "calibration", "held_out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for models")
    parser.add_argument("--former", type=Path, help="checkout of another commit")
    parser.add_argument("--peer", type=Path, help="python of an environment with llmcompressor")
    parser.add_argument("--method", dest="methods", action="append", help="may repeat; gptq where there is none")
    parser.add_argument("--blocks", type=int, help="first blocks of the model; all where not given")
    parser.add_argument("--repeats", type=int, default=1, help="turns of every side")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results/quantization_speed.json")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.former:
        options.former = options.former.absolute()
    for method in options.methods or ["gptq"]:
        found = compare(method, options)
        if method == "gptq":
            found["products, seconds"] = run("products", str(options.model.absolute()))
        about = {"model": options.model.name, "python": platform.python_version(), "load": os.getloadavg()}
        known = json.loads(options.out.read_text()) if options.out.exists() else {}
        name = method if options.blocks is None else f"{method}, {options.blocks} blocks"
        options.out.write_text(json.dumps(known | {name: about | found}, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] in ROLES:
        print(json.dumps(ROLES[sys.argv[1]](*json.loads(sys.argv[2]))))
    else:
        main()
