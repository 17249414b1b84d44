"""Memory and CPU time of a process and all it started, from /proc."""

from __future__ import annotations

import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_HZ = os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """The process `root` and its descendants, as they are now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def resident_bytes(root: int) -> tuple[int, int]:
    """(all, not from files) over the tree. Pages that several processes share count once for each."""
    whole = anonymous = 0
    for pid in tree(root):
        try:
            fields = Path(f"/proc/{pid}/statm").read_text().split()
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:  # it ended meanwhile
            continue
        whole += int(fields[1]) * _PAGE_BYTES
        for line in status.splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                anonymous += int(line.split()[1]) * 1024
    return whole, anonymous


def cpu_s(root: int) -> float:
    """User and system seconds of the tree, those of children that ended included."""
    ticks = 0
    for pid in tree(root):
        if fields := _stat(pid):
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICKS_HZ


def _stat(pid: int) -> list[str]:
    """Fields from the state on; empty if the process has ended. The name before them may hold blanks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
