"""Look up what a page of the docs says in benchmarks/results: its tables and its sentences.

A figure as it is written is right where the result, rounded to as many decimals, is that figure.
"""

import json
import re

from tests.test_docs import DOCS, ROOT, cells

RESULTS = ROOT / "benchmarks/results"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
SIGNED = r"([-+]?\d[\d,]*(?:\.\d+)?)"  # with the sign and the commas that a sentence may have


def page(name):
    """Text of a page of docs/, or of the README."""
    return (ROOT / name if name == "README.md" else DOCS / name).read_text(encoding="utf-8")


def section(name, title):
    """What stands below a heading, up to the next one."""
    return re.split(r"^#+ .*\n", page(name).split(f"# {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def tables(text):
    """The rows of every table by their first cell, without heads."""
    return [cells(body) for body in re.findall(r"^\|.*\n\|-.*\n((?:\|.*\n)+)", text, re.MULTILINE)]


def lines(text):
    """The rows of all tables with all their cells, as lists: where a first cell is empty or stands twice."""
    bodies = re.findall(r"^\|.*\n\|-.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [[c.strip() for c in line.strip("|").split("|")] for body in bodies for line in body.splitlines()]


def rows(text):
    """The same of all tables together."""
    return {key: values for table in tables(text) for key, values in table.items()}


def load(name):
    """Content of a file of benchmarks/results."""
    text = (RESULTS / name).read_text(encoding="utf-8")
    return json.loads(text) if name.endswith(".json") else text


def half(number):
    """Half a unit of the last decimal of a number as it is written."""
    return 0.5 * 10.0 ** -len(number.partition(".")[2])


def check(shown, measured, about=""):
    """Fail where the numbers of two texts differ by more than what was rounded away."""
    found, wanted = (NUMBER.findall(text.replace(",", "")) for text in (shown, measured))
    assert 0 < len(found) <= len(wanted), (about, shown, measured)
    for a, b in zip(found, wanted):
        # what is stored may be rounded once before; where it lacks decimals, these are zeros
        assert abs(float(a) - float(b)) <= half(a) + min(half(b), half(a) / 10) + 1e-9, (about, shown, measured)


def is_near(shown, value):
    """Whether a number as it is written is the value, rounded."""
    number = shown.replace(",", "").lstrip("+")
    return abs(float(number) - value) <= half(number) + 1e-9


def assert_says(text, sentence, *values):
    """Fail where a text lacks a sentence, or has other numbers than these in the places of its {}."""
    pattern = SIGNED.join(re.escape(part) for part in " ".join(sentence.split()).split("{}"))
    found = re.search(pattern, " ".join(text.split()))
    assert found, sentence
    assert len(found.groups()) == len(values), sentence
    assert all(map(is_near, found.groups(), values)), (sentence, found.groups(), values)


def assert_rows(shown, measured):
    """Fail where the rows of a table, by their first cell, are not these: no row more, none less, no number more.

    A cell is a number, some numbers (all that stand in it, in their order), or a text that stands there as it is.
    """
    assert set(shown) == set(measured), set(shown) ^ set(measured)
    wrong = []
    for key, wanted in measured.items():
        assert len(shown[key]) == len(wanted), key
        wrong += [(key, cell, value) for cell, value in zip(shown[key], wanted) if not is_cell(cell, value)]
    assert not wrong, wrong


def is_cell(cell, value):
    """Whether a cell says a text, a number or numbers."""
    if isinstance(value, str):
        return cell == value
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    numbers = NUMBER.findall(cell.replace(",", ""))
    return len(numbers) == len(values) and all(map(is_near, numbers, values))


def of(records, **wanted):
    """The one record of a list that has these values."""
    found = [r for r in records if all(r[k] == v for k, v in wanted.items())]
    assert len(found) == 1, wanted
    return found[0]
