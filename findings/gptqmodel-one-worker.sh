#!/usr/bin/env bash
# Package:  gptqmodel 7.6.0 (torch 2.13.0, transformers 5.24.0), on a CPU
# Expected: with one CPU worker (GPTQMODEL_CPU_WORKERS=1, which its reading of the variable allows and which is what it
#           takes itself on machines of one or two processors) a small model is quantized, slowly.
# Seen:     quantize() ends in ValueError: "Virtual pool 'model_loader:cpu' requests 2 workers but parent 'cpu' only has 1",
#           so that on two processors nothing works by default; GPTQMODEL_CPU_WORKERS=2 works.
# Looked up: gptqmodel/__init__.py (_default_cpu_workers, _build_device_thread_pool); no issue was found.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 setuptools wheel packaging numpy
BUILD_CUDA_EXT=0 "$work/venv/bin/pip" install --quiet --no-build-isolation gptqmodel==7.6.0 torch==2.13.0
cd "$work"
cat > quantize.py <<'PYTHON'
import torch
from gptqmodel import GPTQModel, QuantizeConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

torch.manual_seed(0)
sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1}
heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
LlamaForCausalLM(LlamaConfig(**sizes, **heads)).save_pretrained("model")
words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(64)}, unk_token="w0"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", pad_token="w1", eos_token="w2").save_pretrained("model")
rows = [{"input_ids": torch.randint(3, 64, (32,)).tolist(), "attention_mask": [1] * 32} for _ in range(8)]
model = GPTQModel.load("model", QuantizeConfig(bits=4, group_size=32), device="cpu")
model.quantize(rows, batch_size=1)
print("QUANTIZED")
PYTHON
run() { HF_HOME="$work/cache" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 GPTQMODEL_CPU_WORKERS=$1 "$work/venv/bin/python" quantize.py > "log$1" 2>&1; }
if run 1; then echo "one worker is enough now"; exit 1; fi
grep -o "Virtual pool 'model_loader:cpu' requests 2 workers but parent 'cpu' only has 1" log1 | head -1
run 2
grep QUANTIZED log2
echo "seen: one worker, the default of two processors, cannot quantize; two can"
