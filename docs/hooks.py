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
CODE = re.compile(r'(<div class="language-(?:sh|console) .*?</pre>|<pre>.*?</pre>|<code>[^<]*</code>)', re.DOTALL)
# a tag, or a word of commands with a hyphen in it, at which a line could end, and no longer than a phone is wide
HYPHENED = re.compile(r"<[^>]+>|((?<![\w./=-])(?=[\w./=-]{2,34}(?![\w./=-]))[\w./=]*-[\w./=-]*)")


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
        latex = html.unescape(found[2]).strip()
        return convert(latex, display="inline") if found[1] == "(" else "".join(map(_formula, latex.split(r"\qquad")))

    content = re.sub(r"\\([(\[])(.+?)\\[)\]](?=</(?:span|div)>)", mathml, content, flags=re.DOTALL)
    return "".join(map(_unbroken, CODE.split(content)))


def _formula(latex: str) -> str:
    r"""A displayed formula, in parts where it may go on in the next line: at \allowbreak."""
    parts = (convert(part.strip(), display="block") for part in latex.split(r"\allowbreak"))
    return f'<span class="formula">{"".join(parts)}</span>'


def _unbroken(part: str) -> str:
    """A part of a page, in which no line ends between a number and its %, in short code, or in an option's name."""
    if part.startswith("<code>") and len(html.unescape(part)) <= SHORT:
        return part.replace("<code>", '<code class="short">')
    if part.startswith(("<code>", "<div")):
        return HYPHENED.sub(lambda found: f'<span class="whole">{found[0]}</span>' if found[1] else found[0], part)
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
