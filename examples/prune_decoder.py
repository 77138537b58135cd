"""A small language model has to solve school maths with fewer weights. Which texts should the pruning look at?

python examples/prune_decoder.py
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import compress

DATA = Path(__file__).resolve().parent.parent / "data"
MODEL, TEXTS = str(DATA / "mixlm"), DATA / "text"
CANDIDATES = ("code", "drama", "math", "novels", "web")
TOKENS, LENGTH = 800, 128  # to calibrate on, and of a sequence

with TemporaryDirectory() as folder:
    # 1. Choose calibration texts by how close they come to a sample of the task; or take equal shares of everything.
    candidates = {name: TEXTS / f"{name}.txt" for name in CANDIDATES}
    target, out = TEXTS / "math_sample.txt", f"{folder}/texts"
    chosen = compress.calibrate(MODEL, candidates, target, tokens=TOKENS, length=LENGTH, out=out)
    print("closeness", {name: round(score, 2) for name, score in chosen.scores.items()})
    equal = ",".join(f"{file}:{TOKENS // len(CANDIDATES)}" for file in candidates.values())

    # 2. Prune with each: three tenths of the FLOPs of heads and neurons go.
    tokenizer = compress.load(MODEL)[1]
    sets = {"equal": equal, "chosen": f"{folder}/texts"}
    pruned = {
        name: compress.compress(MODEL, "kprune", ratio=0.3, calibration=texts, length=LENGTH)
        for name, texts in sets.items()
    }

    # 3. Write both. A folder has a model card, and reloads to the same logits.
    folders = [compress.save(model, tokenizer, f"{folder}/{name}") for name, model in pruned.items()]
    print(f"{folders[1]}: {', '.join(sorted(p.name for p in folders[1].iterdir()))}")
    card = json.loads((folders[1] / "compression.json").read_text())
    print("calibrated on", {p["name"]: p["tokens"] for p in card["calibration"]["provenance"]["parts"]})

    # 4. Measure all three models on maths that none has seen.
    windows = {"window": 192, "apart": True}  # as it was trained: every text by itself
    results = compress.evaluate(folders, TEXTS / "math_heldout.txt", baseline=MODEL, tokens=3000, **windows)
    for name, result in {"as it was": results[0]["baseline"], **dict(zip(pruned, results))}.items():
        found = result["perplexity"]
        print(f"{name}: perplexity {found['value']:.2f} ({found['ci_low']:.2f} to {found['ci_high']:.2f})")
