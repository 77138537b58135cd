"""The report in a browser: nothing in the console, no sideways scrolling on a phone, axe, light and dark."""

import html
import json
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.compress.report.test_report import inputs, whole  # noqa: F401  the page of one input of every kind

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="there is no chromium here"),
    pytest.mark.skipif(find_spec("axe_core_python") is None, reason="axe-core-python is not installed"),
]
# A window is at least 500 wide, so the page is looked at inside a frame of a phone's width. It writes what it sees.
FRAME = """<!doctype html><meta name="color-scheme" content="light dark"><iframe id="f" style="width:360px;height:800px"
 srcdoc="%s"></iframe><pre id="found"></pre><script>
const frame = document.getElementById("f");
const say = found => { document.getElementById("found").textContent = JSON.stringify(found); };
frame.onload = () => {
  const page = frame.contentDocument, root = page.documentElement;
  page.querySelectorAll("details").forEach(d => { d.open = true; });
  const shown = getComputedStyle(page.body);
  const colours = [shown.backgroundColor, shown.color, getComputedStyle(page.querySelector("svg text")).fill];
  const clipped = [...page.querySelectorAll("svg text")].filter(t => {
    const box = t.getBoundingClientRect(), all = t.ownerSVGElement.getBoundingClientRect();
    return box.left < all.left - 1 || box.right > all.right + 1 || box.bottom > all.bottom + 1;
  }).map(t => t.textContent);
  frame.contentWindow.axe.run().then(r => say({
    width: root.scrollWidth, room: root.clientWidth, colours: colours, clipped: clipped, passes: r.passes.length,
    bad: r.violations.filter(v => ["serious", "critical"].includes(v.impact)).map(v => [v.id, v.nodes[0].html]),
  })).catch(e => say({error: String(e)}));
};
</script>"""


def look(page: Path, profile: Path, dark: bool) -> tuple[str, str]:
    """The document after it ran, and what stands in the console."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
    options += ["--enable-logging=stderr", "--virtual-time-budget=30000", "--dump-dom"]
    options += ["--blink-settings=preferredColorScheme=0"] if dark else []
    done = subprocess.run([BROWSER, *options, page.as_uri()], capture_output=True, text=True, timeout=120)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_a_phone_and_is_accessible(whole, dark, tmp_path):  # noqa: F811
    axe = (Path(find_spec("axe_core_python").origin).parent / "axe.min.js").read_text(encoding="utf-8")
    without = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", whole)  # which keeps scripts out
    copy = without.replace("</head>", f"<script>{axe}</script></head>", 1)
    (tmp_path / "frame.html").write_text(FRAME % html.escape(copy), encoding="utf-8")
    text, console = look(tmp_path / "frame.html", tmp_path / "profile", dark)
    said = re.search(r'<pre id="found">(.*?)</pre>', text, re.DOTALL)
    found = json.loads(html.unescape(said[1]))
    assert not console and "error" not in found, (console, found)
    assert found["width"] <= found["room"] == 360 and not found["clipped"]
    assert not found["bad"] and found["passes"] > 15
    light, ink = ("rgb(22, 24, 27)", "rgb(232, 232, 232)") if dark else ("rgb(255, 255, 255)", "rgb(26, 26, 26)")
    assert found["colours"] == [light, ink, ink]


def test_the_page_itself_says_nothing_in_the_console(whole, tmp_path):  # noqa: F811
    (tmp_path / "report.html").write_text(whole, encoding="utf-8")
    text, console = look(tmp_path / "report.html", tmp_path / "profile", False)
    assert "<svg" in text and not console
