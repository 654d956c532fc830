"""How VibeSQL tells of an error, in ``/api/query`` as in ``/api/subscribe``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from notebook_rpc.sansio.jsontext import encode
from notebook_rpc.surfaces._telling import reason
from notebook_rpc.web import JSON, Response

if TYPE_CHECKING:
    from notebook_rpc.errors import NotebookError
    from notebook_rpc.web import Request


def spell(exc: NotebookError, _: Request) -> Response:
    return failure(exc.http_status, reason(exc), exc.sqlstate)


def failure(status: int, error: str, code: str | None = None) -> Response:
    """*code* is the SQLSTATE of databases that have one."""
    return Response(status, JSON, encode({"error": error, "code": code}))
