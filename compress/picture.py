"""Charts as SVG with one look, in light colours that a page may swap for dark ones."""

import json
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from altair import TopLevelMixin

INK, GRID, RULE, BAND = "#1a1a1a", "#d8d8d8", "#8c8c8c", "#f0f0f0"
# Okabe & Ito 2008: told apart by colour-blind readers; every use has markers that say the same
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#767676")
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "triangle-right")  # not as many as colours
DARK = {
    **{INK: "#e8e8e8", GRID: "#3c3f44", RULE: "#85898f", BAND: "#26292e"},
    **{"#0072B2": "#4aa8e0", "#D55E00": "#f08a45", "#009E73": "#2fc197", "#CC79A7": "#dc97bd", "#767676": "#a2a2a2"},
}
FONT = "Helvetica, Arial, sans-serif"
_AXIS = {"labelColor": INK, "titleColor": INK, "titleFontWeight": "normal", "labelFontSize": 10, "titleFontSize": 11}
CONFIG = {
    "aria": False,  # the page describes the whole picture
    "background": None,
    "font": FONT,
    "view": {"stroke": None},
    "axis": _AXIS | {"gridColor": GRID, "domainColor": RULE, "tickColor": RULE, "titlePadding": 6},
    "axisY": {"grid": False},
    "legend": _AXIS | {"symbolStrokeWidth": 1, "symbolLimit": 0, "columns": 3, "labelLimit": 110},
    "header": _AXIS,
    "title": {"color": INK, "fontSize": 12, "fontWeight": "normal"},
    "text": {"color": INK, "fontSize": 9.5},
}
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_SVG = "http://www.w3.org/2000/svg"
_DROPPED = ("class", "pointer-events", "font-family", "stroke-miterlimit", "aria-hidden")  # vega's, of no use here


def svg(chart: "TopLevelMixin", name: str = "chart", alt: str = "") -> str:
    """The chart as an <svg> element whose ids begin with `name`, described by `alt`; nothing is fetched."""
    import vl_convert

    spec = json.dumps(chart.to_dict() | {"config": CONFIG}, ensure_ascii=False)
    spec = spec.encode("utf-8", "replace").decode()  # names may hold what is no text
    drawn = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    root = ElementTree.fromstring(_NO_XML.sub("", drawn))
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
    root.set("style", f"width:100%;min-width:{0.8 * width:.0f}px;max-width:{1.3 * width:.0f}px")
    ElementTree.register_namespace("", _SVG)
    return ElementTree.tostring(root, encoding="unicode")
