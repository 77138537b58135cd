#!/usr/bin/env bash
# Package:  llmcompressor 0.14.0 (torch 2.13.0)
# Expected: shuffle_calibration_samples=False takes the first num_calibration_samples texts in the order of the data set,
#           so that who has put the best ones first gets those.
# Seen:     it takes the longest ones, longest first, without a word: of ten texts, four asked for, none of the first four.
#           With batch_size=2 texts are also cut to their shorter neighbour. Shuffled, the default, the choice hangs on
#           torch's global seed, which oneshot does not set.
# Looked up: vllm-project/llm-compressor pull request 2054 (LengthAwareSampler, merged) and 2144 (shuffled by default).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0
"$work/venv/bin/pip" install --quiet llmcompressor==0.14.0 torch==2.13.0
cd "$work"
HF_HOME="$work/cache" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$work/venv/bin/python" - 2> messages <<'EOF' || { tail -5 messages; exit 1; }
import torch
from datasets import Dataset
from llmcompressor.args import DatasetArguments
from llmcompressor.datasets import get_calibration_dataloader

# every text repeats its place in the list; the lengths are short for the first four, longer for the others
lengths = [3, 4, 5, 4, 20, 9, 12, 8, 10, 6]
texts = Dataset.from_dict({"input_ids": [[i] * n for i, n in enumerate(lengths)], "attention_mask": [[1] * n for n in lengths]})


def taken(**options):
    """Place and length of each text that calibration sees."""
    args = DatasetArguments(dataset=texts, num_calibration_samples=4, **options)
    return [(int(ids[0]), len(ids)) for batch in get_calibration_dataloader(args, None) for ids in batch["input_ids"]]


in_order = taken(shuffle_calibration_samples=False)
batches = taken(shuffle_calibration_samples=False, batch_size=2)
shuffled = []
for seed in range(3):
    torch.manual_seed(seed)
    shuffled.append([place for place, _ in taken()])
print("place and length, not shuffled:", in_order)
print("the same in batches of two:    ", batches)
print("places, shuffled, three seeds: ", shuffled)
assert in_order == [(4, 20), (6, 12), (8, 10), (5, 9)]
assert batches == [(4, 12), (6, 12), (8, 9), (5, 9)]
assert len({tuple(places) for places in shuffled}) > 1
print("seen: not shuffled means the longest texts, not the first")
EOF
if grep -i "longest\|length" messages; then
    echo "it is said now"
    exit 1
fi
