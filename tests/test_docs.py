"""The documentation: it builds without a warning and without the network, its pages fit a desktop and a phone, and
every block on them does as it says.

On a page, `sh` and `python` blocks run in order, in the root of a clone; a `text` block right behind one is what it
prints. A block with a title is the file of that name. Other blocks (`console`) are not run.
"""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from sklearn.datasets import load_breast_cancer, load_wine

import cli
from compress.methods import methods
from tests.test_mistakes import MISTAKES
from transmeter.scorers import scorers

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"[-+]?\d+\.\d+")
# types words into the box of the search and waits for the address of the first hit
SEARCH = """(async () => {
  document.getElementById("__search").click();
  const box = document.querySelector(".md-search__input");
  box.focus();
  box.value = "lattice codebook";
  box.dispatchEvent(new Event("keyup", {bubbles: true}));
  for (let tries = 0; tries < 300; tries++) {
    const hit = document.querySelector(".md-search-result__item a");
    if (hit) return hit.href;
    await new Promise(resolve => setTimeout(resolve, 100));
  }
})()"""
# formulas that stand out of their lines
WIDE_FORMULAS = """[...document.querySelectorAll(".formula")].filter(m => m.scrollWidth > m.clientWidth + 1)
  .map(m => m.textContent)"""
# options and names of commands that go on in the next line
BROKEN_WORDS = """[...document.querySelectorAll(".whole")].filter(e => e.getClientRects().length > 1)
  .map(e => e.textContent)"""
METHOD_PAGES = ("pruning", "quantization", "other-methods")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the built site. A warning fails the build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert said.returncode == 0, said.stderr
    return folder


@pytest.fixture(scope="module")
def site(built):
    """The built pages by file name."""
    return {path.name: path.read_text(encoding="utf-8") for path in built.glob("*.html")}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The user's application folder, the same for all pages, as a reader has one."""
    return tmp_path_factory.mktemp("app")


def test_the_site_builds_without_a_warning(site):
    assert {f"{path.stem}.html" for path in PAGES} <= set(site)


def test_a_reader_needs_no_network(site):
    for name, text in site.items():
        loaded = re.findall(r'<(?:script|img|iframe|source)[^>]+src="?(https?:)?//', text)
        loaded += re.findall(r'<link(?![^>]+rel="?canonical)[^>]+href="?(https?:)?//', text)
        assert not loaded, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_fits_its_window_and_is_accessible(page, built, browser):
    """On a desktop in the light scheme, on a phone in the dark one; foldable parts unfolded, nothing in the console."""
    for width, dark in ((1280, False), (360, True)):
        browser.open(built / f"{page.stem}.html", width, dark)
        found = browser.look()
        assert found["width"] <= found["room"] == width and not found["wide"], found
        assert not found["barriers"] and not found["console"] and found["passes"] > 30, found
        assert browser.evaluate(WIDE_FORMULAS) == browser.evaluate(BROKEN_WORDS) == []
        scheme = browser.evaluate("document.body.dataset.mdColorScheme")
        assert scheme == ("slate" if dark else "default")


@pytest.mark.parametrize("width, dark", [(1280, False), (360, True)])
def test_search_finds_in_pages_that_are_opened_from_disk(width, dark, built, browser):
    browser.open(built / "index.html", width, dark)
    assert browser.evaluate("location.protocol") == "file:"
    assert Path(browser.evaluate(SEARCH)).stem == "quantization"
    found = browser.look()
    assert not found["barriers"] and not found["console"], found


def test_equations_are_mathml_and_the_reference_shows_what_is_public(site):
    assert all("<math" in site[f"{name}.html"] for name in (*METHOD_PAGES, "scorers", "trust"))
    assert not [name for name, text in site.items() if re.search(r'class="arithmatex">\\|<m[a-z]+>[^<]*\\', text)]
    public = ("transmeter.rank", "transmeter.Ranking", "transmeter.Ranking.to_frame", "transmeter.Ranking.plot")
    public += (
        "transmeter.TransferClassifier",
        "transmeter.TransferClassifier.fit",
        "transmeter.result.load",
        "transmeter.validate",
        "transmeter.transfer",
        "transmeter.check",
    )
    for name in (*public, "compress.compress", "compress.load", "compress.save"):
        assert f'id="{name}"' in site["api.html"], name
    for name in cli.main.commands:
        assert f"transmeter {name}" in site["commands.html"], name
    assert "Error" not in site["commands.html"]


@pytest.mark.parametrize("name", ["ranking", "pareto", "calibration"])
def test_pictures_hold_what_was_measured_and_are_readable_at_night(name):
    numbers = json.loads((ROOT / "benchmarks/results/pictures.json").read_text(encoding="utf-8"))
    named = {
        "ranking": [row["source"] for row in numbers["ranking"]["rows"]],
        "pareto": ["dense", *dict.fromkeys(row["method"] for row in numbers["sweep"]["rows"])],
        "calibration": list(numbers["calibration"]),
    }[name]
    root = ElementTree.parse(DOCS / f"{name}.svg").getroot()
    words = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert set(named) <= set(words) and float(root.get("width")) < 520
    style = root.find("{http://www.w3.org/2000/svg}style").text
    colours = {e.get(k) for e in root.iter() for k in ("fill", "stroke")} - {None, "none", "transparent"}
    swapped = dict(re.findall(r'\[fill="([^"]+)"\]\{fill:([^}]+)\}', style))
    assert style.startswith("@media (prefers-color-scheme: dark)") and swapped["#ffffff"] == "#16181b"
    light = {c: (contrast(c, "#ffffff"), contrast(swapped.get(c, c), "#16181b")) for c in colours - {"#ffffff"}}
    ink = light["#1a1a1a"]
    assert min(ink) > 7 and all(min(both) > 1.1 for both in light.values()), light


def contrast(first, second):
    """Ratio of the relative luminances of two colours, #rrggbb, as WCAG 2 defines it."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear))

    bright, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def cells(text):
    """Rows of the tables of a page, by their first cell."""
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_rows_have_the_cells_of_their_table(page):
    """A row that was put into another table has too many or too few."""
    text = re.sub(r"`[^`\n]*`", "code", BLOCK.sub("", page.read_text(encoding="utf-8")))
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_code_fit_a_desktop(page):
    """Longer lines go on at the left edge, where a reader takes them for the next one."""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    lines = [line for kind, _, code in blocks if kind in ("sh", "python") for line in code.splitlines()]
    assert not [line for line in lines if len(line) > 92]


def test_how_often_a_ranking_is_right_is_as_measured():
    shown = cells((DOCS / "trust.md").read_text(encoding="utf-8"))
    results = ROOT / "benchmarks/results"
    planned = (results / "rank_quality.md").read_text(encoding="utf-8").split("### ")
    for name, part in (("planning, `--shots 5`", planned[1]), ("planning, `--shots 20`", planned[2])):
        tau = re.search(r"\| transmeter \| ([^|]+) \|", part)[1]
        coverage = json.loads(re.search(r"Interval coverage: (\{.*\}), mean width ([\d.]+)", part)[1])
        width, ceiling = (float(re.search(p, part)[1]) for p in (r"mean width ([\d.]+)", r"the other: ([\d.]+\d)"))
        wanted = [f"{tau}, {ceiling:.2f}", f"{coverage['coverage']:.0%}, {width:.1f} (mean)".replace("%", " %")]
        shares = [f"*helps* {coverage[key]:.0%}".replace("%", " %") for key in ("found_helps", "false_helps")]
        assert shown[name] == wanted + shares, name
    names = ("5 per class in all", "10 or more per class in all", "the same, real pairs")
    few = cells((results / "prior.md").read_text(encoding="utf-8").partition("\n\n")[0])
    bare = cells((results / "no_label_prior.md").read_text(encoding="utf-8"))
    page = [
        row
        for row in (DOCS / "trust.md").read_text(encoding="utf-8").splitlines()
        if row.startswith(("| the same", "| none", *(f"| {n}" for n in names)))
    ]
    order = [(few, 0), (few, 2), (few, 1), (few, 3), (bare, 0), (bare, 2)]  # rows of the page, in order
    for line, (found, column) in zip(page, order, strict=True):
        wanted = [found["weighted tau"][column], found["split-half ceiling"][column].partition(" ")[0]]
        wanted += [
            f"{float(found['coverage of 95 % intervals'][column].split()[0]):.0f} %",
            found["their median width, pp"][column],
        ]
        gains = "gains of 10 pp" if found is bare else "gains of 3 pp"
        wanted += [found[f"{gains} that {said}"][column] for said in ("*help*", "at least *likely help*")]
        none = ["sources below 1 pp that at least *likely help*"]
        few_none = ["sources without gain that *help*", "sources without gain that at least *likely help*"]
        wanted += [found[key][column] for key in (none if found is bare else few_none)]
        places = [line.find(value) for value in wanted]
        assert min(places) >= 0 and places[:4] == sorted(places[:4]), (line, wanted)


def test_every_method_and_scorer_has_its_section():
    there = "".join((DOCS / f"{name}.md").read_text(encoding="utf-8") for name in METHOD_PAGES)
    assert set(re.findall(r"^## (\w+)$", there, re.MULTILINE)) == set(methods())
    there = (DOCS / "scorers.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## (\w+)$", there, re.MULTILINE)) == set(scorers())


def test_the_messages_of_the_likely_mistakes_are_told():
    told = (DOCS / "mistakes.md").read_text(encoding="utf-8")
    assert not [message for _, message in MISTAKES.values() if message not in told]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_that_are_not_run_are_real(page):
    """In the text, and in `console` blocks: the command and its options exist."""
    text = page.read_text(encoding="utf-8")
    blocks = "".join(code.replace("\\\n", " ") for kind, _, code in BLOCK.findall(text) if kind == "console")
    lines = re.findall(r"`transmeter ([^`]+)`", BLOCK.sub("", text)) + re.findall(r"^transmeter (.+)$", blocks, re.M)
    for words in map(str.split, lines):
        command = cli.main if words[0].startswith("-") else cli.main.commands.get(words[0])
        assert command or words[0] == "...", words
        known = {o for p in (command or cli.main).params for o in p.opts} | {"--help"}
        assert {w for w in words if w.startswith("--")} <= known, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_does_as_the_page_says(page, cache, tmp_path, monkeypatch):
    text = page.read_text(encoding="utf-8")
    found = [(m.start(), m.end(), *m.groups()) for m in BLOCK.finditer(text)]
    if not any(kind in ("sh", "python") for _, _, kind, _, _ in found):
        pytest.skip("nothing to run")
    _clone(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(cache))
    names: dict[str, object] = {"__name__": page.stem}
    before, printed = 0, ""
    for start, end, kind, title, code in found:
        line = text.count("\n", 0, start) + 1
        if title:
            Path(title).parent.mkdir(parents=True, exist_ok=True)
            Path(title).write_text(code, encoding="utf-8")
        elif kind == "sh":
            printed = "".join(_run(command) for command in code.replace("\\\n", " ").splitlines() if command.strip())
        elif kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile("\n" * line + code, page, "exec"), names)
            printed = out.getvalue()
        elif kind == "text" and not text[before:start].strip():
            assert _agree(code, printed), f"{page.name}, line {line}: printed was\n{printed}"
        before = end


# file names on the pages, and what a reader with other data has in their place
OTHER = {
    "data/tabular/heart_va.csv": "clinic.csv",
    "data/tabular/heart_hungarian.csv": "neighbour.csv",
    "data/tabular/heart_statlog.csv": "renamed.csv",
    "data/tabular/pima_diabetes.csv": "wines.csv",
    "data/text/math_sample.txt": "data/text/drama.txt",
    "data/text/math_heldout.txt": "data/text/web.txt",
    "data/text/math.txt": "data/text/novels.txt",
    "data/text/novels.txt": "data/text/math.txt",
    "math=": "plays=",
}
VERDICTS = ("helps", "likely helps", "no evidence", "hurts")


def _other_tables() -> None:
    """Cells of two clinics, once with other names of columns, and wines, which have nothing to do with them."""
    cells = load_breast_cancer(as_frame=True).frame.iloc[:, [*range(8), -1]].rename(columns={"target": "kind"})
    cells.iloc[:150].to_csv("clinic.csv", index=False)
    cells.iloc[150:350].to_csv("neighbour.csv", index=False)
    names = {"mean radius": "radius of the cell", "mean texture": "texture_avg", "mean area": "area (um2)"}
    cells.iloc[350:].rename(columns=names).to_csv("renamed.csv", index=False)
    wines = load_wine(as_frame=True).frame.rename(columns={"target": "kind"})
    wines[wines["kind"] < 2].to_csv("wines.csv", index=False)


def _on_other_data(page: str, blocks: int | None = None) -> list[str]:
    """What each command of a page, or of its first blocks, prints when it gets other files."""
    found = BLOCK.findall((DOCS / f"{page}.md").read_text(encoding="utf-8"))
    shell = "\n".join([code for kind, _, code in found if kind == "sh"][:blocks]).replace("\\\n", " ")
    shell = re.sub("|".join(map(re.escape, OTHER)), lambda found: OTHER[found[0]], shell)
    shell = re.sub("transmeter (rank|transfer) ", r"\g<0>--label kind ", shell)
    return [_run(command) for command in shell.splitlines() if command.strip()]


def test_the_commands_of_the_first_pages_run_on_other_data(cache, tmp_path, monkeypatch):
    """The five-minute start, and calibration data that is chosen and used, with the files of somebody else."""
    _clone(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(cache))
    _other_tables()
    ranked, trained, compressed, evaluated, _ = _on_other_data("start")
    rows = {row["source"]: row for row in json.loads(Path("ranking.json").read_text(encoding="utf-8"))["rows"]}
    assert set(rows) == {"neighbour", "renamed", "wines"} == {line.split()[2] for line in ranked.splitlines()[1:4]}
    assert all(
        row["verdict"] in VERDICTS and row["ci_low"] <= row["gain_pp"] <= row["ci_high"] for row in rows.values()
    )
    assert (
        rows["wines"]["verdict"] == "no evidence" and max(rows, key=lambda name: rows[name]["gain_pp"]) == "neighbour"
    )
    assert "texture_avg = mean texture" in ranked and any(verdict in trained for verdict in VERDICTS)
    assert "reloaded with equal logits" in compressed and "perplexity on data/text/web.txt" in evaluated
    assert all(name in Path("report.html").read_text(encoding="utf-8") for name in (*rows, "small"))
    chosen, used = _on_other_data("choose-calibration", blocks=2)
    closeness = {line.split()[0]: line for line in chosen.splitlines()[1:5]}
    assert set(closeness) == {"novels", "math", "uniform", "closeness"} and "tied" not in closeness["math"]
    assert "of novels (100%)" in chosen and "reloaded with equal logits" in used


def _clone(folder: Path) -> None:
    for name in ("transmeter", "compress", "tests", "data", "cli.py", "pyproject.toml"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder)


def _run(command: str) -> str:
    """What a line of a shell prints; transmeter in this process, since importing torch anew takes seconds."""
    words = shlex.split(command, comments=True)
    if words[:1] == ["transmeter"]:
        found = CliRunner().invoke(cli.main, words[1:])
        assert found.exit_code == 0, f"{command}\n{found.output}"
        return found.stdout
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    said = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=300, env=os.environ | {"PATH": path}
    )
    assert said.returncode == 0, f"{command}\n{said.stdout}{said.stderr}"
    return said.stdout


def _agree(shown: str, printed: str) -> bool:
    """Equal but for white space, what `...` stands for, and the last digit of decimals, as processors round."""
    words = (
        ".*?" if w == "..." else f"({NUMBER.pattern})".join(map(re.escape, NUMBER.split(w))) for w in shown.split()
    )
    found = re.fullmatch(r"\s+".join(words), printed.strip(), re.DOTALL)
    pairs = zip(NUMBER.findall(shown), found.groups()) if found else ()
    return bool(found) and all(abs(float(a) - float(b)) < 1.5 * 10.0 ** -len(a.split(".")[1]) for a, b in pairs)
