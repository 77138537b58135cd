"""What mkdocs does while it builds: equations as MathML, the commands' own help, and the drawings of benchmarks/."""

import html
import re
from pathlib import Path

from click.testing import CliRunner
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import cli

DRAWINGS = "../benchmarks/results/"  # as the pages name them, so that they show on a code host too
WIDTH = 74  # of a command's help
SHORT = len("<code></code>") + 20  # characters of code that stand in one line


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the drawings that pages show."""
    for path in sorted((Path(config.config_file_path).parent / "benchmarks/results").glob("*.svg")):
        files.append(File.generated(config, f"results/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point to the drawings in the site, put in the commands, and keep folded options out of the table of contents."""
    markdown = re.sub(r"^    ::: .+$", "\\g<0>\n        options: {heading_level: 4}", markdown, flags=re.M)
    return markdown.replace(DRAWINGS, "results/").replace("<!-- commands -->", _commands())


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    r"""Turn \(inline\) and \[displayed\] LaTeX into MathML, which browsers draw; keep short code in one line."""

    def mathml(found: re.Match) -> str:
        return convert(html.unescape(found[2]).strip(), display="block" if found[1] == "[" else "inline")

    content = re.sub(r"\\([(\[])(.+?)\\[)\]](?=</(?:span|div)>)", mathml, content, flags=re.DOTALL)
    return "".join(map(_unbroken, re.split(r"(<pre>.*?</pre>|<code>[^<]*</code>)", content, flags=re.DOTALL)))


def _unbroken(part: str) -> str:
    """A part of a page, in which no line ends between a number and its %, or in a short option."""
    if part.startswith("<code>"):
        return part.replace("<code>", '<code class="short">') if len(html.unescape(part)) <= SHORT else part
    return part if part.startswith("<pre>") else re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", part)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Name the dialog of the search for screen readers, which the theme does not."""
    return re.sub(r'(data-md-component="?search"?) (role="?dialog"?)', r'\1 \2 aria-label="Search"', output)


def _commands() -> str:
    """The help of every command, as it prints it."""
    named = [name for names in cli.main.SECTIONS.values() for name in names if name in cli.main.commands]
    found = []
    for name in ("", *dict.fromkeys([*named, *sorted(cli.main.commands)])):
        words = [*name.split(), "--help"]
        printed = CliRunner().invoke(cli.main, words, prog_name="transmeter", terminal_width=WIDTH).output
        found.append(f"## transmeter {name}\n\n```text\n{printed}```")
    return "\n\n".join(found)
