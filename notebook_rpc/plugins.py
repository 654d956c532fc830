"""Finding drivers. They register in the entry-point group ``notebook_rpc.drivers``, ours too."""

from __future__ import annotations

import difflib
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Final, cast

from notebook_rpc.errors import InvalidParams, MissingDriver

if TYPE_CHECKING:
    from notebook_rpc.driver import Driver

GROUP: Final = "notebook_rpc.drivers"


def load_driver(name: str) -> Driver:
    """The driver that URLs beginning with *name* mean.

    Raises:
        InvalidParams: there is none; the message has the nearest names.
        MissingDriver: there is one, but what it needs is not installed.
    """
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        near = difflib.get_close_matches(name, found, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(found))}"
        raise InvalidParams(f"there is no driver {name!r}; {hint}")
    try:
        return cast("Driver", found[name].load())
    except ImportError as exc:
        reason = f"the driver {name!r} cannot be loaded: {exc}{_remedy(found[name])}"
        missing = MissingDriver(reason)
        missing.module = exc.name or name
        raise missing from exc


def _remedy(entry: EntryPoint) -> str:
    """How to get what a driver needs: by convention, an extra of the driver's own name has it."""
    extras = entry.dist.metadata.get_all("Provides-Extra") if entry.dist else None
    if entry.dist is None or entry.name not in (extras or ()):
        return ""
    return f"; pip install '{entry.dist.name}[{entry.name}]' brings it"
