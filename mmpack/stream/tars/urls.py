"""Expansion of braces and patterns in the URLs of tars."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence

from mmpack.errors import ConfigError

MAX_URLS = 1 << 20
"""Largest number of tars. A data set of petabytes has fewer, so a pattern that gives more is a mistake."""

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
_PATTERN = re.compile(r"[*?\[]")


def expand_urls(urls: str | Sequence[str]) -> list[str]:
    """Lists every tar that `urls` names, in order.

    `{000..012}` stands for every number from the first to the last. If one of them starts with a zero, all numbers are
    padded with zeros to the width of the wider one. `{a,b}` stands for both texts. In a local path, `*`, `?` and `[...]`
    match existing files, sorted by name.

    Args:
        urls: paths or object store URLs.

    Raises:
        ConfigError: a pattern matches no file, or there are no tars, or more than MAX_URLS.
    """
    expanded: list[str] = []
    for url in [urls] if isinstance(urls, str) else urls:
        for pattern in _expand_braces(url, MAX_URLS - len(expanded)):
            expanded += _glob_files(pattern)
    if not expanded:
        raise ConfigError("no tars are given", where="urls", hint="Name at least one tar.")
    return expanded


def _expand_braces(url: str, max_urls: int) -> list[str]:
    """Lists all expansions of the braces of `url`; the first braces vary slowest."""
    prefixes, parts = [""], _BRACES.split(url)
    # Between two texts there are the three groups of a match: the ends of a range, and a list.
    for index in range(0, len(parts), 4):
        prefixes = [prefix + parts[index] for prefix in prefixes]
        if index + 1 == len(parts):
            break
        choices = _brace_choices(*parts[index + 1 : index + 4])
        if len(prefixes) * len(choices) > max_urls:
            raise ConfigError(
                f"the braces expand to more than {MAX_URLS} tars",
                where=url,
                hint="Check the numbers in the braces.",
            )
        prefixes = [prefix + choice for prefix in prefixes for choice in choices]
    return prefixes


def _brace_choices(first: str | None, last: str | None, listed: str | None) -> Sequence[str]:
    if first is None or last is None:
        return (listed or "").split(",")
    padded = any(end.startswith("0") and end != "0" for end in (first, last))
    width = max(len(first), len(last)) if padded else 0
    start, stop = int(first), int(last)
    numbers = range(start, stop + 1) if start <= stop else range(start, stop - 1, -1)
    if len(numbers) > MAX_URLS:
        raise ConfigError(
            f"the braces expand to more than {MAX_URLS} tars",
            where=f"{{{first}..{last}}}",
            hint="Check the numbers in the braces.",
        )
    return [f"{number:0{width}d}" for number in numbers]


def _glob_files(url: str) -> list[str]:
    if "://" in url or not _PATTERN.search(url):
        return [url]
    paths = sorted(glob.glob(url))
    if not paths:
        raise ConfigError("the pattern matches no file", where=url, hint="Check the path.")
    return paths
