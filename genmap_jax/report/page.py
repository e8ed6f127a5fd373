"""One self-contained HTML page from finished run folders: a table row, samples and curves for each."""

import base64
import html
import io
import json
from pathlib import Path
from typing import Any

from genmap_jax.logs import read_metrics

CONTINENTS = {
    "tractable": "explicit, tractable density",
    "approximate": "explicit, approximate density",
    "implicit": "implicit density",
}


def write_page(folders: list[Path], path: Path) -> Path:
    """Write the page for run folders that have a result.json, in order; those without one are named on it."""
    import jinja2

    environment = jinja2.Environment(loader=jinja2.PackageLoader("genmap_jax.report", "."), autoescape=True)
    runs = [run_summary(folder) for folder in folders if (folder / "result.json").exists()]
    unfinished = [folder.name for folder in folders if not (folder / "result.json").exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(environment.get_template("page.html.jinja").render(runs=runs, unfinished=unfinished))
    return path


def run_summary(folder: Path) -> dict[str, Any]:
    """What the page shows of one run folder, read from its files only."""
    result = json.loads((folder / "result.json").read_text())
    _, continent, family = result["family"].split(".")[:3]
    likelihood, distance = result.get("likelihood"), result.get("energy_distance")
    return result | {
        "family": family,
        "continent": CONTINENTS.get(continent, continent),
        "bits": f"{likelihood['bits_per_dim']:.3f} ± {likelihood['bits_per_dim_stderr']:.3f}" if likelihood else "none",
        "kind": likelihood["kind"].replace("_", " ") if likelihood else "no density",
        "distance": f"{distance['value']:.4f} ± {distance['stderr']:.4f}" if distance else "",
        "floor": f"{distance['null_floor']:.4f} ± {distance['null_stderr']:.4f}" if distance else "",
        "samples": _samples(folder),
        "curves": _curves(read_metrics(folder / "metrics.jsonl")),
        "command": _command(folder),
    }


def _samples(folder: Path) -> str:
    """The last samples, as an inline picture or text (safe HTML)."""
    last = sorted(p for p in (folder / "samples").iterdir() if p.stem.isdigit())[-1]
    if last.suffix == ".txt":
        return f'<pre tabindex="0">{html.escape(last.read_text()[:1500])}</pre>'
    data = base64.b64encode(last.read_bytes()).decode()
    return f'<img alt="samples of {html.escape(folder.name)}" src="data:image/png;base64,{data}">'


def _curves(rows: list[dict[str, Any]]) -> str:
    """Training loss, and validation bits/dim where there is one, as inline SVG."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    shown = [name for name in ("loss", "loss_d", "loss_g", "validation_bits_per_dim") if any(name in r for r in rows)]
    figure = Figure(figsize=(3.2 * len(shown), 2.2), layout="constrained")
    FigureCanvasSVG(figure)
    for i, name in enumerate(shown):
        axes = figure.add_subplot(1, len(shown), i + 1)
        points = [(row["step"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*points, strict=True), linewidth=1)
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.tick_params(labelsize=7)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="curves: {", ".join(shown)}"', 1)


def _command(folder: Path) -> str:
    command = json.loads((folder / "environment.json").read_text())["command"]
    return "python experiments/" + " ".join([Path(command[0]).name, *command[1:]])
