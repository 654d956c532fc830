"""``--allowed-paths`` for scripts: what they open, list, make or remove elsewhere is refused.

A guard rail against mistakes, not a sandbox: Python has none, and code that means to get past it
will (through ctypes, a C library, a database's own file functions). What a handler does is
judged, by a variable of its context; the server's own files are not, nor is what ``import`` reads.

The rail is an audit hook (PEP 578). A hook cannot be removed, so the process has one at most, which
does nothing where no guard is set.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import sysconfig
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import types
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

# Events, and how many of their first arguments are paths (Python, "Audit events table").
WRITES: Final[Mapping[str, int]] = {
    **dict.fromkeys(("os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.utime"), 1),
    **dict.fromkeys(("os.chmod", "os.chown", "os.chflags", "os.setxattr", "os.removexattr"), 1),
    **dict.fromkeys(("os.rename", "os.link"), 2),
    **dict.fromkeys(
        ("sqlite3.connect", "shutil.rmtree", "tempfile.mkstemp", "tempfile.mkdtemp"), 1
    ),
}
READS: Final[Mapping[str, int]] = dict.fromkeys(
    ("os.listdir", "os.scandir", "os.chdir", "os.getxattr", "os.listxattr"), 1
)
PROGRAMS: Final = frozenset(
    {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork"}
    | {"os.forkpty", "pty.spawn"}
)
# Which arguments say what folder the names, in their order, are below; -1 if it is that of the
# process. "open" has no such argument.
BELOW: Final[Mapping[str, tuple[int, ...]]] = {
    "os.remove": (1,), "os.rmdir": (1,), "os.mkdir": (2,), "os.chmod": (2,), "os.utime": (3,),
    "os.chown": (3,), "os.rename": (2, 3), "os.link": (2, 3), "shutil.rmtree": (1,),
}  # fmt: skip
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Guard:
    """What a script may reach."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """*folders* have no links in them."""
        self._folders = [str(folder) for folder in folders]
        # Packages import parts of themselves when they are first needed.
        installed = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib")}
        installed.add(sysconfig.get_path("platlib"))
        self._installed = [os.path.realpath(path) for path in installed if path]

    def check(self, event: str, arguments: tuple[Any, ...]) -> None:
        """
        Raises:
            PermissionError: it is not allowed.
        """
        if event == "open":
            path, mode, flags = arguments
            writes = bool(flags & _WRITING) or any(letter in (mode or "") for letter in "wax+")
            if mode is None and isinstance(path, str | bytes | os.PathLike):
                # os.open, and perhaps below a folder that the event does not tell.
                if not writes and _is_of_rmtree(sys._getframe(1)):  # noqa: SLF001  # it was judged
                    return
                relative = Path(os.fsdecode(path))
                if ".." in relative.parts and not relative.is_absolute():
                    raise PermissionError(errno.EACCES, "os.open: not by way of ..", str(relative))
            self._check_path(path, writes=writes)
        elif event == "os.symlink":  # where it leads may be anywhere, and is judged when it is used
            self._check_path(_below(arguments[2], arguments[1]), writes=True)
        elif event in PROGRAMS:
            message = "scripts start no programs, as nothing would bound what these reach"
            raise PermissionError(errno.EACCES, message)
        else:
            below = [arguments[at] for at in BELOW.get(event, ()) if at < len(arguments)]
            for path, folder in zip_longest(arguments[: WRITES.get(event, 0)], below):
                self._check_path(_below(folder, path), writes=True)
            for path in arguments[: READS.get(event, 0)]:
                self._check_path(path, writes=False)

    def _check_path(self, path: object, *, writes: bool) -> None:
        if isinstance(path, int) and path >= 0:  # a descriptor: somebody was allowed to open it
            return
        if not isinstance(path, str | bytes | os.PathLike):
            path = "."
        name = os.fsdecode(path)
        if name in (":memory:", os.devnull):
            return
        if name.startswith("file:"):  # SQLite's other way to name a file, and to say more
            raise PermissionError(errno.EACCES, "with --allowed-paths, no URI of a file", name)
        real = os.path.realpath(name)
        allowed = self._folders if writes else [*self._folders, *self._installed]
        if not any(
            real == each or real.startswith(each.rstrip(os.sep) + os.sep) for each in allowed
        ):
            raise PermissionError(errno.EACCES, "outside of --allowed-paths", name)


def _below(folder: object, path: Any) -> Any:
    """*path*, seen from the folder that is open as *folder*, if it is one."""
    if not isinstance(folder, int) or folder < 0 or not isinstance(path, str | bytes):
        return path
    try:
        return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))  # noqa: PTH115, PTH118  # Path has objects made for what is called often
    except OSError:  # a system without; then it is judged as if it were below the process's own
        return path


def _is_of_rmtree(frame: types.FrameType | None) -> bool:
    """Whether ``shutil.rmtree`` is at work, which opens folder after folder by its bare name."""
    while frame is not None and frame.f_globals is globals():
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename == shutil.__file__


_GUARD: Final[ContextVar[Guard | None]] = ContextVar("_GUARD", default=None)


@contextmanager
def guarded(guard: Guard | None) -> Iterator[None]:
    """Hold whatever is done in the block, and on threads that are handed its context, to
    *guard*."""
    if guard is not None:
        _install()
    token = _GUARD.set(guard)
    try:
        yield
    finally:
        _GUARD.reset(token)


def unguarded() -> AbstractContextManager[None]:
    """A block of the server's own doing."""
    return guarded(None)


@cache
def _install() -> None:
    sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    guard = _GUARD.get()
    if guard is not None:
        guard.check(event, arguments)
