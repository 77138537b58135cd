"""Charts as SVG with one look, in light colours that a page may swap for dark ones."""

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from transmeter.util.charts import BAND, COLOURS, INK

if TYPE_CHECKING:
    from altair import TopLevelMixin

GRID, RULE = "#d8d8d8", "#8c8c8c"
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "triangle-right")  # not as many as colours
DARK = {
    **{INK: "#e8e8e8", GRID: "#3c3f44", RULE: "#85898f", BAND: "#26292e"},
    **{"#0072B2": "#4aa8e0", "#D55E00": "#f08a45", "#009E73": "#2fc197", "#CC79A7": "#dc97bd", "#767676": "#a2a2a2"},
}
PHONE = 410  # width of a picture that fits a phone when drawn at 0.8
FONT = "Helvetica, Arial, sans-serif"
_AXIS = {"labelColor": INK, "titleColor": INK, "titleFontWeight": "normal", "labelFontSize": 10, "titleFontSize": 11}
CONFIG = {
    "aria": False,  # the page describes the whole picture
    "background": None,
    "font": FONT,
    "view": {"stroke": None},
    "axis": _AXIS | {"gridColor": GRID, "domainColor": RULE, "tickColor": RULE, "titlePadding": 6},
    "axisY": {"grid": False},
    "legend": _AXIS | {"symbolStrokeWidth": 1, "symbolLimit": 0, "columns": 3, "labelLimit": 0},
    "header": _AXIS,
    "title": {"color": INK, "fontSize": 12, "fontWeight": "normal"},
    "text": {"color": INK, "fontSize": 9.5},
}
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_SVG = "http://www.w3.org/2000/svg"
_DROPPED = (
    "class",
    "pointer-events",
    "font-family",
    "stroke-miterlimit",
    "aria-hidden",
    "role",
    "aria-roledescription",
    "aria-label",
)  # vega's, of no use here


def styles(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """A colour and a marker for every name."""
    each = range(len(names))
    return [COLOURS[i % len(COLOURS)] for i in each], [SHAPES[i % len(SHAPES)] for i in each]


def svg(chart: "TopLevelMixin", name: str = "chart", alt: str = "") -> str:
    """The chart as an <svg> element whose ids begin with `name`, described by `alt`; nothing is fetched."""
    import vl_convert

    drawn = vl_convert.vegalite_to_svg(_plain(chart.to_dict(validate=False) | {"config": CONFIG}), allowed_base_urls=[])
    root = ElementTree.fromstring(drawn)
    for element in root.iter():
        for key in _DROPPED:
            element.attrib.pop(key, None)
        if element.get("opacity") == "1":
            del element.attrib["opacity"]
        if "id" in element.attrib:
            element.set("id", f"{name}-{element.get('id')}")
        for key, value in element.attrib.items():
            if value.startswith("url(#"):
                element.set(key, value.replace("url(#", f"url(#{name}-", 1))
    width, height = (float(root.attrib.pop(k)) for k in ("width", "height"))
    root.attrib |= {"role": "img", "aria-label": alt, "font-family": FONT}
    least = 0.8 * width if width <= PHONE else width  # what does not fit a phone scrolls, at a size that can be read
    root.set("style", f"width:100%;min-width:{least:.0f}px;max-width:{1.3 * width:.0f}px")
    ElementTree.register_namespace("", _SVG)
    return ElementTree.tostring(root, encoding="unicode")


def _plain(value: object) -> object:
    """A specification without NaN and infinity, and without the characters on which vl-convert ends the process."""
    if isinstance(value, str):
        return _NO_XML.sub("\ufffd", value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
