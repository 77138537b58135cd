"""Figures in the docs and the README are those of benchmarks/results: every number of their tables is looked up."""

import math
import re

import pytest

from tests.figures import NUMBER, assert_rows, assert_says, check, load, page, rows, section, tables
from tests.test_docs import cells

TASKS = ("sst2", "subj", "trec6", "ag_news", "banking77")
DOMAINS = ("stories", "wiki", "web", "math", "code", "novels", "drama")
# names of a page, and what the results call them
REAL = {
    "GPTQ of llm-compressor 0.14": "llmcompressor",
    "GPTQ of llm-compressor": "llmcompressor",
    "GPTQ of GPTQModel 7.6": "gptqmodel",
    "GPTQ of GPTQModel": "gptqmodel",
    "vector, 6 bits for 2 weights": "vector 3",
    "vector, 8 bits for 2 weights": "vector 4",
    ", then 24 steps of distillation": "DISTILLED",
    ", free shapes": " free",
    " of the parameters of the blocks": "",
    ", `shape=uniform`": " uniform",
    " bits": "",
    " %": "%",
    ",": "",
    "DISTILLED": ", distilled",
}
PRUNED = {
    "K-prune": "kprune",
    "Kwon et al., true labels": "kwon",
    "Kwon et al., labels of the model": "kwon, labels of the model",
}


def test_a_wrong_figure_is_found():
    check("0.87 (0.86 to 0.87)", "0.8687 (0.8631 to 0.8702), 3 MB")
    check("+1,578", "1578.4")
    for wrong in ("0.86 (0.86 to 0.87)", "0.87 (0.86 to 0.88)", "-0.87", "none"):
        with pytest.raises(AssertionError):
            check(wrong, "0.8687 (0.8631 to 0.8702)")
    text = "GPTQ takes 1,203 s, which\n  is -0.03 (95 % of it) less."
    assert_says(text, "takes {} s, which is {} (95 % of it)", 1202.6, -0.034)
    for values in ((1202.4, -0.034), (1202.6, 0.034), (1202.6, -0.036)):
        with pytest.raises(AssertionError):
            assert_says(text, "takes {} s, which is {} (95 % of it)", *values)
    with pytest.raises(AssertionError):
        assert_says(text, "takes {} s, which was {}", 1202.6, -0.034)
    row = {"gptq": ["0.31 (0.30 to 0.33), 7 s", "-"]}
    assert_rows(row, {"gptq": [(0.312, 0.3, 0.328, 7.4), "-"]})
    for measured in ({}, {"gptq": [(0.312, 0.3, 0.328), "-"]}, {"gptq": [(0.312, 0.3, 0.336, 7.4), "-"]}):
        with pytest.raises(AssertionError):
            assert_rows(row, measured)


@pytest.mark.parametrize("title, name", [("Few labels", "prior.md"), ("No labels", "no_label_prior.md")])
def test_priors(title, name):
    results = load(name).partition("\n\n| weighted")[0]
    measured = {
        k.replace("cells (pairs)", "cells: a target with a number of labels (pairs)"): v
        for k, v in cells(results).items()
    }
    shown = tables(section("figures.md", title))[0]
    assert len(shown) > 15
    for key, values in shown.items():
        assert values == measured[key if key in measured else f"{key}, pp"], key


def test_scorers():
    parts = load("rank_quality.md").split("### ")
    planned, few = (cells(next(p for p in parts if p.startswith(f"{mode}, low shots"))) for mode in ("planning", "few"))
    shown = {k: v for k, v in rows(page("scorers.md")).items() if len(v) == 5}
    assert set(shown) == set(planned) - {"scorer", "---"}
    for name, values in shown.items():
        assert values[:4] == [planned[name][0], planned[name][2], few[name][0], few[name][2]], name
        assert float(values[4]) == pytest.approx(float(planned[name][5]), rel=0.06), name
    many = cells(next(p for p in parts if p.startswith("few, high shots")))
    text = " ".join(page("scorers.md").split())
    assert f"in all {many['short_finetune'][0]}, `transmeter` {many['transmeter'][0]}." in text
    assert f"its tau is {planned['source_size'][0].partition(' ')[0]}." in text
    for labels, measured in (("5", few), ("20", many)):  # by so much the network's rank is behind
        lead = float(re.search(rf"by (0\.\d\d)(?: with an interval across 0)? at {labels}\b", text)[1])
        ours, theirs = (float(measured[name][0].split()[0]) for name in ("transmeter", "short_finetune"))
        assert lead == pytest.approx(ours - theirs, abs=0.011)
    speed = {k: v for k, v in rows(page("scorers.md")).items() if len(v) == 7}
    timed = {
        (r["formula"], *r["rows, features, classes"]): r["milliseconds"]["ours"]
        for r in load("scorer_speed.json")["rows"]
    }
    for key, values in speed.items():
        size = [int(n) for n in NUMBER.findall(key.replace(",", "").replace("10000", "10000 "))]
        for name, value in zip(("logme", "hscore", "transrate", "leep", "nce", "gbc", "knn"), values):
            check(value, f"{timed[name, *size]:.6f}", (key, name))


def test_pruning():
    summary = load("prune_quality.json")["summary"]
    accuracies, _, _, perplexities = tables(section("figures.md", "Pruning"))
    assert accuracies.pop("draws of the calibration text") == ["3"] * 5
    assert (len(accuracies), len(perplexities)) == (11, 17)
    for shown, parts in ((accuracies, TASKS), (perplexities, [f"perplexity, {domain}" for domain in DOMAINS])):
        for key, values in shown.items():
            share, what = re.fullmatch(r"(?:(\d+) % (?:removed|of FLOPs|of weights), )?(.*)", key).groups()
            for value, part in zip(values, parts):
                check(value, summary[part][f"{PRUNED.get(what, what)} {share or 0}%"], (key, part))
    for key, values in perplexities.items():  # the last column is of the others
        losses = [math.log(float(v) / float(d)) for v, d in zip(values[:7], perplexities["dense"])]
        assert float(values[7]) == pytest.approx(sum(losses) / len(losses), abs=0.002), key


@pytest.mark.parametrize(
    "title, parts, columns",
    [
        ("Chains", ["chain, sst2"], 2),
        (
            "Quantization",
            ["quantize, mixlm", "quantize, whole rows, stories260K", "quantize, sst2", "quantize, ag_news"],
            7,
        ),
        ("Heads, shared blocks", ["share, mixlm"], 2),
    ],
)
def test_other_families(title, parts, columns):
    summary = load("compress_quality.json")["summary"]
    shown = {
        k: v
        for k, v in rows(section("figures.md", title)).items()
        if len(v) in (columns, columns + 1) and "fit" not in k[:5]
    }
    shown = {k.replace("50 %", "50%"): v for k, v in shown.items() if "mean, as" not in k}
    assert set(shown) == set(summary[parts[0]])
    for key, values in shown.items():
        if title != "Quantization":
            check(values[0], summary[parts[0]][key], key)
            check(values[1], summary[parts[0]][key].rpartition("), ")[2], key)
            continue
        places = {0: 0, 2: 1, 4: 2, 5: 3}  # of the part that a column is of
        for place, part in places.items():
            if values[place] != "-":
                check(values[place], summary[parts[part]][key], (key, parts[part]))
        for place, part in ((1, 0), (3, 1), (6, 2)):
            if values[place] != "-":
                check(values[place], summary[parts[part]][key].rpartition("), ")[2], (key, parts[part]))


def test_low_rank_and_merged_heads():
    summary = load("compress_quality.json")["summary"]
    low = rows(section("figures.md", "Low rank"))
    for name in ("plain", "activation", "fisher", "whitened"):
        values = low[name if name in low else f"**{name}** (default)"]
        for place, (part, share) in enumerate((p, s) for p in ("mixlm", "sst2") for s in (20, 40, 60)):
            check(values[place], summary[f"low_rank, {part}"][f"svd {name} {share}%"], name)
    heads = rows(section("figures.md", "Heads, shared blocks"))
    for name, key in (("mean", "mean, as in the paper"), ("fit", "**fit** (default)")):
        for value, left in zip(heads[key], (3, 2, 1)):
            check(value, summary["heads, mixlm"][f"gqa {name} {left} of 6 heads"], name)
    exported = {
        (r["model"], r["tokens"], r["as"]): r["times faster than float32"] for r in load("export_speed.json")["rows"]
    }
    columns = [(model, tokens) for model in ("llama-6x1024", "mixlm", "stories260K") for tokens in (1, 128)]
    for name, key in (
        ("bfloat16", "bfloat16"),
        ("torchao", "torchao, weights in 8 bits"),
        ("torchao-dynamic", "torchao-dynamic, activations too"),
    ):
        for value, column in zip(rows(section("figures.md", "Faster in 8 bits?"))[key], columns):
            check(value, f"{exported[*column, name]:.6f}", (key, column))


def test_a_real_decoder():
    measured = cells(load("real_models.md"))
    text = section("figures.md", "A real decoder")
    shown = tables(text)[0]
    assert len(shown) > 15
    for key, values in shown.items():
        name = key
        for ours, theirs in REAL.items():
            name = name.replace(ours, theirs)
        loss, divergence, same, *_, megabytes, seconds, _ = measured[name.strip()]
        wanted = [loss, divergence.partition(" ")[0], same.partition(" ")[0], megabytes, seconds]
        assert values == wanted, key
    leads = re.search(
        r"ours less llm-compressor's is (.*?\)).*?GPTQModel's (.*?\)); at 3 bits (.*?\)) and (.*?\))",
        " ".join(text.split()),
    )
    for lead, peer in zip(leads.groups(), ("llmcompressor 4", "gptqmodel 4", "llmcompressor 3", "gptqmodel 3")):
        assert f"less {peer}: {lead} nats a token" in load("real_models.md"), peer
    for key, values in rows(page("methods.md")).items():
        if found := re.fullmatch(r"\[(\w+)\]\(.*?\),? (\d+) (bits|%).*", key):
            method, number, unit = found.groups()
            name = f"{method} {number}" + ("%" if unit == "%" else "") + (" uniform" if "uniform" in key else "")
            check(values[0], measured[name][0], key)
            check(values[1], measured[name][7], key)


def test_pictures_of_the_front_page():
    numbers = load("pictures.json")
    shown = rows(section("figures.md", "Pictures of the front page"))
    assert set(shown) == set(numbers["calibration"])
    for name, (close, perplexity) in shown.items():
        found = numbers["calibration"][name]
        three = [found["perplexity"][k] for k in ("value", "ci_low", "ci_high")]
        check(close, f"{found['closeness']:.6f}", name)
        check(perplexity, "{:.4f} ({:.4f} to {:.4f})".format(*three), name)
    ranked = numbers["ranking"]["rows"]
    block = page("README.md").split("```\nrank  tie  source")[1].split("```")[0].splitlines()[1:]
    for row, line in zip(ranked, block):
        rank, tie, source, gain, low, _, high, below, *verdict = line.split()
        assert (int(rank), int(tie), source, " ".join(verdict)) == (
            row["rank"],
            row["tie_group"],
            row["source"],
            row["verdict"],
        )
        for text, key in ((gain, "gain_pp"), (low, "ci_low"), (high, "ci_high"), (below, "p_negative")):
            check(text.lstrip("+"), f"{row[key]:.6f}", source)


@pytest.mark.parametrize("name", ["README.md", "figures.md", "shrink-encoder.md"])
def test_how_much_faster_pruned_models_run(name):
    gains = {
        (g["model"], g["batch"]): []  # in the order of shares removed
        for g in load("prune_speed.json")["gains"]
    }
    for gain in load("prune_speed.json")["gains"]:
        if gain["method"].startswith("magnitude"):
            gains[gain["model"], gain["batch"]].append(gain["latency_ratio"])
    text = " ".join(page(name).split())
    found = [re.search(r"runs ([\d.]+ / [\d.]+ / [\d.]+) times faster on one", text)]
    models = [("BERT-base", 1)]
    if name == "figures.md":
        pattern = (
            r"tokens and ([\d. /]+) times on 32.*?run ([\d. /]+) times faster on one \(.*?and ([\d. /]+) times on 32"
        )
        found += [re.search(pattern, text)] * 3
        models += [("BERT-base", 32), ("6 layers, width 384", 1), ("6 layers, width 384", 32)]
    shown = [found[0][1], *(match[i] for i, match in enumerate(found[1:], 1))]
    for numbers, model in zip(shown, models, strict=True):
        check(numbers, " ".join(f"{value:.6f}" for value in gains[model]), model)


def test_what_the_readme_says_is_in_the_results():
    text = " ".join(page("README.md").split())
    ranked, summary = load("rank_quality.md"), load("compress_quality.json")["summary"]
    for mode, tau in (("planning, low shots", "0.92 (0.85 to 0.96)"), ("planning, high shots", "0.88 (0.84 to 0.92)")):
        assert f"| transmeter | {tau} |" in ranked.split(f"### {mode}")[1].split("###")[0]
        assert tau.replace("0.88", "0.88").split()[0] in text and tau.partition(" ")[2] in text
    chain = summary["chain, sst2"]
    check(re.search(r"float32 at (\S+) accuracy", text)[1], chain["prune, quantize"])
    check(re.search(r"accuracy of (\S+) \(3 draws\)", text)[1], chain["dense"])
    sizes = [float(NUMBER.findall(chain[k])[-1]) for k in ("dense", "prune, quantize")]
    check(re.search(r"in (\S+) times fewer bytes than float32", text)[1], f"{sizes[0] / sizes[1]:.6f}")
    student = summary["data, sst2"]
    check(re.search(r"picked set reaches (\S+),", text)[1], student["distil to 2 blocks, picked (subj)"])
    check(re.search(r"with random texts (\S+) \(", text)[1], student["distil to 2 blocks, random, all candidates"])
    lead = re.search(r"the difference (\S+) to (\S+)\): not", text)
    check(f"{lead[1]} {lead[2]}", student["picked over random, paired by draw (95 %)"].split("(")[1])
    real = cells(load("real_models.md"))
    claim = re.search(
        r"4 bits loses (\S+) nats a token on the picked mixture and (\S+) on web text, llm-compressor's (\S+) on",
        text,
    )
    for value, name in zip(claim.groups(), ("gptq 4", "gptq 4, web", "llmcompressor 4, web")):
        check(value, real[name][0], name)
    claim = re.search(r"K-prune of 20 % of the FLOPs (\S+) and (\S+), for (\S+) times the tokens", text)
    check(claim[1], real["kprune 20% uniform"][0])
    check(claim[2], real["kprune 20% uniform, web"][0])
    check(claim[3], real["kprune-20-uniform, transformers"][1])
    scale = load("batch_scale.json")
    check(re.search(r"two workers do (\S+) of the pairs", text)[1], f"{scale['pace']['pace_of_independent']:.6f}")
    assert f"{scale['pace']['pairs']:,} pairs give the same numbers" in text
    means = {m["shots"]: m for m in load("transfer_quality.json")["means"]}
    check(
        re.search(r"all sources at once \+(\S+) / \+(\S+), all rows", text)[1],
        f"{means[5]['all sources together']:.6f}",
    )
