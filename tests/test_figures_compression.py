"""What the docs say of compressed models is what benchmarks/results holds."""

import math
import re
from statistics import mean

import pytest

from tests.figures import NUMBER, assert_rows, assert_says, check, lines, load, of, page, rows, section, tables
from tests.test_docs import cells

TASKS = ("sst2", "subj", "trec6", "ag_news", "banking77")
DOMAINS = ("stories", "wiki", "web", "math", "code", "novels", "drama")


def numbers(text):
    """The numbers of a result as it is written there: the mean, the lowest and the highest of the draws, bytes."""
    return [float(n) for n in NUMBER.findall(text.replace(",", ""))]


def pruned(part, key):
    """What pruning leaves: the mean over draws, and the lowest and the highest where they differ."""
    value, low, high = numbers(load("prune_quality.json")["summary"][part][key])
    return [value] if low == high else [value, low, high]


def others(part, key):
    """The same of the other families."""
    value, low, high, *_ = numbers(load("compress_quality.json")["summary"][part][key])
    return [value] if low == high else [value, low, high]


def lost(key):
    """Nats a token that the decoder loses, the mean over the domains."""
    summary = load("prune_quality.json")["summary"]
    parts = [summary[f"perplexity, {domain}"] for domain in DOMAINS]
    return mean(math.log(numbers(part[key])[0] / numbers(part["dense 0%"])[0]) for part in parts)


def accuracy_lost(method, share):
    """Points of accuracy by task."""
    return [100 * (pruned(task, "dense 0%")[0] - pruned(task, f"{method} {share}%")[0]) for task in TASKS]


def test_what_each_part_of_kprune_is_worth():
    text = section("figures.md", "Pruning")
    names = {
        "K-prune, no tuning": "kprune, no tuning",
        "K-prune, no predictive knowledge": "kprune, no predictive knowledge",
        "K-prune, no representational knowledge": "kprune, no representational knowledge",
        "K-prune, measured once (the default now)": "kprune, one-shot",
        "K-prune, knowledge=gradient": "kprune, knowledge=gradient",
    }
    measured = {key: [pruned(task, f"{name} 80%") for task in ("sst2", "trec6")] for key, name in names.items()}
    runs = load("prune_quality.json")["runs"]
    first = [of(runs, task=t, seed=0, method="kprune", ratio=0.8)["accuracy"] for t in ("sst2", "trec6")]
    assert_rows(tables(text)[1], measured | {"K-prune": first})
    few, many = accuracy_lost("kprune", 40), accuracy_lost("kprune", 80)
    assert_says(
        text,
        "K-prune loses {} points at 40 % in the mean of the tasks and {} at 80 %; on Banking77, with 77 classes, it "
        "loses "
        "{} and {}",
        *(mean(few), mean(many), few[-1], many[-1]),
    )
    assert_says(text, "At 80 % it is {} points ahead of Kwon", mean(accuracy_lost("kwon", 80)) - mean(many))
    assert_rows(
        tables(section("shrink-encoder.md", "How far can I go?"))[0],
        {"40 %": [mean(few), few[-1]], "80 %": [mean(many), many[-1]]},
    )
    assert_says(
        page("methods.md"),
        "40 % of the FLOPs cost {} points of accuracy in the mean of five tasks, 80 % cost {} ([figures]"
        "(figures.md#pruning), 3 draws of the calibration text). A decoder of 3.4 million parameters is harder to "
        "spare: "
        "20 % cost {} nats a token",
        *(mean(few), mean(many), lost("kprune 20%")),
    )
    assert_says(
        page("README.md"),
        "it loses {} / {} points of accuracy in the mean ({} / {} on the 77 classes of Banking77); at 80 % it is {} "
        "points "
        "ahead of Kwon",
        *(mean(few), mean(many), few[-1], many[-1]),
        mean(accuracy_lost("kwon", 80)) - mean(many),
    )
    without = [measured[f"K-prune, no {what}"][0][0] for what in ("tuning", "predictive knowledge")]
    sentence = "Without tuning 80 % leave {} on SST-2, without the predictive knowledge {}, with both {}"
    assert_says(section("pruning.md", "kprune"), sentence, *without, first[0])


def test_kprune_measured_once():
    table = tables(section("figures.md", "Pruning"))[2]
    stored = load("kprune_measurements.json")
    measured = {}
    for key, task, ratio in (
        ("SST-2, accuracy in %, 60 % removed", "sst2", 0.6),
        ("SST-2, 80 % removed", "sst2", 0.8),
        ("decoder, nats a token, 20 % removed", "decoder", 0.2),
        ("decoder, 40 % removed", "decoder", 0.4),
    ):
        found = of(stored["summary"], task=task, ratio=ratio)
        value, low, high = found["change"]
        # stored is what measuring once is better by: of a loss that is how much less it is
        change = [value, low, high] if task == "sst2" else [-value, -high, -low]
        runs = [cell for cell in stored["cells"] if (cell["task"], cell["ratio"]) == (task, ratio)]
        spent = [mean(cell[f"seconds_{how}"] for cell in runs) for how in ("once", "anew")]
        measured[key] = [found["once"], found["anew"], change, *spent]
    assert_rows(table, measured)


@pytest.mark.parametrize("method", ["kprune", "kwon"])
def test_pages_of_kprune_and_kwon(method):
    found = {}
    for share in (20, 40, 60, 80):
        key = f"{method} {share}%"
        tasks = [pruned(t, key) if share > 20 else "-" for t in ("sst2", "trec6", "banking77")]
        found[f"{share} %"] = [*tasks, lost(key) if share < 60 else "-"]
    text = section("pruning.md", method)
    assert_rows(tables(text)[0], found)
    dense = [pruned(t, "dense 0%")[0] for t in ("sst2", "trec6", "banking77")]
    assert_says(text, "| SST-2, of {} | TREC-6, of {} | Banking77, of {} |", *dense)


def test_pages_of_the_other_methods_of_pruning():
    magnitude = [pruned(t, f"magnitude {share}%")[0] for t in ("sst2", "trec6") for share in (40, 60, 80)]
    single = [lost(f"magnitude, unit=weights {share}%") for share in (20, 40)]
    assert_says(
        section("pruning.md", "magnitude"),
        "SST-2 {} / {} / {} at 40 / 60 / 80 %, TREC-6 {} / {} / {}; the decoder loses {} nats at 20 %. Single "
        "weights: {} "
        "nats at 20 %, {} at 40 %",
        *(*magnitude, lost("magnitude 20%"), *single),
    )
    sublayer, kprune = ([lost(f"{method} {share}%") for share in (20, 40)] for method in ("sublayer", "kprune"))
    sentence = "loses {} nats at 20 % of the FLOPs and {} at 40 %, where `kprune` loses {} and {}"
    assert_says(section("pruning.md", "sublayer"), sentence, *sublayer, *kprune)
    for method, sentence in (
        ("wanda", "loses {} nats at 20 % of the weights and {} at 40 %"),
        ("sparsegpt", "loses {} nats at 20 % and {} at 40 %"),
        ("dynamic_sparse", "loses {} nats at 20 % and {} at 40 %"),
    ):
        assert_says(section("pruning.md", method), sentence, *(lost(f"{method} {share}%") for share in (20, 40)))
    chain = [others("chain, sst2", key) for key in ("distil to 3 blocks, quantize", "prune, quantize")]
    depth = [others("share, mixlm", key)[0] for key in ("depth 50%, distil", "dense", "share 3 of 6")]
    text = section("pruning.md", "depth")
    assert_says(text, "gives perplexity {} of {}, which is better than `share` at the same bytes ({})", *depth)
    sentence = "leaves {} ({} to {}) on SST-2 where `kprune` and 4 bits leave {} ({} to {})"
    assert_says(text, sentence, *chain[0], *chain[1])
    few, many = ([lost(f"kprune {share}%")] for share in (20, 40))
    assert_says(
        section("shrink-decoder.md", "Time and memory: prune"),
        "20 % of the FLOPs cost {} nats a token, 40 % cost {} (perplexity times {} and {};",
        *(*few, *many, math.exp(few[0]), math.exp(many[0])),
    )
    plain = [cells_of for cells_of in lines(load("plain_shapes.md")) if cells_of[0] == "kprune"]
    assert_says(
        page("methods.md"),
        "at 10 / 20 / 30 % `kprune` loses {} / {} / {} nats a token with free shapes and {} / {} / {} with "
        "`shape=uniform`",
        *(numbers(row[place])[0] for place in (2, 3) for row in plain),
    )


def test_distillation_data():
    data = load("compress_quality.json")["summary"]["data, sst2"]
    keys = ("picked (subj)", "random, all candidates", "own text")
    picked, chance, own = (others("data, sst2", f"distil to 2 blocks, {key}") for key in keys)
    text = section("figures.md", "Chains")
    assert_says(
        text,
        "{} ({} to {}) with the set that the ranking picks (Subj), {} ({} to {}) with random texts of all candidates, "
        "{} ({} to {}) with the task's own text",
        *(*picked, *chance, *own),
    )
    lead = numbers(data["picked over random, paired by draw (95 %)"])[:3]
    assert_says(text, "ahead of random by {} ({} to {}, paired by draw)", *lead)
    kept = [others("chain, sst2", key) for key in ("prune", "prune, distil")]
    heads = others("heads, mixlm", "gqa fit 2 of 6 heads, distil")
    alone = others("heads, mixlm", "gqa fit 2 of 6 heads")
    text = section("other-methods.md", "distil")
    sentence = "`kprune` 50 % {} ({} to {}), distilled afterwards {} ({} to {})"
    assert_says(text, sentence, *kept[0], *kept[1])
    sentence = "A student of two blocks: {} ({} to {}) on the task's own text, {} ({} to {}) on random texts"
    assert_says(text, sentence, *own, *chance)
    assert_says(text, "2 of 6 key-value heads and distillation {} ({} to {}), without {}", *heads, alone[0])
    chain = load("compress_quality.json")["summary"]["chain, sst2"]
    dense, packed = numbers(chain["dense"]), numbers(chain["prune, quantize"])
    assert_says(
        section("shrink-encoder.md", "And the file"),
        "leave {} ({} to {}, 3 draws) of {} in {} times fewer bytes",
        *packed[:3],
        dense[0],
        dense[-1] / packed[-1],
    )


def test_heads_and_shared_blocks():
    heads = others("heads, mixlm", "gqa fit 2 of 6 heads, distil")
    alone = others("heads, mixlm", "gqa fit 2 of 6 heads")
    text = section("figures.md", "Heads, shared blocks")
    assert_says(text, "2 of 6 heads and a distillation reach {} ({} to {})", *heads)
    sentence = "leave perplexity {} ({} to {}), after 200 steps of distillation {} ({} to {}; 2 draws)"
    assert_says(section("shrink-decoder.md", "The cache: merge key-value heads"), sentence, *alone, *heads)
    fit = [others("heads, mixlm", f"gqa fit {left} of 6 heads") for left in (3, 2, 1)]
    average = [others("heads, mixlm", f"gqa mean {left} of 6 heads")[0] for left in (3, 2, 1)]
    assert_says(
        section("other-methods.md", "gqa"),
        "`fit` {} ({} to {}) / {} ({} to {}) / {} ({} to {}), `mean` {} / {} / {}; 2 heads and `distil` {} ({} to {})",
        *(value for each in fit for value in each),
        *average,
        *heads,
    )
    shared = load("compress_quality.json")["summary"]["share, mixlm"]
    perplexity = {key: numbers(text) for key, text in shared.items()}
    keys = ("share 3 of 6, merge alone", "share 3 of 6, mean instead of fit")
    assert_says(
        section("other-methods.md", "share"),
        "the decoder in {} MB: {}, merged alone {}, averaged instead of fitted {}; `depth` 50 % and `distil` {}",
        perplexity["share 3 of 6"][-1],
        perplexity["share 3 of 6"][0],
        *(perplexity[key][0] for key in keys),
        perplexity["depth 50%, distil"][0],
    )


def test_page_of_quantization():
    table = tables(page("quantization.md"))[0]
    found = {}
    for method in ("round_to_nearest", "gptq", "awq", "kmeans", "mixed", "vector"):
        there = load("compress_quality.json")["summary"]["quantize, mixlm"]
        keys = [f"{method} {bits} bits" for bits in (2, 3, 4)]
        found[method] = [others("quantize, mixlm", key) if key in there else "-" for key in keys]
    assert_rows(table, found)

    dense = [others(f"quantize, {part}", "dense")[0] for part in ("mixlm", "sst2")]
    sentence = "(geometric mean over seven held-out domains, {} dense), accuracy on 1,000 sentences of SST-2 ({} dense"
    assert_says(page("quantization.md"), sentence, *dense)

    def of_sst2(method, *bits):
        return [others("quantize, sst2", f"{method} {b} bits")[0] for b in bits]

    eight = [others(f"quantize, {part}", "round_to_nearest 8 bits")[0] for part in ("mixlm", "sst2")]
    assert_says(section("quantization.md", "round_to_nearest"), "at 8 bits {} on the decoder and {} on SST-2", *eight)
    assert_says(section("quantization.md", "gptq"), "{} / {} / {} at 2 / 3 / 4 bits", *of_sst2("gptq", 2, 3, 4))
    awq = section("quantization.md", "awq")
    assert_says(awq, "on SST-2 {} / {} / {} at 2 / 3 / 4 bits", *of_sst2("awq", 2, 3, 4))
    small = "quantize, whole rows, stories260K"
    two = [others(small, f"{method} 2 bits") for method in ("awq", "gptq", "round_to_nearest")]
    sentence = "3 draws: {} ({} to {}), `gptq` {} ({} to {}), rounding {})"
    assert_says(awq, sentence, *(value for each in two for value in each))
    smooth = [
        others(f"quantize, {part}", key)[0]
        for part, key in (
            ("mixlm", "smoothquant W8A8"),
            ("mixlm", "dense"),
            ("sst2", "smoothquant W8A8"),
            ("ag_news", "smoothquant W8A8"),
            ("ag_news", "dense"),
        )
    ]
    sentence = "W8A8: {} on the decoder ({} dense), {} on SST-2, {} on AG News ({} dense)"
    assert_says(section("quantization.md", "smoothquant"), sentence, *smooth)
    kmeans = section("quantization.md", "kmeans")
    three = [*others(small, "kmeans 3 bits"), *others(small, "round_to_nearest 3 bits")]
    assert_says(kmeans, "in 3 bits has {} ({} to {}, 3 draws), rounding {}", *three)
    assert_says(kmeans, "on SST-2 {} / {} at 3 / 4 bits", *of_sst2("kmeans", 3, 4))
    mixlm = {key: numbers(text) for key, text in load("compress_quality.json")["summary"]["quantize, mixlm"].items()}
    fewer = 100 * (1 - mixlm["kmeans 3 bits"][-1] / mixlm["round_to_nearest 3 bits"][-1])
    assert_says(kmeans, "beats rounding with {} % fewer bytes", fewer)
    sentence = "{} ({} to {}) at 3 bits on average, where `gptq` has {}"
    assert_says(section("quantization.md", "mixed"), sentence, *mixlm["mixed 3 bits"][:3], mixlm["gptq 3 bits"][0])
    vector = mixlm["vector 2 bits"]
    sentence = "{} ({} to {}) at {} MB, where the best grid of the same size has {}; {} on SST-2"
    assert_says(section("quantization.md", "vector"), sentence, *vector, mixlm["gptq 2 bits"][0], *of_sst2("vector", 2))
    four, three, two = (mixlm[f"gptq {bits} bits"][:3] for bits in (4, 3, 2))
    assert_says(
        section("shrink-decoder.md", "The file: quantize"),
        "over seven domains is {} dense, {} ({} to {}) in 4 bits, {} ({} to {}) in 3 and {} ({} to {}) in 2",
        *(mixlm["dense"][0], *four, *three, *two),
    )


def test_what_tells_which_layer_needs_bits():
    whole = [values for values in lines(load("mixed_sensitivity.md").partition("\n## SmolLM2")[2])]
    spearman = {(what, bits): float(value) for what, bits, value, *_ in whole}
    now, before = "of outputs times inputs", "of the layer, times the error of its output"
    assert_says(
        section("quantization.md", "mixed"),
        "a Spearman of {} at 2 bits and {} at 3 with the divergence that rounding the layer alone causes; the error "
        "of the "
        "layer's output times $f$, which it was before, {} and {}",
        *(spearman[what, bits] for what in (now, before) for bits in "23"),
    )


def test_page_of_low_rank():
    found = {}
    for kind in ("plain", "activation", "fisher", "whitened"):
        keys = [(part, f"svd {kind} {share}%") for part in ("mixlm", "sst2") for share in (20, 40, 60)]
        found[kind] = [others(f"low_rank, {part}", key)[0] for part, key in keys]
    assert_rows(tables(section("other-methods.md", "svd"))[0], found)
    summary = load("compress_quality.json")["summary"]
    decoder, encoder = (numbers(summary[f"low_rank, {part}"]["dense"]) for part in ("mixlm", "sst2"))
    sentence = "has perplexity {} (geometric mean over seven held-out domains) in {} MB, MiniLM {} on 1,000 sentences"
    assert_says(page("other-methods.md"), sentence, decoder[0], decoder[-1], encoder[0])


def test_export_of_the_shrunk_decoder():
    exported = load("export_speed.json")["rows"]
    faster = [
        of(exported, model=model, tokens=tokens, **{"as": "torchao-dynamic"})["times faster than float32"]
        for model, tokens in (("llama-6x1024", 128), ("llama-6x1024", 1), ("mixlm", 128))
    ]
    sentence = (
        "run {} times faster on 128 tokens by torchao-dynamic, {} times on one token; the decoder of "
        "`data/` gets slower ({} times;"
    )
    assert_says(section("shrink-decoder.md", "A format for another program"), sentence, *faster)


def test_embeddings():
    cells_of = load("real_embeddings.json")["cells"]
    kept, dense = cells_of["kprune 50%"], cells_of["dense"]

    def order(name, *keys):
        return [kept["similarity_spearman"][name][key] for key in keys or ("value",)]

    assert_says(
        page("shrink-encoder.md"),
        "keeps {} ({} to {}) of the order of similarities on Banking77, {} on TREC-6, {} on SST-2, and {} ({} to "
        "{}) on "
        "sentences of Wikipedia, of which it saw none; a logistic regression on the embeddings loses {} ({} to {}) "
        "points of {}",
        *order("banking77", "value", "ci_low", "ci_high"),
        *order("trec6"),
        *order("sst2"),
        *order("wiki", "value", "ci_low", "ci_high"),
        *(-100 * kept["probe_change"][key] for key in ("value", "ci_high", "ci_low")),
        100 * dense["probe"]["value"],
    )
    tokens = sum(part["tokens"] for part in load("real_embeddings.json")["calibration"]["parts"])
    assert_says(page("shrink-encoder.md"), "`kprune` at 50 % on {} tokens chosen by `calibrate`", tokens)


def test_a_real_decoder_in_words_and_its_speed():
    text, report = section("figures.md", "A real decoder"), load("real_models.md")
    stored = cells(report)

    def loss(run):
        return numbers(stored[run][0])[0]

    def less(pair):
        return numbers(re.search(rf"- {re.escape(pair)}: (.*) nats", report)[1])

    mixed = [*less("mixed 4 less gptq 4"), *less("mixed 3 less gptq 3")]
    sentence = "gives bits to the layers that need them: {} ({} to {}) beside GPTQ at 4 bits, {} ({} to {}) at 3"
    assert_says(text, sentence, *mixed)
    web = less("gptq 4, web less llmcompressor 4, web")
    runs = ("gptq 4, web", "kprune 20% uniform, web", "llmcompressor 4, web")
    assert_says(
        text,
        "GPTQ loses {} and K-prune {}; llm-compressor's GPTQ on the same web tokens loses {}: ours less theirs is "
        "{} ({} to "
        "{}). At 3 bits ours loses {} on web text, {} on the mixture",
        *(*map(loss, runs), *web, loss("gptq 3, web"), loss("gptq 3")),
    )
    uniform = [less(f"kprune {n}% uniform less kprune {n}% free") for n in (10, 20, 30)]
    sentence = "more than free ones by {} ({} to {}) at 10 %, {} ({} to {}) at 20 % and {} ({} to {}) at 30 %"
    assert_says(text, sentence, *(value for each in uniform for value in each))
    distilled = less("kprune 20% uniform, distilled less kprune 20% uniform")
    assert_says(text, "give nothing back: {} ({} to {}) more", *distilled)
    assert_says(text, "loses {} less ({} to {})", *less("kprune 10% free less svd 10%"))
    speed = {values[0]: list(map(numbers, values[1:])) for values in lines(report) if len(values) == 3}
    names = {
        "dense": "dense",
        "kprune 20 %, `shape=uniform`": "kprune-20-uniform",
        "depth 20 %": "depth-20",
        "svd 20 %": "svd-20",
    }
    found = {}
    for key, name in names.items():
        ours, theirs = speed[f"{name}, transformers"], speed.get(f"{name}, llama.cpp f16")
        found[key] = [
            ours[0][0],
            ours[1],
            *((theirs[0][0], theirs[1]) if theirs else ("its graphs have no such layers", "")),
        ]
    found["dense"][1::2] = ["", ""]
    shown = next(table for table in tables(text) if set(table) == set(names))
    assert_rows(shown, found)
    times = {key: values[1][0] for key, values in speed.items()}
    for key, values in rows(page("methods.md")).items():
        name = re.match(r"\[(kprune|svd|depth)\]", key)
        if name and len(values) == 4:
            run = {"kprune": "kprune-20-uniform", "svd": "svd-20", "depth": "depth-20"}[name[1]]
            both = [times[f"{run}, {by}"] for by in ("transformers", "llama.cpp f16") if f"{run}, {by}" in times]
            check(values[2].replace("llama.cpp", ""), " ".join(f"{value:.4f}" for value in both), key)
