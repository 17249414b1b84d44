"""What can go wrong, said once and clearly.

Every error of mmpack carries three things: *what* is wrong, *where* (file, stream, key), and the *mend*. The
CLI prints them in one line and exits non-zero; a library user catches :class:`MmpackError`.
"""

from __future__ import annotations


class MmpackError(Exception):
    """Base of all errors raised on purpose.

    Args:
        what: the fault, in one sentence without a full stop.
        where: file, stream, key or place it was seen at; empty if there is none.
        mend: what the user can do about it; empty if nothing helps.
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
        # Errors travel between worker processes; keyword-only arguments need this to survive pickling.
        return _unpickle_error, (type(self), self.message, self.where, self.hint)


def _unpickle_error(type_: type[MmpackError], message: str, where: str, hint: str) -> MmpackError:
    return type_(message, where=where, hint=hint)


class ConfigError(MmpackError):
    """A setting is unknown, of the wrong type, or contradicts another."""


class DataError(MmpackError):
    """A recording or sample cannot be read, or what it holds cannot be true."""


class ClockError(DataError):
    """Stamps are implausible on their clock, or two clocks would be mixed without a map."""


class QuarantineError(MmpackError):
    """More was set aside than the run allows."""


class StorageError(MmpackError):
    """The target or source storage refused a read or write (full disk, no permission, missing object)."""


class IntegrityError(MmpackError):
    """Bytes on storage differ from what the index or manifest says."""


class MissingDependencyError(MmpackError):
    """An optional package is needed; the mend is the pip line that installs it."""
