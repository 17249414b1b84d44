"""Builders of HTML and SVG strings that always escape text."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


class Markup(str):
    """A string that contains HTML. Every other string is escaped when it becomes part of a tag."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str | int | float | None) -> Markup:
    """Returns `<name attributes>children</name>`.

    Args:
        name: name of the element.
        children: content in order; a string that is not :class:`Markup` is escaped.
        attributes: attributes by name, escaped. In a name, a final '_' is removed and every other '_' becomes '-'
            (`class_`, `stroke_width`). An attribute with the value None is omitted.
    """
    attribute_text = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_format_attribute(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{attribute_text}>{join(children)}</{name}>")


def join(children: Iterable[str]) -> Markup:
    """Concatenates the children; a string that is not :class:`Markup` is escaped."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child) for child in children))


def chip(text: str, kind: str = "special", title: str | None = None) -> Markup:
    """Returns a small label, as for special tokens; `kind` is its CSS class."""
    return tag("span", text, class_=f"chip {kind}", title=title)


def svg(width: float, height: float, *children: str, **attributes: str | int | float | None) -> Markup:
    """Returns an SVG of `width` × `height` user units that is stretched to the size of its CSS class."""
    return tag(
        "svg",
        *children,
        viewBox=f"0 0 {_format_attribute(width)} {_format_attribute(height)}",
        preserveAspectRatio="none",
        **attributes,
    )


def svg_bar(
    start: float, stop: float, top: float, height: float, kind: str, title: str | None = None
) -> Markup:
    """Returns a rectangle from x = `start` to `stop`, coloured by the CSS class `kind`."""
    inner = (tag("title", title),) if title else ()
    return tag("rect", *inner, x=start, y=top, width=stop - start, height=height, class_=kind)


def format_count(count: int, noun: str, plural: str = "") -> str:
    """Formats a count with its noun, as in '1 slice' or '1,024 slices'."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def _format_attribute(value: str | int | float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
