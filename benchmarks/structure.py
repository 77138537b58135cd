"""How the code is built: directions of imports, sizes, documentation and words.

    python benchmarks/structure.py

Nothing is imported, so that broken code can be measured as well. `tests/test_project.py` holds the limits.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
PLUGINS = ("learners", "scorers", "methods")  # folders where every file is one of a kind
# from the ground up: a room, or a module of a package itself, imports only what stands before it
ORDER = (
    "transmeter.util",
    "transmeter.tables",
    "transmeter.network",
    "transmeter.learners",
    "transmeter.gain",
    "transmeter.zero_shot",
    "transmeter.scorers",
    "transmeter.result",
    "transmeter.more_labels",
    "transmeter.checks",
    "transmeter.ranking",
    "transmeter.estimators",
    "transmeter.api",
    "transmeter.batch",
    "transmeter.report",
    "transmeter.commands",
    "compress.hub",
    "compress.model",
    "compress.algorithms",
    "compress.calibration",
    "compress.methods",
    "compress.evaluation",
    "compress.report",
    "compress.pipeline",
    "compress.sweep",
    "compress.gguf_files",
    "compress.export",
    "compress.recipe",
    "compress.api",
    "compress.commands",
    "cli",
)
LAZY = ("transmeter", "compress")  # their __init__.py gives names of other modules when they are asked for
# words that had a meaning of their own here; the word to use stands beside each
WORDS = {
    r"survey": "hidden states",
    r"surprise": "negative log-likelihood",
    r"\bdraws?\b|\bdrawn\b": "sample",
    r"\bexams?\b": "evaluation task",
    r"\blessons?\b": "distillation loss",
    r"(?<!ground )\btruths?\b": "ground truth",
    r"\bhonest": "interval coverage",
    r"\bfore(see|tell|told)": "predict",
    r"(?<!Pareto )\bfronts?\b(?!\.svg)": "Pareto front",
    r"\bpictures?\b": "chart",
    r"\b(rows|repeats|seconds|bits|tokens|labels|sections|folders|neurons|heads) an? \w+": "per ...",
    r"\bis no \w+:": "is not a ...",
}


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of the two packages and the command line: dotted name -> file."""
    files = [p for package in ("transmeter", "compress") for p in sorted((root / package).rglob("*.py"))]
    return {_name(path.relative_to(root)): path for path in [*files, root / "cli.py"]}


def _name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imports(known: dict[str, Path]) -> dict[str, set[str]]:
    """What every module imports of the others, at its top, in functions and through importlib.

    Imports for types alone do not count: they are never carried out.
    """
    return {name: set(_imports(ast.parse(path.read_text(encoding="utf-8")), known)) for name, path in known.items()}


def _imports(tree: ast.AST, known: dict[str, Path]) -> Iterator[str]:
    for node in _carried_out(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield from ({full, node.module} & known.keys()) if full not in known else {full}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant) and arg.value in known)


def _carried_out(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from _carried_out(node)


def place(module: str) -> int:
    """Where a module stands in `ORDER`. Raises ValueError for a new room, which has to be put there."""
    room = ".".join(module.split(".")[:2])
    if room in LAZY:
        return len(ORDER)
    return ORDER.index(room)


def upward(graph: dict[str, set[str]]) -> list[str]:
    """Imports of something that stands higher."""
    return [f"{a} -> {b}" for a in graph for b in sorted(graph[a]) if place(b) > place(a) and b not in LAZY]


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import one another, however far around: one line per group."""
    reach = {name: _reachable(graph, name) for name in graph}
    groups = {tuple(sorted(b for b in reach[a] if a in reach[b])) for a in graph if a in reach[a]}
    return [", ".join(group) for group in sorted(groups)]


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    ahead = set(graph[start])
    while ahead:
        name = ahead.pop()
        seen.add(name)
        ahead |= graph[name] - seen
    return seen


def crowded(known: dict[str, Path], limit: int = 15) -> list[str]:
    """Folders with more modules than `limit`."""
    folders = [path.parent for path in known.values() if path.name != "__init__.py"]
    return [
        f"{folder.relative_to(ROOT)}: {folders.count(folder)}"
        for folder in sorted(set(folders))
        if folders.count(folder) > limit and folder.name not in PLUGINS
    ]


def code_lines(source: str) -> int:
    """Lines without docstrings, comments and blank ones."""
    documented = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None
        for line in range(node.body[0].lineno, node.body[0].end_lineno + 1)
    }
    blank = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type not in blank]
    return len({line for t in tokens for line in range(t.start[0], t.end[0] + 1)} - documented)


def function_lengths(source: str) -> list[int]:
    """Code lines of every function, of its docstring none."""
    lines = source.split("\n")
    return [
        code_lines("\n".join(line[node.col_offset :] for line in lines[node.lineno - 1 : node.end_lineno]))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
    ]


def undocumented(path: Path) -> list[str]:
    """Public functions and classes at the top of a module whose docstring lacks a numpydoc section that it needs."""
    if path.parent.name == "commands" or path.name == "cli.py":  # a command's documentation is its help
        return []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    public = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]
    return [f"{path.relative_to(ROOT)}: {n.name}: {gap}" for n in public for gap in _gaps(n)]


def _gaps(node: ast.FunctionDef | ast.ClassDef) -> list[str]:
    text = ast.get_docstring(node) or ""
    if isinstance(node, ast.ClassDef):
        fields = [n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and not n.target.id.startswith("_")]
        has = re.search(r"^(Attributes|Parameters)\n-{4,}", text, re.MULTILINE)
        return [] if has or not fields else ["no section Attributes"]
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    told = set(re.findall(r"\w+", " ".join(re.findall(r"^[\w*, ]+(?= ?:|$)", text, re.MULTILINE))))
    gaps = [f"parameter {name}" for name in names if name not in told]
    returns = ast.unparse(node.returns) if node.returns else "None"
    if returns not in ("None", "NoReturn") and not re.search(r"^(Returns|Yields)\n-{4,}", text, re.MULTILINE):
        gaps.append("no section Returns")
    return gaps


def wrong_words(path: Path) -> list[str]:
    """Texts for users - help, docstrings of commands, errors and warnings - that hold one of `WORDS`."""
    found = []
    for line, text in _texts(ast.parse(path.read_text(encoding="utf-8")), path.parent.name == "commands"):
        for pattern, better in WORDS.items():
            word = re.search(pattern, text)
            if word:
                found.append(f"{path.relative_to(ROOT)}:{line}: '{word[0]}', better '{better}'")
    return found


def _texts(tree: ast.AST, commands: bool) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc or isinstance(node, ast.Call) and _tells(node):
            yield from ((n.lineno, n.value) for n in ast.walk(node) if isinstance(n, ast.Constant) and _text(n.value))
        elif commands and isinstance(node, ast.FunctionDef) and node.decorator_list:
            yield node.lineno, ast.get_docstring(node) or ""
        elif isinstance(node, ast.keyword) and node.arg == "help" and isinstance(node.value, ast.Constant):
            yield node.value.lineno, node.value.value


def _tells(node: ast.Call) -> bool:
    return ast.unparse(node.func) in ("warnings.warn", "warn", "click.echo", "tell")


def _text(value: object) -> bool:
    return isinstance(value, str) and " " in value


def quantile(values: list[int], share: float) -> int:
    """The value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def measure(root: Path = ROOT) -> dict[str, object]:
    """All figures, by name; what has to be mended is listed by place."""
    known = modules(root)
    graph = imports(known)
    sources = [path.read_text(encoding="utf-8") for path in known.values()]
    lengths = [n for source in sources for n in function_lengths(source)]
    files = list(known.values())
    return {
        "imports that go up": upward(graph),
        "circles": circles(graph),
        "folders with more than 15 modules": crowded(known),
        "public names without numpydoc sections": [gap for path in files for gap in undocumented(path)],
        "texts with private words": [word for path in files for word in wrong_words(path)],
        "modules": len(known),
        "code lines": sum(map(code_lines, sources)),
        "lines of cli.py": len(known["cli"].read_text(encoding="utf-8").split("\n")) - 1,
        "functions": len(lengths),
        "median lines of a function": median(lengths),
        "90th percentile": quantile(lengths, 0.9),
    }


def main() -> None:
    """Print the figures, and what has to be mended."""
    for name, value in measure().items():
        print(f"{name}: {len(value) if isinstance(value, list) else value}")
        for line in value if isinstance(value, list) else ():
            print(f"    {line}")


if __name__ == "__main__":
    main()
