"""The error classes of mmpack.

Every error carries a *message* (what is wrong), a *location* (`where`: file, stream or key) and a *hint* (what to do).
The command line prints them in one line and exits with a non-zero code. Library users catch :class:`MmpackError`.
"""

from __future__ import annotations


class MmpackError(Exception):
    """The base class of all errors that mmpack raises on purpose.

    Args:
        message: what is wrong, in one sentence without a full stop.
        where: file, stream, key or position that the error is about; empty if there is none.
        hint: what the user can do about the error; empty if nothing helps.
    """

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        self.message = message
        self.where = where
        self.hint = hint
        super().__init__(message)

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}. {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[object, ...]:
        # Errors are sent between worker processes, and the default pickling loses keyword-only arguments.
        return _unpickle_error, (type(self), self.message, self.where, self.hint)


def _unpickle_error(type_: type[MmpackError], message: str, where: str, hint: str) -> MmpackError:
    return type_(message, where=where, hint=hint)


class ConfigError(MmpackError):
    """A setting that is unknown, has the wrong type or contradicts another setting."""


class DataError(MmpackError):
    """A recording or sample that cannot be read, or whose content cannot be true."""


class ClockError(DataError):
    """Timestamps that are implausible on their clock, or two clocks without a map between them."""


class QuarantineError(MmpackError):
    """More quarantined slices or samples than the settings allow."""


class StorageError(MmpackError):
    """A failed read or write of a file or object (full disk, no permission, missing object)."""


class IntegrityError(MmpackError):
    """Stored bytes that differ from what the index or manifest says."""


class MissingDependencyError(MmpackError):
    """An optional package that is not installed; the hint is the pip command that installs it."""
