#!/usr/bin/env bash
# Package:  auto-round 0.16.1 (torch 2.13.0)
# Expected: a local file of eight calibration texts calibrates with eight texts; or those that are left out are told, as
#           gptqmodel does; ":concat=True", the documented way to join texts, joins them.
# Seen:     texts with fewer tokens than seqlen are dropped and the others cut to it, so that of eight texts of 10 to 80
#           tokens one is left at seqlen=80, without a word about the seven; concat=True on a local file is an error.
# Looked up: auto_round/calib_dataset.py (get_local_dataset, the filter behind it, concat_dataset_element); its guide says
#           that seqlen should not exceed the length of the texts, not what happens to shorter ones.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0
"$work/venv/bin/pip" install --quiet auto-round==0.16.1 torch==2.13.0
cd "$work"
HF_HOME="$work/cache" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$work/venv/bin/python" - 2> messages <<'PYTHON'
import json
import os

os.environ["AR_DISABLE_DATASET_SUBPROCESS"] = "1"
from auto_round.calib_dataset import get_dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

words = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
with open("texts.jsonl", "w") as file:
    for tens in range(1, 9):
        file.write(json.dumps({"text": "a b " * 5 * tens}) + "\n")
found = get_dataset(tokenizer, 80, "texts.jsonl", nsamples=8)
print("texts: 8 | left at seqlen=80:", len(found))
assert len(found) == 1
found = get_dataset(tokenizer, 20, "texts.jsonl", nsamples=8)
lengths = [len(row["input_ids"]) for row in found]
print("left at seqlen=20, with tokens:", lengths)
assert lengths == [20] * 7
try:
    get_dataset(tokenizer, 80, "texts.jsonl:concat=True", nsamples=8)
    raise SystemExit("concat=True works on a local file now")
except AttributeError as error:
    print("concat=True:", error)
PYTHON
if grep -i -E "drop|filtered out|left out|too short|shorter" messages; then echo "it is told now"; exit 1; fi
echo "seen: short texts are dropped without a word"
