"""HTML and SVG as strings, in which text is always escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


class Markup(str):
    """Text that is HTML already; any other string is escaped where it is put into a tag."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str | int | float | None) -> Markup:
    """`<name attributes>children</name>`.

    Args:
        name: of the element.
        children: in order; what is no :class:`Markup` is escaped.
        attributes: escaped. A final '_' is dropped and any other becomes '-' (`class_`, `stroke_width`); None leaves
            one out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_format_attribute(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[str]) -> Markup:
    """The children one after the other; what is no :class:`Markup` is escaped."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child) for child in children))


def chip(text: str, kind: str = "special", title: str | None = None) -> Markup:
    """A small label, as special tokens are shown."""
    return tag("span", text, class_=f"chip {kind}", title=title)


def svg(width: float, height: float, *children: str, **attributes: str | int | float | None) -> Markup:
    """An SVG of these user units, stretched to the size that its class has."""
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
    """A rectangle [start, stop) of a drawing, coloured by its class."""
    inner = (tag("title", title),) if title else ()
    return tag("rect", *inner, x=start, y=top, width=stop - start, height=height, class_=kind)


def format_count(number: int, noun: str, plural: str = "") -> str:
    """'1 slice', '1,024 slices'."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _format_attribute(value: str | int | float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
