"""Which tars are meant: braces and patterns, spelled out."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence

from mmpack.errors import ConfigError

MAX_URLS = 1 << 20
"""More tars than a data set of petabytes has; a pattern that gives more is a slip."""

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
_PATTERN = re.compile(r"[*?\[]")


def expand_urls(urls: str | Sequence[str]) -> list[str]:
    """Every tar that `urls` names, in order.

    `{000..012}` is every number from the first to the last, as wide as the wider of the two if one begins with zeros;
    `{a,b}` is either. In a local path `*`, `?` and `[...]` match the files that are there, sorted by name.

    Args:
        urls: paths or object store URLs.

    Raises:
        ConfigError: a pattern matches no file, there are none at all, or more than MAX_URLS.
    """
    found: list[str] = []
    for url in [urls] if isinstance(urls, str) else urls:
        for each in _expand_braces(url, MAX_URLS - len(found)):
            found += _glob_files(each)
    if not found:
        raise ConfigError("no tars", where="urls", hint="Name at least one.")
    return found


def _expand_braces(url: str, max_urls: int) -> list[str]:
    """All spellings of `url`, its first braces varying slowest."""
    spelled, parts = [""], _BRACES.split(url)
    # Between two texts, three groups: the ends of a range, or a list.
    for place in range(0, len(parts), 4):
        spelled = [each + parts[place] for each in spelled]
        if place + 1 == len(parts):
            break
        choices = _brace_choices(*parts[place + 1 : place + 4])
        if len(spelled) * len(choices) > max_urls:
            raise ConfigError(
                f"more than {MAX_URLS} tars", where=url, hint="Check the numbers in its braces."
            )
        spelled = [each + choice for each in spelled for choice in choices]
    return spelled


def _brace_choices(first: str | None, last: str | None, listed: str | None) -> Sequence[str]:
    if first is None or last is None:
        return (listed or "").split(",")
    padded = any(end.startswith("0") and end != "0" for end in (first, last))
    width = max(len(first), len(last)) if padded else 0
    start, stop = int(first), int(last)
    numbers = range(start, stop + 1) if start <= stop else range(start, stop - 1, -1)
    if len(numbers) > MAX_URLS:
        raise ConfigError(
            f"more than {MAX_URLS} tars", where=f"{{{first}..{last}}}", hint="Check the numbers."
        )
    return [f"{number:0{width}d}" for number in numbers]


def _glob_files(url: str) -> list[str]:
    if "://" in url or not _PATTERN.search(url):
        return [url]
    found = sorted(glob.glob(url))
    if not found:
        raise ConfigError("matches no file", where=url, hint="Check the path.")
    return found
