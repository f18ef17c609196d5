"""Plotly figures as widgets: an Output built from the figure's data, which works with a kernel and without."""

from __future__ import annotations

import json
from typing import Any

import ipywidgets

MIME = "application/vnd.plotly.v1+json"
HEIGHT = 400  # pixels, of figures that say nothing else
CLEAR = "rgba(0,0,0,0)"


def themed(figure: Any) -> Any:
    """Return a copy that sits on the page as it is, light or dark; theme.css colours text and lines."""
    copy = type(figure)(figure)
    copy.update_layout(
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        autosize=True,
        width=None,
        height=None,
        margin={"l": 60, "r": 20, "t": 40, "b": 50},
        font={"family": "system-ui, sans-serif", "size": 12, "color": "#808080"},
    )
    copy.update_traces(marker_line_width=0, selector={"type": "bar"})  # the template's white edges glare in the dark
    return copy


def outputs(figure: Any) -> tuple[dict[str, Any], ...]:
    """Return a figure as the outputs of an Output widget."""
    data = json.loads(themed(figure).to_json())
    data["config"] = {"responsive": True, "displaylogo": False, "displayModeBar": False}
    return ({"output_type": "display_data", "metadata": {}, "data": {MIME: data}},)


def show_figure(figure: Any) -> ipywidgets.Output:
    """Return a widget that shows a figure."""
    height = figure.layout.height or HEIGHT  # the box has the height and the figure fills it: it survives every resize
    output = ipywidgets.Output(outputs=outputs(figure), layout=ipywidgets.Layout(height=f"{height}px"))
    output.add_class("crm-figure")
    return output
