"""A row as a page to look at: what the model sees, document by document.

`row_html(row, layout, ...)` gives one HTML file without outside resources.
"""

from mmpack.stream.show.page import row_html

__all__ = ["row_html"]
