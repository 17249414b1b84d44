"""A row as a page to look at: what the model sees, document by document.

`row_html(row, layout, ...)` gives one HTML file without outside resources; `planned.planned_row_html(plan, number)`
makes the row first.
"""

from mmpack.lazy import make_dir
from mmpack.show.row_page.page import row_html

__all__ = ["row_html"]

__dir__ = make_dir(__all__)
