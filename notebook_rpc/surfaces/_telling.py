"""What becomes of a request that fails: its client is told, whatever happened.

How an error is spelt is the surface's own matter.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from notebook_rpc.errors import NotebookError
from notebook_rpc.web import RETRY_AFTER

if TYPE_CHECKING:
    from collections.abc import Callable

    from notebook_rpc.web import Handler, Request, Response

logger = logging.getLogger(__name__)

BUG: Final = "internal error; the server's log has the details"


def telling(
    handler: Handler,
    spell: Callable[[NotebookError, Request], Response],
    on_error: Callable[[str], None],
) -> Handler:
    """*handler*, with what it raises spelt for the client. *on_error* hears the slug of each error.
    Whoever has come at the wrong moment is told to come again."""

    async def told(request: Request) -> Response:
        try:
            return await handler(request)
        except NotebookError as exc:
            failure = exc
        except Exception:  # a bug of ours or of a driver: the client must get its answer
            logger.exception("%s %r failed", request.method, request.path)
            failure = NotebookError(BUG)
        on_error(failure.slug)
        response = spell(failure, request)
        if response.status == 503:
            response.headers = (*response.headers, *RETRY_AFTER)
        return response

    return told


def reason(exc: NotebookError) -> str:
    """What to tell. Never empty: some clients take an empty error for none."""
    return str(exc) or exc.slug
