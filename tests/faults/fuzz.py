"""Generated bad inputs: tables, jobs, rankings, stores, classifiers, options; each must end with exit 2, one line."""

import json
import random
import string
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

GOOD = "x,y,label\n" + "".join(f"{i},{i % 3},{i % 2}\n" for i in range(20))
JOB = "targets: good.csv\nsources: ['*.csv']\nscorers: [{name: knn, set: {steps: 3}}]\nshots: 5\nseed: 1\n"
RANKING = {
    "target": "t", "metric": "accuracy", "shots": 5, "repeats": 2, "budget": None, "seed": 0, "scorer": "knn",
    "options": {}, "encoder": None, "match": "name", "rows": [],
}  # fmt: skip


@dataclass(frozen=True)
class Bad:
    """A command line and the file that it reads."""

    kind: str
    words: tuple[str, ...]
    name: str
    content: bytes


def bad_inputs(seed: int, count: int) -> Iterator[Bad]:
    """`count` bad inputs, all kinds in turn; the same for the same seed."""
    draw = random.Random(seed)
    kinds = (_table, _job, _ranking, _store, _options, _classifier)
    for number in range(count):
        yield kinds[number % len(kinds)](draw)


def wrong(case: Bad, folder: Path) -> str | None:
    """What the command did that it must not, or None; the file is written to `folder` first."""
    import cli

    (folder / "good.csv").write_text(GOOD)
    (folder / case.name).parent.mkdir(exist_ok=True)
    (folder / case.name).write_bytes(case.content)
    before = sorted(folder.rglob("*"))
    words = [word.replace("DIR", str(folder)) for word in case.words]
    if case.kind == "classifier":
        return _loads(folder / case.name)
    found = CliRunner().invoke(cli.main, words)
    told = [line for line in found.stderr.splitlines() if line.startswith("Error:")]
    if found.exit_code != 2:
        return f"exit {found.exit_code} of {words}: {found.exception!r} {found.output[-200:]} {case.content[:200]!r}"
    if len(told) != 1 or found.stderr.splitlines()[-1] != told[0]:
        return f"not one line: {found.stderr[-300:]}"
    if "Traceback" in found.output or sorted(folder.rglob("*")) != before:
        return f"written: {sorted(set(folder.rglob('*')) - set(before))}"
    return None


def _loads(path: Path) -> str | None:
    from transmeter.network.source import load_classifier

    try:
        load_classifier(path)
    except ValueError as error:
        return None if "delete it" in str(error) else str(error)
    return "a crafted classifier was loaded"


def _noise(draw: random.Random, most: int = 200) -> bytes:
    return draw.randbytes(draw.randrange(1, most))


def _word(draw: random.Random) -> str:
    return "".join(draw.choices(string.ascii_lowercase + "-_ é<>'\"", k=draw.randrange(1, 12))) + "q"


def _table(draw: random.Random) -> Bad:
    ending = draw.choice(
        ["csv", "tsv", "parquet", "jsonl", "npz", "arff", "csv.gz", draw.choice(["xls", "txt", "pkl", "h5"])]
    )
    rows = [f"{draw.random():.3f},{draw.randrange(3)},{i % 2}" for i in range(20)]
    content = draw.choice(
        [
            _noise(draw),
            b"",
            b"x,y,label\n",
            "\n".join(["x,y,outcome", *rows]).encode(),  # no label column
            "\n".join(["x,y,label", *(r[:-1] + "1" for r in rows)]).encode(),  # one class
            "\n".join(["x,y,label", *rows, "1,2,3,4,5,6,7"]).encode(),
            "\n".join(["x,y,label", *rows, f"{'inf' if draw.random() < 0.5 else '1e200'},1,1"]).encode(),
            "\n".join(["x,x,label", *rows]).encode(),
            "\n".join(["x,y,label", *(f"2020-01-{i + 1:02},1,{i % 2}" for i in range(20))]).encode(),
            "\n".join(["x,y,label", *(f"1,1,{i % 2}" for i in range(20))]).encode(),  # nothing varies
            ("\n".join(["x,y,label", *rows]) + "\n").encode("utf-16"),
        ]
    )
    name = f"{draw.choice(['bad', 'a b', 'x=y', '<script>'])}.{ending}"
    return Bad("table", ("rank", f"t=DIR/{name}" if "=" in name else f"DIR/{name}", "DIR/good.csv"), name, content)


def _job(draw: random.Random) -> Bad:
    lines = JOB.splitlines()
    place = draw.randrange(len(lines))
    key = lines[place].partition(":")[0]
    lines[place] = draw.choice(
        [
            f"{_word(draw)!r}: 1",
            f"{key}: {{{key}: [{{}}]}}",
            f"{key}: [[{draw.random()}]]",
            f"{key}: !!python/object/new:os.system [{_word(draw)!r}]",
            f"{key}: *nothing",
            f"{lines[place]}\n{lines[place]}",
            f"{key}: [",
            f"{key}: -{draw.randrange(1, 100)}.5",
            "sources: /etc/*",
            "targets: ../../../*",
            f"scorers: [{_word(draw)!r}]",
            "scorers: [{name: knn, set: {steps: -0.5}}]",
            "scorers: [{name: knn, set: {seconds: 3}}]",
            "targets: [nothing_*.csv]",
            "\t" + lines[place],
        ]
    )
    text = "\n".join(lines).encode() + b"\n" if draw.random() < 0.9 else b"\xff" + _noise(draw)
    words = ("batch", "DIR/bad.yaml", "--store", "DIR/s.sqlite", "--cache", "DIR/cache")
    return Bad("job", words, "bad.yaml", text)


def _ranking(draw: random.Random) -> Bad:
    found: object = dict(RANKING)
    how = draw.randrange(5)
    if how == 0:
        del found[draw.choice(list(RANKING))]
    elif how == 1:
        found[_word(draw)] = draw.random()
    elif how == 2:
        found["rows"] = draw.choice([None, 3, [3], [{"rank": 1}], [[]], {"a": 1}])
    elif how == 3:
        found = draw.choice([None, [], 3, "ranking", [found]])
    text = json.dumps(found).encode()
    if how == 4:
        text = _noise(draw) if draw.random() < 0.5 else text[: draw.randrange(1, len(text) - 1)]
    words = ("validate", "DIR/good.csv", "s=DIR/good.csv", "--ranking", "DIR/bad.json")
    return Bad("ranking", words, "bad.json", text)


def _store(draw: random.Random) -> Bad:
    content = draw.choice([_noise(draw, 3000), b"", b"SQLite format 3\0" + _noise(draw, 3000), GOOD.encode()])
    words = draw.choice([("status",), ("results",)])
    return Bad("store", (*words, "DIR/bad.sqlite"), "bad.sqlite", content)


def _options(draw: random.Random) -> Bad:
    batch = ("batch", "--store", "DIR/s.sqlite", "--targets", "DIR/good.csv", "--sources", "DIR/bad.csv")
    rank = ("rank", "DIR/good.csv", "DIR/bad.csv")
    number = str(-draw.randrange(1, 10**9))
    given = draw.choice(
        [
            (*batch, draw.choice(["--shots", "--repeats", "--workers"]), number),
            (*batch, draw.choice(["--pair-timeout", "--memory"]), draw.choice([number, "0", _word(draw)])),
            (*batch, draw.choice(["--metric", "--engine", "--scorer"]), _word(draw)),
            (*batch, "--address", _word(draw)),
            (*batch, f"--{_word(draw).strip('- ')}x"),
            (*rank, draw.choice(["--shots", "--repeats", "--seed"]), draw.choice([number, _word(draw)])),
            (*rank, draw.choice(["--metric", "--scorer", "--match", "--format"]), _word(draw)),
            (*rank, "--budget", draw.choice([number, "0s", _word(draw)])),
            (*rank, "--set", draw.choice([_word(draw), f"{_word(draw)}={number}", "steps=x", "variant=x"])),
            (*rank, "--out", f"DIR/nowhere/{draw.randrange(99)}.json"),
            (*rank, "--label", _word(draw)),
            ("results", f"DIR/{draw.randrange(99)}.sqlite"),
        ]
    )
    return Bad("options", given, "bad.csv", GOOD.replace("0,0,0", "7,0,0").replace("label", "outcome").encode())


def _classifier(draw: random.Random) -> Bad:
    shape = [draw.randrange(0, 5) for _ in range(draw.randrange(0, 4))]
    size = 4
    for n in shape:
        size *= n
    about = {"branch.transform.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}
    if draw.random() < 0.5:
        about["trunk.head.weight"] = dict(about["branch.transform.weight"])
    header = json.dumps(about).encode()
    length = struct.pack("<Q", len(header) if draw.random() < 0.6 else draw.randrange(2**63))
    content = draw.choice([length + header + bytes(size), length + header, _noise(draw), b"\x80\x04cos\nsystem\n."])
    return Bad("classifier", (), "bad.safetensors", content)
