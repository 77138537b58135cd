"""What the docs say of time and memory is what benchmarks/results holds."""

import re
from statistics import mean, median

import numpy as np

from tests.figures import assert_rows, assert_says, is_cell, is_near, lines, load, of, page, section, tables
from tests.test_docs import cells

GIB = 2**30


def test_tables():
    text = section("cost.md", "Tables")
    growth, ranked = load("speed.json")["growth"], load("rank_quality.md").split("### ")
    seconds = [cells(next(p for p in ranked if p.startswith(f"{mode}, low shots"))) for mode in ("planning", "few")]
    pandas, ours = re.search(r"read_csv ([\d.]+) s, transmeter ([\d.]+) s", load("reading_speed.txt")).groups()
    measured = {"200,000 rows, 20 columns": [(float(ours), float(pandas)), ""]}
    for size, about in (
        ("1 source of 300 rows, 20 columns", (1, 300, 20)),
        ("10 sources", (10, 300, 20)),
        ("100 sources", (100, 300, 20)),
        ("1,000 sources", (1000, 300, 20)),
        ("10 sources of 10,000 rows", (10, 10_000, 20)),
        ("10 sources of 1,000 columns", (10, 300, 1000)),
    ):
        job = of(growth, **dict(zip(("sources", "rows", "columns"), about)))
        measured[size] = [job["seconds"], job["peak_gib"]]
    for size, mode in zip(
        ("a target of the benchmark, 10 to 15 sources, planning", "the same with 5 labels per class in all"), seconds
    ):
        measured[size] = [float(mode["transmeter"][-1]), ""]
    shown = {size: values for _, size, *values, _ in lines(text)}  # without the build
    assert_rows(shown, measured)
    scale = load("batch_scale.json")
    units = scale["pace"]["unit_seconds"]
    others = [value for name, value in units.items() if name != "transmeter"]
    assert_says(
        text,
        "a worker takes {} s for a pair with the scorer `transmeter`, {} to {} s with the others, and {} GB of memory; "
        "a pair takes {} bytes of the store",
        units["transmeter"],
        min(others),
        max(others),
        scale["memory"]["2000"]["worker"] / 1e9,
        scale["pace"]["store_bytes_a_pair"],
    )
    figures, speed = page("figures.md"), load("speed.json")
    plain, paper, hundred = speed["stacked"]["plain"], speed["stacked"]["paper"], speed["hundred"]
    assert (round(plain["times_faster"]), round(paper["times_faster"])) == (11, 12)  # as both pages say in words
    assert "an eleventh of one alone (a twelfth with all terms)" in " ".join(figures.split())
    assert_says(
        figures, "at {} % ({} %) of this machine's rate", 100 * plain["matmul_share"], 100 * paper["matmul_share"]
    )
    assert_says(
        figures,
        "Ranking 100 sources takes {} s against {} s for 24 repeats of network transfer of one after the other, "
        "{} times less",
        hundred["seconds_ranking"],
        hundred["seconds_network_transfer"],
        hundred["times_faster"],
    )
    assert_says(figures, "in the time of the ranking lose {} points", hundred["regret_pp, network transfer"])
    scorers = page("scorers.md")
    assert_says(scorers, "its pick loses {} points", hundred["regret_pp, short fine-tune in the same time"])
    most = of(growth, sources=1000)
    assert_says(
        scorers,
        "sources of 300 rows and 20 columns take {} s, 1,000 take {} s and {} GiB",
        of(growth, sources=100)["seconds"],
        most["seconds"],
        most["peak_gib"],
    )


def test_batch():
    measured, paper = load("batch_scale.json"), load("batch_scale.json")["paper"]
    text = page("scale.md")
    hours, gigabytes = tables(section("scale.md", "What a million pairs cost"))
    assert_rows(
        hours, {key: [value, value * paper["dollars_a_core_hour"]] for key, value in paper["core_hours"].items()}
    )
    memory = [measured["memory"][pairs] for pairs in ("200", "2000")]
    stored = {key: [value] for key, value in paper["gigabytes"].items()}
    stored["the store"] = [measured["pace"]["store_bytes_a_pair"] / 1e3]  # a million pairs, in GB
    stored["memory of a worker"] = [memory[1]["worker"] / 1e9]
    assert_rows(gigabytes, stored)
    assert_says(
        text,
        "{} MB of the command and {} MB of a worker at {} pairs, {} and {} MB at {}",
        *(m[key] / (1 if key == "pairs" else 1e6) for m in memory for key in ("command", "worker", "pairs")),
    )
    engines, pace = measured["engines"], measured["pace"]
    assert not any(engines["different_from_first"].values()) and not engines["failed"]
    assert_says(text, "{} pairs on processes, on Dask and on Ray", engines["pairs"])
    again = engines["second_run_seconds"].values()
    assert_says(text, "the command takes {} to {} seconds", min(again), max(again))
    assert_says(text, "two workers do {} of the pairs a second", pace["pace_of_independent"])
    assert_says(text, "What store and engine add to the scoring is {} %", 100 * pace["overhead"])
    kills = measured["kills"]
    assert_says(text, "{} runs of {} pairs, killed by", kills["local"]["kills"], kills["local"]["pairs"])
    assert_says(text, "Ray ({} kills) and Dask ({})", kills["ray"]["kills"], kills["dask"]["kills"])
    assert not any(k["lost"] or k["different"] or k["most_kept_twice"] for k in kills.values())
    assert kills["dask"]["ended_in_an_error_by_it"] == 2 and "two kills of Dask's own" in " ".join(text.split())
    assert_says(text, "{} generated tables", measured["fuzz"]["inputs"])
    assert measured["fuzz"]["faults"] == 0
    once = sum(v for k, v in paper["core_hours"].items() if "score with" not in k)
    whole = once + paper["core_hours"]["score with transmeter"]
    assert_says(
        text,
        "with Transmeter {} of {} core hours, which is {} hours on 24 cores",
        paper["core_hours"]["score with transmeter"],
        whole,
        whole / 24,
    )


def test_calibration_data():
    text = section("cost.md", "Calibration data")
    measured = load("calibration_speed.json")
    found = {}
    for many in (20, 1000):
        anew, again = (measured[f"{many} candidates, {how}"] for how in ("anew", "again"))
        found[f"`calibrate` among {many:,} candidates"] = [
            anew["cpu_seconds"],
            again["cpu_seconds"],
            anew["peak_bytes"] / 1e9,
        ]
    assert_rows(tables(text)[0], found)
    three = [measured[name] for name in ("kprune", "kwon", "gptq")]
    assert len({each["tokens"] for each in three}) == 1
    sentence = "K-prune took {} s, Kwon {} s and GPTQ {} s on the {} tokens"
    assert_says(text, sentence, *(each["cpu_seconds"] for each in three), three[0]["tokens"])
    real = load("real_models.json")
    gptq = cells(load("real_models.md"))["gptq 4"]
    sentence = "choosing among six sets for four targets took {} CPU s, GPTQ {}"
    assert_says(text, sentence, real["calibration"]["cpu_seconds"], float(gptq[8]))
    assert_says(
        section("pruning.md", "kwon"),
        "{} tokens, one thread: {} CPU seconds, where `kprune` takes {}",
        three[0]["tokens"],
        three[1]["cpu_seconds"],
        three[0]["cpu_seconds"],
    )


def grown(varied, method):
    """Times and peaks of one method by what was varied, in its order."""
    return [r for r in load("prune_speed.json")["growth"] if (r["varied"], r["method"]) == (varied, method)]


def power(varied, method):
    """The power with which time grows, by least squares of the logarithms."""
    found = grown(varied, method)
    return float(np.polyfit(*(np.log([r[key] for r in found]) for key in (varied, "cpu_seconds")), 1)[0])


def test_compression():
    text = section("cost.md", "Compression")
    measured, kprune, gptq = (
        load(f"{name}.json") for name in ("prune_speed", "kprune_measurements", "quantization_speed")
    )
    sst2 = [cell for cell in kprune["cells"] if cell["task"] == "sst2"]
    spent = {how: [cell[f"seconds_{how}"] for cell in sst2] for how in ("once", "anew")}
    bert, run, later = measured["kprune"], gptq["gptq"]["runs"]["ours"][0], gptq["gptq"]["later"]
    jobs = [values[2:4] for values in lines(text) if len(values) == 5]
    assert_rows(
        dict(enumerate(jobs)),
        {
            0: [(min(spent["once"]), max(spent["once"])), ""],
            1: [(min(spent["anew"]), max(spent["anew"])), ""],
            2: [bert["seconds"], bert["peak_bytes"] / GIB],
            3: [run["cpu_seconds"], run["peak_bytes"] / 1e9],
            4: [later["cpu_seconds"], later["peak_bytes"] / 1e9],
        },
    )
    rows = measured["memory"]["rows"]
    found = {}
    for job in rows:
        name = f"{job['method']} " + ", ".join(f"{key}={value}" for key, value in job["options"].items())
        both = [job["whole"], job["streamed"]]
        found[name] = [*((each["peak"] / 1e6, each["seconds"]) for each in both), [each["ratio"] for each in both]]
    assert_rows(tables(text)[1], found)
    assert all(job["equal"] for job in rows)
    before = mean(job[how]["before"] for job in rows for how in ("whole", "streamed") if "before" in job[how])
    assert_says(text, "some {} GB of it are the interpreter", before / 1e9)
    tokens = {method: {r["tokens"]: r for r in grown("tokens", method)} for method in ("kprune", "sparsegpt")}
    few, many = (tokens["kprune"][n] for n in (1024, 102_400))
    assert_says(
        text,
        "({} s for 1,024, {} s for 102,400; {} GiB there",
        few["cpu_seconds"],
        many["cpu_seconds"],
        many["peak_bytes"] / GIB,
    )
    assert_says(text, "with the tokens K-prune to the power {} (", power("tokens", "kprune"))
    assert_says(text, "are kept), SparseGPT {}.", power("tokens", "sparsegpt"))
    layers = {r["layers"]: r["cpu_seconds"] for r in grown("layers", "kprune")}
    assert_says(
        text, "to the power {} (2 layers {} s, 30 layers {} s)", power("layers", "kprune"), layers[2], layers[30]
    )
    assert_says(text, "30 layers {} s), SparseGPT {}.", layers[30], power("layers", "sparsegpt"))
    width = {r["width"]: r["cpu_seconds"] for r in grown("width", "sparsegpt")}
    assert_says(
        text,
        "With the width K-prune to the power {}, SparseGPT {} ({} s at 128, {} s at 1,024)",
        power("width", "kprune"),
        power("width", "sparsegpt"),
        width[128],
        width[1024],
    )
    once, anew = ([cell[f"seconds_{how}"] for cell in sst2 if cell["ratio"] == 0.6] for how in ("once", "anew"))
    sentence = "MiniLM, 8,000 tokens, one thread: {} CPU seconds, {} with `iterative=true`"
    assert_says(section("pruning.md", "kprune"), sentence, mean(once), mean(anew))
    few, many = (tokens["sparsegpt"][n]["cpu_seconds"] for n in (1024, 102_400))
    sparsegpt = section("pruning.md", "sparsegpt")
    assert_says(
        sparsegpt,
        "to the power {}. 4 blocks, width 256: {} s for 1,024 tokens, {} s for 102,400",
        power("width", "sparsegpt"),
        few,
        many,
    )
    whole = {job["method"]: job for job in rows}
    for name, sentence in (
        (
            "magnitude",
            "{} s in all with loading, saving and comparing, one thread, {} GB with the interpreter; streamed {} s and "
            "{} GB",
        ),
        ("wanda", "{} s with loading, saving and comparing, {} GB with the interpreter; streamed {} s and {} GB"),
    ):
        values = [
            f(whole[name][how])
            for how in ("whole", "streamed")
            for f in (lambda r: r["seconds"], lambda r: r["peak"] / 1e9)
        ]
        assert_says(section("pruning.md", name), sentence, *values)
    times = {kind: {n: r["times"] for n, r in found.items()} for kind, found in measured["weights"]["rows"].items()}
    three = [times[kind][name] for kind in ("bfloat16", "float32") for name in ("wanda", "round_to_nearest", "gptq")]
    sentence = (
        "at {} times its weights in float32 by `wanda`, {} by `round_to_nearest` and {} by `gptq` where its files are "
        "bfloat16, {}, {} and {} where they are float32"
    )
    assert_says(text, sentence, *three)
    assert_says(text, "`kprune` at {} (missed)", times["bfloat16"]["kprune"])
    low = min(each["ratio"] for job in rows for each in (job["whole"], job["streamed"]))
    assert_says(text, "above the estimate by 1 to {} %", 100 * (1 / low - 1))
    job = whole["kprune"]
    assert_says(
        section("shrink-decoder.md", "It does not fit into memory"),
        "took {} MB in memory and {} MB streamed, in {} and {} s",
        *(job[how]["peak"] / 1e6 for how in ("whole", "streamed")),
        *(job[how]["seconds"] for how in ("whole", "streamed")),
    )


def test_speed_of_pruning():
    figures, method = section("figures.md", "Pruning"), section("pruning.md", "kprune")
    measured = load("prune_speed.json")
    bert, peer = measured["kprune"], measured["llmcompressor"]
    values = [bert["seconds"], bert["peak_bytes"] / GIB]
    assert_says(
        figures,
        "two threads: {} s and {} GiB, {} times less time than the public code's {} s a sublayer imply, "
        "{} times what its FLOPs take",
        *values,
        bert["times_faster"],
        bert["public_code_seconds"] / (2 * bert["layers"]),
        bert["times_bound"],
    )
    assert_says(method, "60 % removed, two threads: {} s and {} GiB", *values)
    sparsegpt, wanda = peer["rows"]
    ratios = [[r[f"ratio, batch_size={n}"]["seconds"] for n in (1, 32)] for r in (sparsegpt, wanda)]
    theirs = [mean(run["seconds"] for run in r["llmcompressor"]) for r in (sparsegpt, wanda)]
    both = [value for each in ratios for value in each]
    assert_says(figures, "take {} to {} times less time than llmcompressor 0.14", min(both), max(both))
    assert_says(figures, "llmcompressor takes {} s and {} s there", *theirs)
    perplexity = [[r["perplexity"][who]["value"] for who in ("ours", "llmcompressor")] for r in (sparsegpt, wanda)]
    assert_says(figures, "({} and {} both;", perplexity[0][0], perplexity[1][0])
    assert [round(a, 1) for a, _ in perplexity] == [round(b, 1) for _, b in perplexity]
    assert_says(section("pruning.md", "wanda"), "one run, one thread: {} times less time for 2:4", ratios[1][0])
    assert_says(section("pruning.md", "sparsegpt"), "{} to {} times less time than llmcompressor", *ratios[0])
    gains = measured["gains"]

    def gain(model, method, key, batch=1):
        return [g[key] for g in gains if (g["model"], g["batch"]) == (model, batch) and g["method"].startswith(method)]

    large, small = "BERT-base", "6 layers, width 384"
    share = [value for batch in (1, 32) for value in gain(large, "magnitude", "share_of_flops_ratio", batch)]
    assert_says(figures, "at least {} of what the FLOPs promise", min(share))
    assert_says(figures, "({} of it at 80 %)", gain(small, "magnitude", "share_of_flops_ratio")[-1])
    sizes = [value for model in (large, small) for value in gain(model, "magnitude", "bytes_ratio")]
    assert_says(figures, "{} / {} / {} and {} / {} / {} times, since embeddings stay", *sizes)
    zeros = [gain(model, "wanda", "bytes_ratio")[0] for model in (large, small)]
    assert_says(figures, "(Wanda) shrink it {} and {} times and change no time", *zeros)
    assert_says(section("pruning.md", "wanda"), "shrink a BERT-base {} times", zeros[0])


def test_speed_of_quantization():
    text = section("figures.md", "Quantization")
    gptq = load("quantization_speed.json")["gptq"]
    runs = [gptq["runs"][who][0] for who in ("ours", "former", "peer")]
    found = {
        "processor time, s": [run["cpu_seconds"] for run in runs],
        "peak memory less imports, GB": [run["peak_bytes"] / 1e9 for run in runs],
    }
    assert_rows(tables(text)[1], found)
    faster = gptq["ratio"]["cpu_seconds"]
    for who in ("former", "peer"):
        assert_says(text, "{} times less time than either", faster[who])
    later = gptq["later"]
    sentence = "peaked at {} GB, of which 0.54 are the weights, and took {} s"
    assert_says(text, sentence, later["peak_bytes"] / 1e9, later["cpu_seconds"])
    lead, perplexity = gptq["ours less theirs, nats"]["former"], gptq["perplexity"]
    assert_says(
        text,
        "On six windows of 512 tokens of wikitext-2 (validation) the loss is {} nats per token lower than the former "
        "build's ({} to {}, perplexity {} and {}, dense {})",
        -lead["value"],
        lead["ci_low"],
        lead["ci_high"],
        *(perplexity[who]["value"] for who in ("ours", "former", "dense")),
    )
    assert gptq["windows"] == 6
    sentence = (
        "{} tokens, one thread: {} s of processor time from the command to the saved folder, llmcompressor 0.14 {} s"
    )
    assert_says(
        section("quantization.md", "gptq"), sentence, gptq["tokens"], runs[0]["cpu_seconds"], runs[2]["cpu_seconds"]
    )


def test_against_a_former_build():
    """A row a job, of the medians: seconds and memory of both builds, products, how much less, and the aim."""
    text = section("cost.md", "Against a former build")
    shown, cases = lines(text), load("speed_report.json")
    assert len(shown) == len(cases)
    for name, case in cases.items():
        job, former, now, products, times = next(row for row in shown if is_of(row, case))
        assert name.split(",")[0] == re.match(r"`(\w+)`", job)[1], name
        assert is_cell(products, case["products_seconds"] if "products_seconds" in case else ""), name
        value, aim = re.fullmatch(r"([\d.]+) \((.*)\)", times).groups()
        assert is_near(value, case["cpu_seconds"]["value"]), name
        spent = median(run["cpu_seconds"] for run in case["runs"]["now"])
        if case["cpu_seconds"]["value"] >= case["target"]:
            assert is_near(aim, case["target"]), name
        elif "tokens" not in name and spent <= 2 * case["products_seconds"]:  # methods have this aim too
            assert aim in (f"{case['target']:.0f}, or at most twice the products", "the same"), name
        else:
            assert aim.endswith(": missed") and is_near(aim.removesuffix(": missed"), case["target"]), name
    of_evaluate = cases["evaluate, perplexity of 8,000 tokens, SmolLM2"]
    most = median(run["cpu_seconds"] for run in of_evaluate["runs"]["former"]) / of_evaluate["products_seconds"]
    assert_says(text, "three times less cannot be: {} times at most", most)
    losses = {name.split(",")[0]: case.get("loss now less former, nats") for name, case in cases.items()}
    value, *ends = (-losses["awq"][key] for key in ("value", "ci_high", "ci_low"))
    assert_says(text, "`awq` loses {} nats less ({} to {})", value, *ends)
    assert_says(text, "`mixed` {} more ({} to {})", *(losses["mixed"][key] for key in ("value", "ci_low", "ci_high")))
    rest = max(abs(losses[name]["value"]) for name in ("wanda", "sparsegpt", "kmeans"))
    assert_says(text, "`kmeans` differ by {} at most", rest)

    case = cases["gptq, SmolLM2"]
    (now,), (theirs,) = (case["runs"][side] for side in ("now", "peer"))
    pairs = [(run["cpu_seconds"], run["peak_bytes"] / 1e6) for run in (now, theirs)]
    assert_says(text, "in the same run: {} s and {} MB, theirs {} s and {} MB", *pairs[0], *pairs[1])
    assert_says(text, "That is {} times less CPU time", case["cpu_seconds, peer / now"]["value"])
    assert_says(text, "and {} times less memory", case["peak_bytes, peer / now"]["value"])
    value, *ends = (-case["loss now less peer, nats"][key] for key in ("value", "ci_high", "ci_low"))
    assert_says(text, "at a loss of {} nats less ({} to {})", value, *ends)


def is_of(row, case):
    """Whether the second and third cell of a row are the medians of both builds' runs."""
    return all(is_build(cell, case["runs"][build]) for cell, build in zip(row[1:], ("former", "now")))


def is_build(cell, runs):
    """Whether a cell is the median of runs: seconds, and memory in MB or GB."""
    seconds, memory, unit = re.fullmatch(r"([\d.]+) s, ([\d.,]+) ([MG])B", cell).groups()
    peak = median(run["peak_bytes"] for run in runs) / {"M": 1e6, "G": 1e9}[unit]
    return is_near(seconds, median(run["cpu_seconds"] for run in runs)) and is_near(memory, peak)
