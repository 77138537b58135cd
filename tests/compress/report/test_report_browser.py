"""The report in a browser: nothing in the console, no sideways scrolling on a phone, axe, light and dark."""

import pytest

from tests.compress.report.test_report import inputs, whole  # noqa: F401  the page of one input of every kind

COLOURS = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color, "
COLOURS += "getComputedStyle(document.querySelector('svg text')).fill]"
# whether every option of a command line is in one line, and one of them
OPTIONS = """[[...document.querySelectorAll(".option")].every(e => e.getClientRects().length === 1),
  document.querySelector(".card .option").textContent]"""
# words of a chart that stand out of it
CLIPPED = """[...document.querySelectorAll("svg text")].filter(t => {
  const box = t.getBoundingClientRect(), all = t.ownerSVGElement.getBoundingClientRect();
  return box.left < all.left - 1 || box.right > all.right + 1 || box.bottom > all.bottom + 1;
}).map(t => t.textContent)"""


@pytest.mark.parametrize("width, dark", [(1280, False), (360, True)], ids=["desktop in light", "phone in dark"])
def test_it_fits_its_window_and_is_accessible(whole, width, dark, browser, tmp_path):  # noqa: F811
    (tmp_path / "report.html").write_text(whole, encoding="utf-8")
    browser.open(tmp_path / "report.html", width, dark)
    found = browser.look()
    assert found["width"] <= found["room"] == width and not found["wide"]
    assert not found["barriers"] and not found["console"] and found["passes"] > 15
    assert not browser.evaluate(CLIPPED)
    assert browser.evaluate(OPTIONS) == [True, "--some-option"]
    assert browser.evaluate("getComputedStyle(document.querySelector('.card td')).display") == "table-cell"
    shown = browser.evaluate("getComputedStyle(document.querySelector('.scroll td')).display")
    assert shown == ("flex" if width == 360 else "table-cell")  # its head at the left, its text at the right
    light, ink = ("rgb(22, 24, 27)", "rgb(232, 232, 232)") if dark else ("rgb(255, 255, 255)", "rgb(26, 26, 26)")
    assert browser.evaluate(COLOURS) == [light, ink, ink]
