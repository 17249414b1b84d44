"""Memory and CPU time of a process and its descendants, from /proc."""

from __future__ import annotations

import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_HZ = os.sysconf("SC_CLK_TCK")


def list_tree(root: int) -> list[int]:
    """Lists the process ids of `root` and its current descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _read_stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    pids = [root]
    for pid in pids:
        pids += children.get(pid, [])
    return pids


def resident_bytes(root: int) -> tuple[int, int]:
    """Returns the resident memory of the tree, and the part of it that is not file-backed.

    A page that several processes share counts once for each of them.
    """
    resident = anonymous = 0
    for pid in list_tree(root):
        try:
            fields = Path(f"/proc/{pid}/statm").read_text().split()
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:  # the process has ended
            continue
        resident += int(fields[1]) * _PAGE_BYTES
        for line in status.splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                anonymous += int(line.split()[1]) * 1024
    return resident, anonymous


def cpu_s(root: int) -> float:
    """Returns the user and system seconds of the tree, including those of children that have ended."""
    ticks = 0
    for pid in list_tree(root):
        if fields := _read_stat(pid):
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICKS_HZ


def _read_stat(pid: int) -> list[str]:
    """Returns the fields of /proc/PID/stat from the state on; empty if the process has ended.

    The fields are split after the process name, which may contain spaces and parentheses.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
