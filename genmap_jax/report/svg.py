"""Pictures as SVG elements that stand in a page: named, with ids of their own."""

import io
import re
from html import escape


def element(width: float, height: float, content: str, title: str, description: str = "", role: str = "img") -> str:
    """An <svg> element of a size, in its own units, that a screen reader calls `title`."""
    words = f"<title>{escape(title)}</title>" + (f"<desc>{escape(description)}</desc>" if description else "")
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {names} role="{role}" viewBox="0 0 {width:g} {height:g}">{words}{content}</svg>'


def drawn(figure, prefix: str) -> str:
    """What a matplotlib figure holds, as the content of an <svg> element in points.

    prefix: of every id, as browsers resolve an id of a page with several pictures to its first use.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "genmap", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", buffer.getvalue(), flags=re.DOTALL)
    content = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    content = re.sub(r'\bd="[^"]*"', lambda m: re.sub(r"(\d+\.\d)\d+", r"\1", m[0]), content)  # to a tenth of a point
    content = re.sub(
        r'(<image\b[^>]*?) id="[^"]*"', r"\1", content
    )  # equal pictures have equal ids, which nothing uses
    content = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{prefix}-", content)
    return re.sub(r"\s*\n\s*", " ", content).strip()
