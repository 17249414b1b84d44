"""HTML page of a row: the input of the model, document by document.

`row_html(row, layout, ...)` renders one HTML file without external resources; `planned_row.planned_row_html(plan, number)`
also builds the row.
"""

from mmpack.lazy import make_dir
from mmpack.show.row_page.page import row_html

__all__ = ["row_html"]

__dir__ = make_dir(__all__)
