"""Tables and numbers of things on a terminal."""

import pytest

from transmeter.util.counts import counted
from transmeter.util.grid import fitted, text_of

HEADS = ("model", "perplexity (95 %)", "change (95 %)", "MB", "latency ms (quartiles)", "helps")
ROW = ("13.52 (12.5 to 14.62)", "+0.078 (+0.068 to +0.087) nats", "6.89", "21.9 (18.5 to 22.4)", "")


def test_a_table_that_is_too_wide_is_turned_or_parted_and_every_cell_is_shown():
    narrow = fitted(HEADS[:3], [("a", *ROW[:2])], 80)
    assert narrow.splitlines()[1] == "a      13.52 (12.5 to 14.62)  +0.078 (+0.068 to +0.087) nats"
    turned = fitted(HEADS, [("before", ROW[0], "-", *ROW[2:]), ("after", *ROW)], 80).splitlines()
    assert [line[:22].rstrip() for line in turned] == [*HEADS] and turned[0].split() == ["model", "before", "after"]
    assert turned[1].count(ROW[0]) == 2 and turned[2].endswith("  -                      " + ROW[1])
    names = ["dense", "gptq bits=4 group=64", "round_to_nearest bits=4 group=128"]
    parts = [part.splitlines() for part in fitted(HEADS, [(name, *ROW) for name in names], 80).split("\n\n")]
    assert len(parts) > 1
    for part in parts:  # the names stand in every one
        assert [line[: len(names[-1])].rstrip() for line in part] == ["model", *names]
    shown = " ".join(line for part in parts for line in part)
    assert all(shown.count(cell) == len(names) for cell in ROW if cell) and all(head in shown for head in HEADS)
    for text in (narrow, "\n".join(turned), *("\n".join(part) for part in parts)):
        assert max(map(len, text.splitlines())) <= 80 and not any(line.endswith(" ") for line in text.splitlines())


def test_a_cell_that_is_wider_than_the_terminal_is_not_cut():
    path = "models/" + "x" * 100
    assert path in fitted(HEADS, [(path, *ROW)], 80)
    assert fitted(("model", "MB"), [], 80) == "model  MB\n"


def test_lines_are_not_read_as_markup_and_end_without_a_space():
    assert text_of("[red]a[/red] :smile: ", 80) == "[red]a[/red] :smile:\n" and text_of("", 80) == "\n"


@pytest.mark.parametrize("number, shown", [(0, "0 texts"), (1, "1 text"), (2, "2 texts"), (20_000, "20,000 texts")])
def test_a_number_stands_with_its_noun(number, shown):
    assert counted(number, "text") == shown


def test_a_noun_may_have_a_plural_of_its_own():
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]
