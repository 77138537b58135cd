"""A Chromium without a window that tests drive: it opens pages at any width and says what stands in their console."""

import fcntl
import json
import os
import select
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AXE = find_spec("axe_core_python")
# what a page shows of itself: its width and what stands out of it, and what axe finds that keeps people out
LOOK = """(async () => {
  document.querySelectorAll("details").forEach(d => { d.open = true; });
  document.getAnimations().forEach(a => { try { a.finish(); } catch { } });  // half faded in, a text has less contrast
  const room = document.documentElement.clientWidth;
  const scrolls = e => e && (!["visible", "clip"].includes(getComputedStyle(e).overflowX) && e !== document.body
    && e !== document.documentElement || scrolls(e.parentElement));
  const wide = [...document.querySelectorAll("body *")].filter(e => {
    const box = e.getBoundingClientRect();
    return box.right > room + 1 && box.width && !scrolls(e.parentElement);
  });
  const found = await axe.run({resultTypes: ["violations"]});
  return {
    room: room, width: document.documentElement.scrollWidth, passes: found.passes.length,
    wide: wide.slice(0, 3).map(e => e.outerHTML.slice(0, 200)),
    barriers: found.violations.filter(v => ["serious", "critical"].includes(v.impact))
      .map(v => [v.id, v.nodes.length, v.nodes[0].html.slice(0, 200), v.nodes[0].failureSummary]),
  };
})()"""
SECONDS = 60  # that an answer may take


class Browser:
    """A process of Chromium with one page, spoken to in the DevTools protocol through a pipe."""

    def __init__(self, profile: Path):
        there, self.writing = os.pipe()
        self.reading, back = os.pipe()
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (there, back)]  # above the two that Chromium speaks by
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
        line = [CHROMIUM, *options, f"--user-data-dir={profile}", "about:blank"]
        shell = f'exec "$@" 3<&{high[0]} 4>&{high[1]}'
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(["bash", "-c", shell, "bash", *line], pass_fds=high, **quiet)
        for fd in (there, back, *high):
            os.close(fd)
        self.session, self.number, self.rest, self.events = None, 0, b"", []
        target = self.ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        self.session = self.ask("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable", {})
        forget = "try { localStorage.clear() } catch { }"  # which scheme a page had before
        self.ask("Page.addScriptToEvaluateOnNewDocument", {"source": forget})

    def ask(self, method: str, values: dict) -> dict:
        """The answer to a command; events that come before it are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": values}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict:
        while b"\0" not in self.rest:
            assert select.select([self.reading], [], [], SECONDS)[0], "Chromium does not answer"
            more = os.read(self.reading, 1 << 20)
            assert more, "Chromium has ended"
            self.rest += more
        first, _, self.rest = self.rest.partition(b"\0")
        return json.loads(first)

    def open(self, path: Path, width: int, dark: bool = False) -> None:
        """Load a file in a window of that width, in the light or the dark scheme."""
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.events.clear()
        self.ask("Page.navigate", {"url": path.as_uri()})
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def evaluate(self, script: str) -> object:
        """The value of a JavaScript expression, or of what it promises."""
        found = self.ask("Runtime.evaluate", {"expression": script, "awaitPromise": True, "returnByValue": True})
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def look(self) -> dict:
        """What `LOOK` tells of the page, and what stands in its console."""
        self.evaluate((Path(AXE.origin).parent / "axe.min.js").read_text(encoding="utf-8") + "\n;0")
        found = self.evaluate(LOOK)
        return found | {"console": self.console()}

    def console(self) -> list[str]:
        """Errors and warnings of the page since it was opened."""
        found = []
        for event in self.events:
            values = event.get("params", {})
            if event["method"] == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
                found.append(values["entry"]["text"] + " " + values["entry"].get("url", ""))
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(values["exceptionDetails"]))
            if event["method"] == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning", "assert"):
                found.append(str(values["args"]))
        return found

    def close(self) -> None:
        """End the process."""
        os.close(self.writing)
        os.close(self.reading)
        self.process.terminate()
        self.process.wait(SECONDS)
