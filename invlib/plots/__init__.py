"""plot_*(data, ax=None) -> Axes: figures in one style; `picture` and `table` put them on a page.

One colour means one thing throughout the notebooks (`style.MEANINGS`). Nothing is shown or saved here.
"""

from invlib.plots.cells import plot_logit_lens, plot_order, plot_token_gradients, plot_trajectory
from invlib.plots.lines import (
    plot_confidence,
    plot_gain,
    plot_intervals,
    plot_modulation,
    plot_panels,
    plot_plane,
    plot_reliability,
    plot_scores,
    plot_spectrum,
    plot_sweep,
)
from invlib.plots.picture import Picture, marked, picture, table
from invlib.plots.style import FRAME, MASKED, REFERENCE, WIDTH, use_style

__all__ = ["FRAME", "MASKED", "REFERENCE", "WIDTH", "Picture", "marked", "picture", "plot_confidence", "plot_gain"]
__all__ += ["plot_intervals", "plot_logit_lens", "plot_modulation", "plot_order", "plot_panels", "plot_plane"]
__all__ += ["plot_reliability", "plot_scores", "plot_spectrum", "plot_sweep", "plot_token_gradients"]
__all__ += ["plot_trajectory", "table", "use_style"]
