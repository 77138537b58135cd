"""What the docs say of rankings is what benchmarks/results holds."""

import re

from tests.figures import NUMBER, assert_rows, assert_says, lines, load, of, page, section, tables
from tests.test_docs import cells

SHOTS = {"planning": ("planning, low shots", "planning, high shots"), "few": ("few, low shots", "few, high shots")}
KINDS = ("all pairs, 5 labels per class", "all pairs, 10 or more per class")
REAL = tuple(kind.replace("all pairs", "real pairs") for kind in KINDS)


def numbers(text):
    """The numbers of a text of the results."""
    return [float(n) for n in NUMBER.findall(text.replace(",", ""))]


def modes(name):
    """What was measured with 5 and with 20 shots."""
    return [load("rank_quality.json")["modes"][mode] for mode in SHOTS[name]]


def intervals(mode):
    """What intervals and verdicts are worth: shares in per cent, but for the AUROC and the calibration error."""
    found = mode["honesty"]
    return {key: value * (1 if key in ("pairs", "auroc", "calibration_error") else 100) for key, value in found.items()}


def in_order(*values):
    """Values and lists of values, as one list."""
    return [part for value in values for part in (value if isinstance(value, (list, tuple)) else [value])]


def test_planning():
    text = section("figures.md", "Ranking")
    found = {key: [] for key in tables(text)[0]}
    tau, half, regret, rival, rival_regret, cover, negative, false, right = found.values()
    for mode in modes("planning"):
        ours, theirs, said = mode["scorers"]["transmeter"], mode["scorers"]["short_finetune"], intervals(mode)
        tau.append(ours["weighted_tau"])
        half.append(mode["ceiling"])
        regret.append(ours["regret_1"])
        rival.append(in_order(theirs["weighted_tau"][0], theirs["transmeter_ahead_in_tau"]))
        rival_regret.append(theirs["regret_1"][0])
        cover.append([said["coverage"], said["pairs"], mode["width_pp"]])
        negative.append([said["auroc"], said["calibration_error"]])
        false.append(said["false_helps"])
        right.append(said["found_helps"])
        others = {name: r for name, r in mode["scorers"].items() if name != "transmeter"}
        assert max(others, key=lambda name: others[name]["weighted_tau"][0]) == "short_finetune"
    assert_rows(tables(text)[0], found)
    pooled = load("rank_quality.json")["pooled_truth"]
    assert_says(
        text,
        "planning's tau is {} ({} to {}), of {} that one half of its repeats has with the other (0.85 of that was "
        "aimed "
        "at); the short fine-tune's is {}, LEEP's {}",
        *in_order(pooled["transmeter"], *(pooled[k][0] for k in ("half of it", "short_finetune", "leep"))),
    )
    low, high = map(intervals, modes("planning"))
    assert_says(text, "Intervals hold the ground truth in {} and {} %", low["coverage"], high["coverage"])
    assert_says(section("figures.md", "Ranking"), "{} targets of two classes", load("rank_quality.json")["targets"])


def test_few_labels_in_words():
    text = section("figures.md", "Few labels")
    low, high = modes("few")
    plan = modes("planning")
    five, twenty = (mode["scorers"]["transmeter"]["weighted_tau"] for mode in (low, high))
    leads = [mode["scorers"]["short_finetune"]["transmeter_ahead_in_tau"] for mode in (low, high)]
    seconds = [mode["scorers"]["transmeter"]["seconds"] for mode in (low, plan[0])]
    assert_says(
        text,
        "weighted tau {} ({} to {}) and {} ({} to {}) of {} and {}, ahead of a short fine-tune in the same time by "
        "{} ({} "
        "to {}) and {} ({} to {}); intervals hold in {} and {} %. It takes {} s a target, planning {}: {} times",
        *in_order(five, twenty, low["ceiling"], high["ceiling"], *leads),
        *(intervals(mode)["coverage"] for mode in (low, high)),
        *seconds,
        seconds[0] / seconds[1],
    )
    prior = load("prior.json")
    few, more = (prior[kind] for kind in KINDS)
    assert_says(text, "measured pairs: {} of {} targets", few["pairs"] + more["pairs"], few["cells"])
    sentence = "leaves a user with {} and {} points; all sources together, with no ranking at all, with {} and {}"
    picked = [each[key][0] for key in ("taken_if_likely", "all_together") for each in (few, more)]
    assert_says(text, sentence, *picked)
    errors = [prior[kind]["calibration_error"] for kind in KINDS + REAL]
    assert_says(text, "is off by {} and {} in the mean, of real pairs by {} and {}", *errors)
    trust = page("trust.md")
    assert_says(
        trust,
        "leaves you with {} points at 5 labels per class and {} at more, all sources together with {} and {}",
        *picked,
    )
    assert_says(trust, "by {} and {} with few labels ({} and {} of real pairs), by", *errors)
    assert_says(trust, "learned on {} pairs; the result", few["pairs"] + more["pairs"])
    false = [100 * prior[kind]["false_likely"] for kind in KINDS + REAL]
    assert_says(
        text,
        "at {} to {} % of the sources without a gain ({} to {} % of real ones)",
        false[1],
        false[0],
        false[3],
        false[2],
    )
    lost = tables(load("prior.md"))[1]
    tau = {key: [numbers(value)[0] for value in values] for key, values in lost.items()}
    whole = tau["all features"]
    for what, key in (
        ("falls by", "without the fit on labelled rows"),
        ("reconstruction) by", "without Transmeter's terms"),
    ):
        assert_says(text, what + " {} and {}", *(round(a - b, 2) for a, b in zip(whole, tau[key])))
    assert tau["without a short transfer"] == whole  # so that it does not fall
    joins = tables(load("prior_joins.md"))[0]
    ours = [float(value) for value in joins["forest of the features, joined (rank)"][::2]]
    seen = [float(value) for value in joins["it sees the measured gain and its error"][::2]]
    assert all(0 < b - a < 0.03 for a, b in zip(ours, seen)) and "explain a little more" in " ".join(text.split())
    best = max(numbers(values[place])[0] for key, values in joins.items() for place in (1, 3) if key[:6] != "forest")
    assert best <= numbers(joins["forest of the features, joined (rank)"][1])[0] + 0.01
    twenty_labels = load("twenty_labels.txt")
    draws = re.findall(r"^draw \d+: first (\w+); (.*)", twenty_labels, re.MULTILINE)
    said = sum(verdict != "no evidence of any" for _, verdict in draws)
    assert (len(draws), said, {first for first, _ in draws}) == (10, 5, {"heart_hungarian"})
    assert "contradicts: 0 of 10" in twenty_labels and "five of ten give one" in " ".join(text.split())


def test_trust():
    found, prior, without = {}, load("prior.json"), load("no_label_prior.json")
    for key, mode in zip(("planning, `--shots 5`", "planning, `--shots 20`"), modes("planning")):
        said = intervals(mode)
        tau = in_order(mode["scorers"]["transmeter"]["weighted_tau"], mode["ceiling"])
        found[key] = [tau, [said["coverage"], mode["width_pp"]], said["found_helps"], said["false_helps"]]
    names = ("5 per class in all", "the same, real pairs", "10 or more per class in all", "the same, real pairs")
    shown = [line.strip("|").split("|") for line in page("trust.md").splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in row] for row in shown if len(row) == 5][1:9]
    assert [row[0] for row in rows] == [*found, *names, "none", "none, real pairs"]
    few = []
    for kind in (KINDS[0], REAL[0], KINDS[1], REAL[1]):
        p = prior[kind]
        few.append(
            [
                in_order(p["tau"]["ranking"], p["ceiling"][0]),
                [100 * p["coverage"], p["width"]],
                [100 * p["found_helps"], 100 * p["found_likely"]],
                [100 * p["false_helps"], 100 * p["false_likely"]],
            ]
        )
    for kind in ("all pairs, all sources at once", "real pairs, all sources at once"):
        p = without[kind]
        first = "all" in kind.split()[0]
        few.append(
            [
                in_order(p["tau"]["ranking"], p["ceiling"][0]),
                [100 * p["coverage"], p["width"]],
                in_order([10] if first else [], 100 * p["helps"], 100 * p["found"]),
                in_order([1] if first else [], 100 * p["false"]),
            ]
        )
    wanted = dict(enumerate([*found.values(), *few]))
    texts = {i: [cell.replace("95 % intervals", "") for cell in row[1:]] for i, row in enumerate(rows)}
    assert_rows(texts, wanted)
    low, high = map(intervals, modes("planning"))
    sentence = "a little short when planning** ({} and {} % instead of 95)"
    assert_says(page("trust.md"), sentence, low["coverage"], high["coverage"])


def test_no_labels_in_words():
    text, prior = section("figures.md", "No labels"), load("no_label_prior.json")
    every, real = prior["all pairs, all sources at once"], prior["real pairs, all sources at once"]
    assert_says(text, "in {} groups", every["groups"])
    assert_says(text, "learned on {} pairs", every["pairs"])
    leads = [real["regret_lead"][key][0] for key in ("accuracy on itself", "mean confidence")]
    sentence = "the first pick costs {} points, {} to {} less than by these"
    assert_says(text, sentence, real["regret"]["ranking"][0], *leads)
    above = [100 * (1 - each["negative"]) for each in (every, real)]
    assert_says(text, "{} % of all pairs are above guessing ({} % of the real ones)", *above)
    assert_says(
        text,
        "less than a point it is said of {} %. *helps* is right in {} %",
        100 * real["false"],
        100 * every["right"]["helps"],
    )
    alone = prior["all pairs, one by one"]
    more = every["tau"]["ranking"][0] - alone["tau"]["ranking"][0]
    assert_says(
        text, "is worth {} of weighted tau and {} points of width", more, round(alone["width"] - every["width"])
    )


def test_quantities():
    found, text = load("quantity_quality.json"), section("figures.md", "No labels")
    summary, cells_of = found["summary"], found["cells"]
    said = summary["intervals"]
    boosting, ridge = (summary[f"ahead of pooled {name}"] for name in ("boosting", "ridge"))
    assert_says(
        text,
        "gains {} points of R2 in the mean over the best learner of the target alone, with all sources {}; it is {} "
        "({} to "
        "{}) points ahead of pooled gradient boosting and {} ({} to {}) of pooled ridge",
        summary["gain of the combination"],
        summary["gain of all together"],
        *(each[key] for each in (boosting, ridge) for key in ("mean", "low", "high")),
    )
    assert_says(
        text,
        "{} of {} intervals ({} %) of halves of the targets hold the ground truth; no source without a gain was "
        "said to "
        "help, {} % of gains of 3 points were found",
        said["coverage"] * said["pairs"],
        said["pairs"],
        100 * said["coverage"],
        100 * said["found_helps"],
    )
    assert said["false_helps"] == 0
    sources = {cell["target"]: len(cell["sources"]) for cell in cells_of}
    assert len(sources) == 5 and "five open tables" in text
    assert_says(
        text, "and {} sources, {} and {} labelled rows", sum(sources.values()), *sorted({c["shots"] for c in cells_of})
    )


def test_terms_of_the_loss():
    text, report = section("figures.md", "No labels"), load("network_terms.md")
    parts = {part.partition(",")[0]: cells(part) for part in report.split("### ")[1:]}
    whole = parts["all"]
    names = {
        "plain (cross-entropies)": "plain",
        "without the source's": "no source loss",
        "with reconstruction": "reconstruction",
        "with mean distance": "mean distance",
        "with discriminators": "discriminators",
        "all terms": "all",
    }
    found = {key: [numbers(whole[name][place]) for place in (0, 1)] for key, name in names.items()}
    found["plain (cross-entropies)"][1] = ""
    shown = next(table for table in tables(text) if set(table) == set(names))
    assert_rows(shown, found)
    shifted = parts["shifted features"]
    reconstruction, distance = (numbers(shifted[name][3]) for name in ("reconstruction", "mean distance"))
    sentence = "the network alone gains {} and {} points by reconstruction and mean distance ({} to {}, {} to {})"
    assert_says(text, sentence, reconstruction[0], distance[0], *reconstruction[1:], *distance[1:])
    disjoint = numbers(parts["disjoint columns"]["plain"][0])
    assert_says(text, "With disjoint columns the plain network adds {} ({} to {})", *disjoint)
    terms = [numbers(whole[name][1])[0] for name in ("reconstruction", "discriminators", "mean distance")]
    assert_says(page("scorers.md"), "(by {}, {} and {} points, intervals across 0)", *terms)


def test_ways_to_use_a_source():
    text = section("figures.md", "By the way that a source is used")
    five, twenty = (of(load("transfer_quality.json")["means"], shots=shots) for shots in (5, 20))
    three = ("network", "pooled", "combination")
    ways = [[part[key][way] for way in three] for key in ("heart", "all") for part in (five, twenty)]
    ways.insert(2, [[part["worst heart pair"][way] for part in (five, twenty)] for way in three])
    shown = lines(text)
    assert_rows(dict(enumerate(row[1:] for row in shown[:5])), dict(enumerate(ways)))
    assert_says(shown[0][0], "heart sites for each other, {} pairs", five["heart pairs"])
    assert_says(shown[3][0], "{} targets with 10 to 12 sources each", five["targets"])
    names = {
        "all sources at once": "all sources at once",
        "all rows pooled": "all rows pooled",
        "c575207 as told": "former build's pick",
    }
    ends = {"picked set": [part["ends with"]["picked set"] for part in (five, twenty)]}
    for key, name in names.items():
        ends[key] = [[part["ends with"][name], *part[f"picked set ahead of {name}"]] for part in (five, twenty)]
    assert_rows({row[0]: row[1:] for row in shown[5:]}, ends)
    network, pooled = (
        [part[f"combination ahead of {way}"] for part in (five, twenty)] for way in ("network", "pooled")
    )
    assert_says(
        text,
        "ahead of the network by {} ({} to {}) and {} ({} to {}) points, of pooling by {} ({} to {}) and {} ({} to {})",
        *in_order(*network, *pooled),
    )
