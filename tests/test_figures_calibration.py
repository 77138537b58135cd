"""Figures of the pages on calibration data are those of benchmarks/results."""

import re

import pandas as pd
import pytest

from tests.figures import RESULTS, assert_rows, assert_says, load, of, page, section, tables
from tests.test_docs import cells

PARTS = ("decoder", "encoders")  # mixlm and MiniLM, as the columns are
METHODS = ("sparsegpt 50 %", "sparsegpt 70 %", "wanda 2:4", "gptq 3 bits", "kprune 30 %")
ALL_DOMAINS = ("stories", "wiki", "web", "math", "code", "novels", "drama")
DOMAINS = {"Wikipedia": "wiki", "web text": "web", "school maths": "math", "code": "code", "chat": "chat"}


def quality(name):
    """A part of the comparison of the measure with the ground truth."""
    return load("calibration_quality.json")[name]


def added(method, drawer):
    """Nats a token that compression adds, the mean over all domains."""
    return -of(quality("all targets at once"), method=method, drawer=drawer)["mean"]


def numbers(name, place=0):
    """The rows of a table of a Markdown file of results, without its head, as texts."""
    return tables(load(name))[place]


def test_does_the_measure_predict_the_ground_truth():
    text = section("calibration.md", "Does it predict the ground truth?")
    spearman, by_method, criterion = tables(text)
    found = {(r["score"], r["part"]): r for r in quality("agreement")}
    names = {
        "**the measure** (mean distance and coverage at three depths)": "measure",
        "... with discriminators": "measure with discriminators",
        "mean distance alone": "mean_distance alone",
        "discriminators alone": "separability alone",
        "coverage alone": "uncovered alone",
        "weights of depths and terms learned on the other targets": "weights learned on other targets",
        "weights learned on the other model": "weights learned on the other model",
    }
    measured = {k: [[found[v, p][x] for x in ("spearman", "reach")] for p in PARTS] for k, v in names.items()}
    measured["the measure at the first / middle / last block alone"] = [
        [found[f"measure, {d} block alone", p]["spearman"] for d in ("first", "middle", "last")] for p in PARTS
    ]
    ceiling = {p: found["measure", p]["ceiling"] for p in PARTS}
    measured["ceiling: root of the ground truth's own reliability, where there are two draws"] = list(ceiling.values())
    assert_rows(spearman, measured)
    assert_says(
        text, "That is {} and {} of the ceiling", *(found["measure", p]["spearman"] / ceiling[p] for p in PARTS)
    )
    measured = {}
    for key, method, part in (
        ("mixlm, SparseGPT 70 %", "sparsegpt 70 %", "decoder"),
        ("mixlm, K-prune 30 %", "kprune 30 %", "decoder"),
        ("mixlm, Wanda 2:4", "wanda 2:4", "decoder"),
        ("mixlm, SparseGPT 50 %", "sparsegpt 50 %", "decoder"),
        ("mixlm, GPTQ 3 bits", "gptq 3 bits", "decoder"),
        ("MiniLM, K-prune 75 %", "kprune 75 %", "encoders"),
        ("MiniLM, Kwon 60 %", "kwon 60 %", "encoders"),
        ("MiniLM, GPTQ 3 bits", "gptq 3 bits", "encoders"),
    ):
        r = of(quality("by method"), part=part, method=method)
        twice = r["noise"] == r["noise"]  # one draw has no noise
        measured[key] = [r["spearman"], r["reliability"] ** 0.5 if twice else "", r["spread"]]
        measured[key].append(r["noise"] if twice else "")
    assert_rows(by_method, measured)
    cases = pd.DataFrame(quality("cases"))
    few = cases[~cases.clear].groupby("part").size()
    share = cases.groupby("part").size()
    assert_says(text, "In {} of its {} cases the spread is under twice that noise", few["encoders"], share["encoders"])
    assert_says(text, "so it is in {} of {} on mixlm, all of web text", few["decoder"], share["decoder"])
    assert set(cases[~cases.clear & (cases.part == "decoder")].target) == {"web"}
    assert cases[cases.part == "encoders"].groupby("method").clear.sum().to_dict() == {
        "gptq 3 bits": 0,
        "kwon 60 %": 1,
        "kprune 75 %": 4,
    }
    clear = [found["measure", p][x] for p in ("encoders", "decoder") for x in ("clear spearman", "clear regret")]
    assert_says(
        text,
        "the measure has a Spearman of {}, and the pick loses {} % of the spread between the best and the median; on "
        "mixlm {} and {} %",
        *(x * (1 + 99 * (i % 2)) for i, x in enumerate(clear)),
    )
    stored = {k: [float(v) for v in values] for k, values in numbers("calibration_criterion.md").items()}
    half, most = stored["misfit of 50%"], stored["misfit of 80%"]
    joined = stored["misfit of 50%, and mean distance"], stored["misfit of 80%, and mean distance"]
    measured = {
        "the measure": stored["the measure"],
        "error of least squares, half / 80 % of the features": list(zip(half, most)),
        "... with the mean distance": list(zip(*joined)),
        "coverage of tokens instead of texts, with the mean distance": stored["coverage of tokens, and mean distance"],
        "variances of the features, with the mean distance": stored["scales, and mean distance"],
    }
    assert_rows(criterion, measured)


def test_how_many_cases_there_are():
    text = section("calibration.md", "Does it predict the ground truth?")
    cases = pd.DataFrame(quality("cases"))
    for sentence, chosen in (
        ("(2 samples; {} cases of {} sets and ways)", (cases.part == "decoder") & (cases.seeds == 2)),
        ("(1 sample; {} cases of {})", (cases.part == "decoder") & (cases.seeds == 1)),
    ):
        size = set(cases[chosen].sets)
        assert len(size) == 1
        assert_says(text, sentence, chosen.sum(), size.pop())
    encoders = cases[cases.part == "encoders"]
    assert set(encoders.sets) == {11}  # their mixture and the closest texts are two of them
    assert_says(text, "{} cases of {} sets, their mixture and the closest texts", len(encoders), 11 - 2)


def test_how_sure_the_order_is():
    text = section("calibration.md", "How sure is the order?")
    shares, costs = (numbers("calibration_intervals.md", place) for place in (0, 1))
    covered, cases = shares["intervals that cover the mean of the other samples"]
    right, sets = shares["sets told as less close that are so in the other samples"]
    assert_says(text, "in {} % of {} cases", 100 * float(covered), int(cases))
    assert_says(text, "All of {} sets that are told as less close are so", int(sets))
    assert float(right) == 1
    values = [float(n) for key in costs for n in re.findall(r"[\d.]+", costs[key][0])]
    sentence = (
        "costs {} nats a token in the mean over methods ({} at the worst), one that is not tied {} ({} at the worst)"
    )
    assert_says(text, sentence, *values)
    report = load("calibration_screening.md")
    sets, kept = (int(n) for n in re.search(r"^(\d+) candidates .* of which (\d+) stay", report).groups())
    assert_says(text, "of {} candidates the {} that stay", sets, kept)
    measured = [row for row in map(cells_of, report.splitlines()) if len(row) > 5 and row[2].startswith("what enters")]
    orders = [float(row[3].split(",")[0]) for row in measured]
    assert_says(text, "Spearman is {} to {} in the mean over targets", min(orders), max(orders))
    stay = sum(int(row[1]) * float(row[4][:-1]) / 100 for row in measured)
    assert_says(text, "held the closest of all in {} of {} cases", stay, sum(int(row[1]) for row in measured))


def test_is_the_pick_the_best_choice():
    text = section("calibration.md", "Is the pick the best choice?")
    leads, others = tables(text)
    found = {(r["rival"], r["part"]): r for r in quality("rivals")}
    names = {
        "a random set": ("random set",) * 2,
        "the target's own text": ("own text",) * 2,
        "uniform mixture": ("uniform",) * 2,
        "longest texts": ("longest",) * 2,
        "lowest perplexity": ("lowest_perplexity",) * 2,
        "lexical diversity (ZipCal-like)": ("lexical_diversity",) * 2,
        "activation coverage (COLA-like)": ("activation_coverage",) * 2,
        "embedding similarity": ("embedding_similarity",) * 2,
        "closeness, always": ("closeness",) * 2,
        "C4": ("web",) * 2,
        "WikiText": ("wiki", "wikitext"),  # as its set is called among the domains and among the tasks
        "text of the model itself": ("self", None),
    }
    measured = {}
    for key, rival in names.items():
        both = [found[name, part] if name else None for name, part in zip(rival, PARTS)]
        measured[key] = [[r[k] for k in ("lead", "ci_low", "ci_high", "raw")] if r else "-" for r in both]
    own = measured["the target's own text"]
    assert max(abs(value) for value in own[0]) < 0.005  # that is the pick but in a case of 35
    own[0] = "0.00, it is the pick"
    assert_rows(leads, measured)
    agreement = {r["part"]: r for r in quality("agreement") if r["score"] == "measure"}
    lost = [100 * agreement[p]["regret over spread"] for p in PARTS]
    assert_says(
        text,
        "The pick loses {} % of the spread between the best and the median of a case on mixlm, {} % on MiniLM, {} % "
        "where the spread is clear",
        *lost,
        100 * agreement["encoders"]["clear regret"],
    )
    stored, measure = (numbers("calibration_rivals.md", place) for place in (0, 1))
    names = {
        "the target's own text, the pick": "the target's own text",
        "activation centroid (ACDM-like)": "activation_centroid",
        "embedding similarity": "embedding_similarity",
        "closeness": "closeness",
        "uniform mixture": "uniform",
        "text of the model itself": "self",
    }
    assert_rows(others, {key: [float(v) for v in stored[name]] for key, name in names.items()})
    kinds = (
        "activation centroid (ACDM-like)",
        "closeness",
        "closeness, labels count alike",
        "closeness without labels",
    )
    rows = [[float(v) for v in measure[kind]] for kind in kinds]
    assert all(lost == 0 for _, lost, _ in rows)
    assert_says(
        text,
        "a Spearman of {} with the ground truth, closeness {} ({} where labels count alike, {} without labels), and "
        "the first of all four is the best set ({} cases",
        *(row[0] for row in rows),
        rows[0][2],
    )


def test_several_targets_or_none():
    text = section("calibration.md", "Several targets, or none")
    at_once, several = tables(text)
    drawers = {
        "uniform mixture": "uniform",
        "longest texts of all": "longest",
        "activation coverage": "activation_coverage",
        "lexical diversity": "lexical_diversity",
        "lowest perplexity": "lowest_perplexity",
        "maths, the best single domain for SparseGPT 70 % and Wanda": "math",
        "web text, the best single domain for the others": "web",
    }
    measured = {key: [added(method, drawer) for method in METHODS] for key, drawer in drawers.items()}
    measured["the model's own text"] = [*(added(method, "self") for method in METHODS[:-1]), "-"]
    single = {method: {domain: added(method, domain) for domain in ALL_DOMAINS} for method in METHODS}
    measured["worst single domain"] = [max(values.values()) for values in single.values()]
    assert_rows(at_once, measured)
    best = {method: min(values, key=values.get) for method, values in single.items()}
    assert best == dict.fromkeys(METHODS, "web") | dict.fromkeys(("sparsegpt 70 %", "wanda 2:4"), "math")
    assert all(min(values.values()) > added(method, "uniform") for method, values in single.items())
    own = of(quality("budgets"), tokens=8000)["own"]
    sentence = "own text {} at 70 %, uniform {} in the mean over domains"
    assert_says(text, sentence, -own, added("sparsegpt 70 %", "uniform"))
    stored = numbers("calibration_several.md")
    percent = {k: float(values[0].rstrip("%")) for k, values in stored.items()}
    kept = {k: [percent[k], float(stored[k][4]), float(stored[k][2])] for k in ("2", "3", "4", "7")}
    assert_rows(several, kept)


def test_calibration_of_a_real_decoder():
    text = section("calibration.md", "A real decoder")
    losses, orders, measures = tables(text)
    report = load("real_models.md")
    stored = cells(report)
    measured = {
        key: [stored[name][0] for name in (run, f"{run}, web")]
        for key, run in (
            ("K-prune, 20 % of the FLOPs, `shape=uniform`", "kprune 20% uniform"),
            ("GPTQ, 4 bits", "gptq 4"),
        )
    }
    assert_rows(losses, measured)
    closeness = dict(re.findall(r"(\w+) ([\d.]+)[,.]", re.search(r"Closeness: (.*)", report)[1]))
    assert_says(text, "closest ({}; web text {})", *(float(closeness[k]) for k in ("uniform", "web")))

    def less(pair):
        return [float(n) for n in re.findall(r"-?\d\.\d+", re.search(rf"- {pair}: (.*) nats", report)[1])]

    value, low, high = less("gptq 4 less gptq 4, web")
    assert_says(text, "The paired difference of GPTQ is {} nats ({} to {})", -value, -high, -low)
    value, low, high = less("gptq 4, web less llmcompressor 4, web")
    assert_says(text, "the same web text ({}, {} to {})", -value, -high, -low)
    code = [float(stored[run][6]) for run in ("dense", "kprune 20% uniform", "kprune 20% uniform, web")]
    assert_says(text, "perplexity {} dense, {} and {} after K-prune", *code)
    cases = [values for values in map(cells_of, load("calibration_real.md").splitlines()) if len(values) > 9][2:]
    found = {values[1]: values for values in cases if values[0] == "gptq 3 bits"}
    names = {"wiki": "Wikipedia", "math": "school maths", "web": "web text"}
    names |= {"web+math": "web text and maths", "web+code": "web text and code"}
    measured, all_sets = {}, "wiki+web+math+code+stories+drama"
    for key, name in DOMAINS.items():
        _, _, _, best, median, worst, _, pick, loss, own, spearman, _ = found[name]
        measured[key] = [*map(float, (best, median, worst)), names[pick], *map(float, (loss, own, spearman))]
    assert_rows(orders, measured)
    assert {(v[0], v[2]) for v in cases} == {("gptq 3 bits", "2"), ("sparsegpt 50 %", "2"), ("kprune 20 %", "2")}
    together = [values for values in cases if values[1] == "all"]
    assert [values[7] for values in together] == [all_sets] * 3 and all(v[3] == v[8] for v in together)
    mean, lost, low, high = re.search(
        r"Spearman ([\d.]+), regret of the pick (\d+)% of best to median \((\d+)% to (\d+)%\)",
        load("calibration_real.md"),
    ).groups()
    assert_says(text, "Over all {} cases Spearman is {} in the mean", 3 * len(DOMAINS), float(mean))
    assert_says(text, "loses {} % of the way from the best to the median ({} to {} %", *map(float, (lost, low, high)))
    assert_says(page("choose-calibration.md"), "Spearman {} on SmolLM2-135M", float(mean))
    assert_says(page("choose-calibration.md"), "taking the closest loses {} % of the way", float(lost))
    assert_says(page("README.md"), "Spearman {} on SmolLM2-135M by three methods", float(mean))
    twice = {
        method: [sum(float(v[k]) for v in cases if v[0] == method and v[1] != "all") / len(DOMAINS) for k in (10, 11)]
        for method in ("gptq 3 bits", "sparsegpt 50 %", "kprune 20 %")
    }
    sentence = (
        "Of GPTQ Spearman is {} where {} is possible by what two draws agree on, of SparseGPT {} where {} is, of "
        "K-prune {} where {} is"
    )
    assert_says(text, sentence, *(value for pair in twice.values() for value in pair))
    assert_says(text, "was aimed at ({}, {} and {}), and is missed", *(0.9 * ceiling for _, ceiling in twice.values()))
    stored = pd.read_csv(RESULTS / "calibration_real.csv")
    every = stored.query("method == 'gptq 3 bits'")
    moved = every.pivot(index=["candidate", "target"], columns="draw", values="kl").diff(axis=1)[1].abs()
    assert len(moved) == 12 * 5 and not moved.isna().any() and moved.idxmax() == ("web", "code")
    assert_says(text, "the KL divergence of GPTQ by {} in the mean and by {} at most", moved.mean(), moved.max())
    pruned = stored.query("method == 'kprune 20 %'").pivot(index=["candidate", "target"], columns="draw", values="kl")
    assert_says(text, "that of K-prune by {} in the mean", pruned.diff(axis=1)[1].abs().mean())
    over = every.groupby("candidate").kl.mean().sort_values()
    assert over.index[0] == all_sets and len(over) == 12
    assert_says(
        text,
        "the mixture of all six sets is best ({}; web text alone {}, the median {})",
        over.iloc[0],
        over["web"],
        over.median(),
    )
    maths = stored.query("method == 'kprune 20 %' and target == 'math'").groupby("candidate").kl.mean()
    assert_says(text, "loses from {} to {} nats on school maths", maths.min(), maths.max())
    assert measures == numbers("calibration_real_measures.md")
    choose = page("choose-calibration.md")
    assert_says(
        choose,
        "over five targets is {} nats with the best of twelve sets and {} with the worst",
        over.iloc[0],
        over.iloc[-1],
    )


def cells_of(line):
    """Cells of a line of a table, no first one left out."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_how_many_tokens():
    text = section("calibration.md", "How many tokens?")
    found = {r["tokens"]: r for r in quality("budgets")}
    measured = {f"{tokens:,}": [-r["pick"], -r["best"], -r["median"], r["spearman"]] for tokens, r in found.items()}
    assert_rows(tables(text)[0], measured)
    for r in found.values():
        assert r["own"] == pytest.approx(r["pick"])
    more = found[2000]["median"] - found[32000]["median"]
    assert_says(
        text,
        "Sixteen times more text of the median set is worth {} nats, the right set {}",
        -more,
        found[8000]["pick"] - found[8000]["median"],
    )


def between_best_and_worst():
    """Nats a token between the best and the worst domain by method, the mean over targets."""
    truth = pd.read_csv(RESULTS / "calibration_truth_decoder.csv", keep_default_na=False)
    truth = truth[(truth.tokens == 8000) & truth.drawer.isin(ALL_DOMAINS)]
    by_drawer = truth.groupby(["method", "target", "drawer"]).quality.mean().unstack()
    return (by_drawer.max(axis=1) - by_drawer.min(axis=1)).groupby("method").mean()


def test_when_the_choice_does_not_matter():
    text = section("calibration.md", "When the choice does not matter")
    worst = between_best_and_worst()
    assert_says(
        text,
        "lie {} nats in the mean of the targets after GPTQ at 3 bits, {} after SparseGPT at 50 %, {} after Wanda 2:4, "
        "{} after SparseGPT at 70 %",
        *(worst[m] for m in ("gptq 3 bits", "sparsegpt 50 %", "wanda 2:4", "sparsegpt 70 %")),
    )
    shown = tables(section("choose-calibration.md", "When is it worth it?"))[0]
    names = {"GPTQ, 3 bits": "gptq 3 bits", "Wanda, 2:4": "wanda 2:4"}
    names |= {f"SparseGPT, {n} %": f"sparsegpt {n} %" for n in (50, 70)}
    assert_rows(shown, {key: [worst[method]] for key, method in names.items()})
    by_method = {r["method"]: r for r in quality("by method") if r["part"] == "decoder"}
    spreads = [by_method[f"sparsegpt {n} %"]["spread"] for n in (50, 70)]
    assert_says(text, "best set is {} nats better than the median, at 70 % {}", *spreads)
    noise = [r["noise"] for r in by_method.values() if r["noise"] == r["noise"]]
    assert_says(text, "moves the result by {} to {} nats", min(noise), max(noise))
    ag_news = of(quality("cases"), part="encoders", method="kprune 75 %", target="ag_news")
    assert "differ by one point after K-prune at 75 %" in " ".join(text.split()) and 0.005 < ag_news["spread"] < 0.015


def test_when_choosing_calibration_data_is_worth_it():
    text = section("choose-calibration.md", "When is it worth it?")
    agreement = {r["part"]: r for r in quality("agreement") if r["score"] == "measure"}
    kprune, gptq = (of(quality("by method"), part="encoders", method=m) for m in ("kprune 75 %", "gptq 3 bits"))
    mixlm, minilm = (agreement[part] for part in PARTS)
    assert_says(
        text,
        "in an earlier form {} ± {} on the decoder ({} is possible) and {} ± {} on MiniLM ({}; after K-prune {}, after "
        "GPTQ at 3 bits {}",
        *(mixlm[k] for k in ("spearman", "reach", "ceiling")),
        *(minilm[k] for k in ("spearman", "reach", "ceiling")),
        kprune["spearman"],
        gptq["spearman"],
    )
    both = [agreement[part][key] for part in PARTS for key in ("spearman", "reach")]
    assert_says(page("scorers.md"), "ground truth {} ± {} on a decoder, {} ± {} on encoders", *both)
    kwon = of(quality("by method"), part="encoders", method="kwon 60 %")
    assert_says(
        page("README.md"),
        "Spearman {} on a decoder (ceiling {}), on encoders {} after K-prune, {} after Kwon (ceiling {}) and {} "
        "after GPTQ ({})",
        mixlm["spearman"],
        mixlm["ceiling"],
        kprune["spearman"],
        *(value for r in (kwon, gptq) for value in (r["spearman"], r["reliability"] ** 0.5)),
    )
    mixlm, minilm = (of(quality("rivals"), rival="random set", part=part) for part in PARTS)
    assert_says(text, "ahead by {} nats on the decoder", mixlm["raw"])
    assert_says(text, "on MiniLM by {} of accuracy", minilm["raw"])
    assert mixlm["ci_low"] > 0 > minilm["ci_low"]
    by_tokens = {r["tokens"]: r for r in quality("budgets")}
    right = by_tokens[8000]["pick"] - by_tokens[8000]["median"]
    more = by_tokens[32000]["median"] - by_tokens[2000]["median"]
    assert "worth a fifteenth of what the right set is" in " ".join(page("choose-calibration.md").split())
    assert right / more == pytest.approx(15, abs=2)
