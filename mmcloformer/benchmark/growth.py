"""Time and memory over the size of the image, drawn from a benchmark's results."""

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

SIDES = (224, 384, 512, 768, 1024, 1536, 2048)


def plot_growth(results: dict[str, Any], path: str | Path) -> None:
    """Draw the inference rows of square images, a line a model, both axes logarithmic.

    Args:
        results: As `run_jobs` returns them.
        path: Image file to write.
    """
    figure = Figure(figsize=(10, 4), layout='constrained')
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    rows = [r for r in results['rows'] if r['mode'] == 'inference' and 'median_ms' in r]
    for axes, field, label in zip(
        panels, ('median_ms', 'peak_mb'), ('time, ms (median)', 'peak memory, MB')
    ):
        for model in dict.fromkeys(row['model'] for row in rows):
            points = [(int(r['size'].split('x')[0]), r[field]) for r in rows if r['model'] == model]
            axes.plot(*zip(*sorted(points)), marker='o', label=model)
        axes.set(xscale='log', yscale='log', xlabel='side of the image, pixels', ylabel=label)
        axes.set_xticks(SIDES, [str(side) for side in SIDES])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
