"""What was done to a model: its steps, what is left of every layer, and its card."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from compress.model.architectures import ARCHITECTURES
from compress.report.card import commands
from compress.report.charts import shares
from compress.report.inputs import Folder, Inputs, Json
from compress.report.quality import is_of
from compress.report.tables import KNOWN, interval, options
from transmeter.util.counts import counted

Layer = tuple[str, Json]  # class and arguments, as `modeling.changes` gives them
# panel, what all of it would be (of bits: 16), and how it is written
PACKED = (("weights not zero", 1, "{:.0%}"), ("rank", 1, "{:.0%}"), ("bits a weight", 16, "{:.3g}"))
NO_DATA = "no calibration data"
EARLIER = "The card in the folder is older than the evaluation above, which it does not know of."
SCROLLS = '<div class="wide" tabindex="0" role="group" aria-label="Table of the model card">'
FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


def sections(found: Inputs) -> list[Json]:
    """Sections on what was done to models.

    Parameters
    ----------
    found
        What the report is made from.

    Returns
    -------
    list
        One for every folder of a compressed model.
    """
    return [_section(folder, any(is_of(r, folder) for r in found.results)) for folder in found.folders]


def _section(folder: Folder, evaluated: bool) -> Json:
    """What was done to a model; `evaluated`: another section has what it reaches."""
    card = folder.card
    measured = [card.get("before") or {}, *(step.get("after") or {} for step in card["steps"])]
    done = " + ".join(f"{s['method']} {options(s)}".strip() for s in card["steps"]) or "nothing was done"
    sizes = [m["bytes"] for m in (measured[0], measured[-1]) if "bytes" in m]
    lead = f"{done}: {sizes[0] / 1e6:.2f} MB became {sizes[1] / 1e6:.2f} MB." if len(sizes) == 2 else f"{done}."
    used = card.get("calibration")
    data = f"calibrated on {counted(used['tokens'], 'token')} of {used['texts']}{_lengths(used)}" if used else NO_DATA
    panels = left(folder.config)
    return {
        "title": f"Compression: {folder.path.name}",
        "lead": lead,
        "notes": [f"Base model {card['base_model']}; {data}."],
        "figures": [_figure(panels)] if panels else [],
        "tables": [_steps(card, measured)],
        "parts": [_readme(folder.readme) | {"notes": [EARLIER] * evaluated}] if folder.readme else [],
        "commands": commands(card) or [None],
    }


def _lengths(used: Json) -> str:
    """Largest number of tokens of the sequences, where it is recorded."""
    longest = max((part.get("length") or 0 for part in used.get("parts", [used])), default=0)
    return f" in sequences of at most {longest:,}" if longest else ""


def _figure(panels: Mapping[str, Mapping[int, tuple[float, str]]]) -> Json:
    caption = "What is left of every layer, from the first at the top; grey is what there was."
    layers = sorted({layer for cells in panels.values() for layer in cells})
    rows = [[str(n), *(panels[p].get(n, (1.0, ""))[1] for p in panels)] for n in layers]
    table = {"caption": caption, "heads": ["layer", *panels], "rows": rows}
    return {
        "chart": _chart(panels),
        "caption": caption,
        "alt": f"{caption} The same as a table follows.",
        "table": table,
    }


def _steps(card: Json, measured: Sequence[Json]) -> Json:
    metric = next((m for m in KNOWN if m in measured[0]), None)
    heads = ["step", "options", "seconds", "MB", "times smaller", "parameters"]
    heads += [f"{metric} (95 %)"] if metric else []
    rows = []
    for step, found in zip([None, *card["steps"]], measured):
        row = [step["method"], options(step), f"{step['seconds']:.1f}"] if step else ["before", "", ""]
        if "bytes" in found and "bytes" in measured[0]:
            times = measured[0]["bytes"] / found["bytes"]
            row += [f"{found['bytes'] / 1e6:.2f}", f"{times:.2f}", f"{found['parameters']:,}"]
        else:
            row += [""] * 3
        rows.append([*row, *([interval(found[metric])] if metric and metric in found else [])])
    return {"caption": "Steps in order", "heads": heads, "rows": rows}


def left(config: Json) -> dict[str, dict[int, tuple[float, str]]]:
    """What is left of a model's layers: heads, neurons, weights that are not zero, rank and bits.

    Parameters
    ----------
    config
        Of the model.

    Returns
    -------
    dict
        Panel -> layer -> (share of what there was, label), each panel where any layer has lost some.
    """
    entry = ARCHITECTURES.get(str(config.get("model_type", "")).removeprefix("compressed_"))
    changed = (config.get("compressed") or {}).get("layers")
    if entry is None or not changed:
        return {}
    found = _by_block(changed, entry.blocks)
    blocks = range(_first(config, "num_hidden_layers", "n_layer", "n_layers"))
    heads = _first(config, "num_attention_heads", "n_head", "n_heads")
    width = _first(config, "hidden_size", "n_embd", "dim")
    neurons = _first(config, "intermediate_size", "n_inner", "hidden_dim") or 4 * width
    panels: dict[str, dict[int, tuple[float, str]]] = {}
    for kind, output, total, each in (
        ("attention heads", entry.attention.output, heads, config.get("head_dim") or width // heads),
        ("neurons", entry.ffn.output, neurons, 1),
    ):
        kept = {n: _inputs(found[n], output, total * each) // each for n in blocks}
        if any(count != total for count in kept.values()):
            panels[kind] = {n: (count / total, f"{count:,} of {total:,}") for n, count in kept.items()}
    for kind, whole, shape in PACKED:
        means = {}
        for n, layers in found.items():
            stored = [(value, size) for name, value, size in map(_stored, layers.values()) if name == kind]
            if stored:
                means[n] = sum(value * size for value, size in stored) / sum(size for _, size in stored)
        if means:
            panels[kind] = {n: (mean / whole, shape.format(mean)) for n, mean in means.items()}
    return panels


def _by_block(changed: Mapping[str, Layer], blocks: str) -> dict[int, dict[str, Layer]]:
    """The changed layers of every block by their names in it."""
    found: dict[int, dict[str, Layer]] = defaultdict(dict)
    for path, layer in changed.items():
        place = re.search(rf"(?:^|\.){re.escape(blocks)}\.(\d+)\.(.+)$", path)
        if place:
            found[int(place[1])][place[2]] = layer
    return found


def _first(config: Json, *keys: str) -> int:
    return next((int(config[k]) for k in keys if config.get(k)), 0)


def _inputs(layers: Mapping[str, Layer], output: str, usual: int) -> int:
    """Features that enter the projection `output` of a block, which its heads or neurons give."""
    if any(kind == "NoAttention" and output.startswith(f"{name}.") for name, (kind, _) in layers.items()):
        return 0
    kind, spec = layers.get(output, ("", {"in_features": usual}))
    return int(spec["packed"]["columns"] if kind == "PackedLinear" else spec["in_features"])


def _stored(layer: Layer) -> tuple[str, float, int]:
    """(panel, value, weights) of a layer that is stored in another way; the panel is empty for one that is not."""
    kind, spec = layer
    if kind == "LowRankLinear":
        full = min(spec["in_features"], spec["out_features"])
        return "rank", spec["rank"] / full, full
    if kind != "PackedLinear":
        return "", 0.0, 0
    form, size = spec["packed"], spec["packed"]["rows"] * spec["packed"]["columns"]
    if form["form"] == "Bitmask":
        return "weights not zero", form["nonzeros"] / max(size, 1), size
    return "bits a weight", form["bits"] / form.get("width", 1), size


def _chart(panels: Mapping[str, Mapping[int, tuple[float, str]]]) -> Any:
    """A column of bars for every panel, a bar for every layer."""
    numbers = sorted({n for cells in panels.values() for n in cells})
    scale, columns = alt.Scale(domain=numbers, padding=0.15), []
    for place, (panel, cells) in enumerate(panels.items()):
        values = [{"layer": n, "share": share, "label": label} for n, (share, label) in cells.items()]
        title, axis = (None, None) if place else ("layer", alt.Axis(ticks=False, domain=False))
        base = alt.Chart(alt.Data(values=values)).encode(y=alt.Y("layer:O", title=title, axis=axis, scale=scale))
        width = max(50, 260 // len(panels) - 40)
        columns.append(shares(base).properties(title=panel, width=width, height=alt.Step(17)))
    return alt.hconcat(*columns, spacing=8)


def _readme(text: str) -> Json:
    """The model card as HTML: none of its own HTML, no images, and headings below those of the page."""
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    front = FRONT_MATTER.match(text)
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = reader.parse(text[front.end() :] if front else text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + 3)}"
    html = reader.renderer.render(tokens, reader.options, {})
    html = html.replace("<table>", f"{SCROLLS}<table>").replace("</table>", "</table></div>")
    return {"title": "Model card", "html": Markup(html), "preformatted": front[1] if front else ""}
