"""One connection to PostgreSQL, through libpq: statements out, results in, errors translated.

psycopg opens the connection and reads the values; its cursors are not used, because none of them
sends a transaction, a cursor and the first rows in one go, or leaves ``%`` alone.

It refuses to decide what is sent, and to interrupt anything but the call that runs.
"""

from __future__ import annotations

import logging
import math
import os
import selectors
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import psycopg
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, TransactionStatus

from notebook_rpc.errors import (
    Cancelled,
    Conflict,
    DatabaseError,
    DatabaseUnavailable,
    NotebookError,
    NotSupported,
    QueryError,
    UnknownTable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from psycopg.pq.abc import PGresult

logger = logging.getLogger(__name__)

Values: TypeAlias = "Sequence[bytes | None] | None"
Query: TypeAlias = "tuple[bytes, Values]"
"""SQL with ``$1``, and the text of each value. Their types are left to PostgreSQL, as those of
quoted literals are."""

# Seconds for telling the server to stop: what waits is a thread of its own, and the end of the
# call that is to be stopped.
_CANCEL_SECONDS: Final = 5.0
_PATIENCE: Final = 5.0  # seconds for the server to react to an interrupt
_LOOK: Final = 0.5  # seconds between two looks at whether they are over

# Not DefaultSelector: epoll would take a file descriptor more for each connection. Not
# select.select alone: it knows no file descriptor above 1023.
_Selector: Final = getattr(selectors, "PollSelector", selectors.SelectSelector)

# Errors that are not the statement's fault, by the first two characters of their SQLSTATE.
_NOT_THE_STATEMENT: Final = {"08", "40", "53", "57", "58", "F0", "HV", "XX"}
_UNDEFINED_TABLE: Final = "42P01"
_LOCK_NOT_AVAILABLE: Final = "55P03"
_QUERY_CANCELED: Final = "57014"
_PROTOCOL_VIOLATION: Final = "08P01"  # also said of parameters that are missing
_CONFLICTS: Final = {"40001", "40P01"}  # serialization_failure, deadlock_detected


def failed(result: PGresult) -> bool:
    return result.status in (ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE)


def sqlstate(result: PGresult) -> str:
    return (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()


def _message(exc: psycopg.Error) -> str:
    """Not ``str(exc)``, whose "LINE 1: DECLARE ..." shows a statement that nobody wrote."""
    diag = exc.diag
    if diag.message_primary is None:
        return str(exc).strip()
    parts = (
        ("DETAIL", diag.message_detail),
        ("HINT", diag.message_hint),
        ("CONTEXT", diag.context),
    )
    return "\n".join([diag.message_primary, *(f"{name}: {of}" for name, of in parts if of)])


def _kind(exc: psycopg.Error) -> type[DatabaseError]:
    """What an error is that has left the connection whole."""
    state = exc.sqlstate or ""
    # The former by statement_timeout, or by somebody's pg_cancel_backend().
    if state in (_QUERY_CANCELED, _PROTOCOL_VIOLATION):
        return QueryError
    if state in _CONFLICTS:
        return Conflict
    if state[:2] == "0A":
        return NotSupported
    if state == _UNDEFINED_TABLE:
        return UnknownTable
    if state[:2] in _NOT_THE_STATEMENT or state == _LOCK_NOT_AVAILABLE:
        return DatabaseError
    return QueryError


class Wire:
    """One call at a time, on any thread. ``interrupt`` may race with anything."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self._pg = connection.pgconn
        self._selector = _Selector()
        self._selector.register(self._pg.socket, selectors.EVENT_READ)
        self._state = threading.Condition()  # held for an instant only
        self._busy = False
        self._interrupted = False  # during the present call
        self._deadline = math.inf  # for the server to react, once it was interrupted
        self._interrupting = 0  # how many threads are telling the server now
        connection.add_notice_handler(
            lambda notice: logger.debug("%s: %s", notice.severity, notice.message_primary)
        )

    @property
    def status(self) -> TransactionStatus:
        return TransactionStatus(self._pg.transaction_status)

    def parameter(self, name: bytes) -> str:
        """A setting that the server reports; "" if it does not report this one."""
        return (self._pg.parameter_status(name) or b"").decode()

    def encoded(self, text: str) -> bytes:
        """*text* as the server shall read it.

        Raises:
            QueryError: it has what no text of PostgreSQL can have.
        """
        if "\0" in text:
            raise QueryError("PostgreSQL's text cannot have a null character")
        try:
            return text.encode(self.connection.info.encoding)
        except UnicodeEncodeError as exc:
            raise QueryError(f"text cannot be sent to PostgreSQL: {exc}") from exc

    @contextmanager
    def calling(self, *, undisturbed: bool = False) -> Iterator[None]:
        """Wrap one call: its errors are ours, and unless *undisturbed* it can be interrupted.

        It does not end before every interrupt of it has reached the server, so that none can
        hit the next one: the server forgets an interrupt that finds it idle.
        """
        with self._state:
            self._interrupted = False
            self._deadline = math.inf
            self._busy = not undisturbed
        try:
            yield
            while (notification := self._pg.notifies()) is not None:
                logger.debug("notification on channel %r", notification.relname)
        except psycopg.Error as exc:
            raise self._translated(exc) from exc
        finally:
            with self._state:
                self._busy = False
                self._state.wait_for(lambda: not self._interrupting)

    def interrupt(self) -> None:
        with self._state:
            if not self._busy:
                return
            if not self._interrupted:
                self._deadline = time.monotonic() + _PATIENCE
            self._interrupted = True
            self._interrupting += 1
        try:
            self.connection.cancel_safe(timeout=_CANCEL_SECONDS)
        except psycopg.Error as exc:  # whoever wants the end repeats it
            logger.debug("cannot interrupt: %s", exc)
        finally:
            with self._state:
                self._interrupting -= 1
                self._state.notify_all()

    def close(self) -> None:
        self._selector.close()
        self.connection.close()

    def failure(self, result: PGresult, *, shift: int = 0) -> NotebookError:
        """What *result*, which has failed, says; *shift* characters in front were ours."""
        exc = psycopg.errors.error_from_result(result, self.connection.info.encoding)
        failure = self._translated(exc)
        failure.__cause__ = exc
        failure.sqlstate = exc.sqlstate
        position = int(exc.diag.statement_position or 0) - shift
        failure.position = position if position > 0 else None
        return failure

    def run(self, sql: bytes, values: Values = None) -> PGresult:
        """The whole result of one statement."""
        return self._run((sql, values), streaming=False)

    def run_through(self, sql: bytes, values: Values = None) -> PGresult:
        """Run a statement to its end, and drop its rows as they come."""
        return self._run((sql, values), streaming=True)

    def run_all(self, *queries: Query) -> list[PGresult]:
        """Run statements with one trip to the server, up to the first that fails: its result is
        the last then."""
        self._pg.enter_pipeline_mode()
        for sql, values in queries:
            self._pg.send_query_params(sql, values)
        self._pg.pipeline_sync()
        self._flush()
        results = []
        while (result := self._next()) is None or result.status != ExecStatus.PIPELINE_SYNC:
            if result is not None and result.status != ExecStatus.PIPELINE_ABORTED:
                results.append(result)
            elif result is None and self._pg.status == ConnStatus.BAD:
                raise psycopg.OperationalError("the connection is lost")
        self._pg.exit_pipeline_mode()
        return results

    def described(self, sql: bytes) -> list[int]:
        """The types (OIDs) that PostgreSQL finds for the parameters of a statement."""
        self._pg.send_prepare(b"", sql)
        self._only_result()
        self._pg.send_describe_prepared(b"")
        result = self._only_result()
        return [result.param_type(number) for number in range(result.nparams)]

    def _run(self, query: Query, *, streaming: bool) -> PGresult:
        self._pg.send_query_params(*query)
        if streaming:
            self._pg.set_single_row_mode()
        return self._only_result()

    def _only_result(self) -> PGresult:
        self._flush()
        last = None
        while (result := self._next()) is not None:
            if result.status in (ExecStatus.COPY_IN, ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH):
                self._end_copy(ExecStatus(result.status))
                raise NotSupported("COPY from STDIN and to STDOUT: there is no client to copy with")
            last = result
        if last is None:
            raise psycopg.OperationalError("the connection is lost")
        if failed(last):
            raise self.failure(last)
        return last

    def _next(self) -> PGresult | None:
        while self._pg.is_busy():
            self._wait()
            self._pg.consume_input()
        return self._pg.get_result()

    def _wait(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Until the socket is ready. A server that does not even react to an interrupt, hung or cut
        off, is given up: its socket is shut, which libpq takes for a lost connection."""
        while not (events := self._selector.select(_LOOK)):
            if time.monotonic() > self._deadline:
                logger.warning("the server has not reacted to an interrupt; giving it up")
                with socket.socket(fileno=os.dup(self._pg.socket)) as severed:
                    severed.shutdown(socket.SHUT_RDWR)
                self._deadline = math.inf
        return events

    def _flush(self) -> None:
        if not self._pg.flush():
            return
        number = self._pg.socket
        self._selector.modify(number, selectors.EVENT_READ | selectors.EVENT_WRITE)
        try:
            while self._pg.flush():
                # To read is part of it: the server may wait for us to do so.
                for _, events in self._wait():
                    if events & selectors.EVENT_READ:
                        self._pg.consume_input()
        finally:
            self._selector.modify(number, selectors.EVENT_READ)

    def _end_copy(self, status: ExecStatus) -> None:
        """A COPY has begun, and fails: the transaction around it, if any, has failed too."""
        if status == ExecStatus.COPY_IN:
            self._pg.put_copy_end(b"there is nobody to copy from")
            self._flush()
        else:
            self.connection.cancel_safe(timeout=_CANCEL_SECONDS)
            while (copied := self._pg.get_copy_data(1)[0]) >= 0:
                if copied == 0:
                    self._wait()
                    self._pg.consume_input()
        while self._next() is not None:
            continue

    def _translated(self, exc: psycopg.Error) -> NotebookError:
        # Not by class 08 or 57: dblink's errors have it too, and leave the connection whole.
        if self._pg.status == ConnStatus.BAD or exc.diag.severity_nonlocalized in (
            "FATAL",
            "PANIC",
        ):
            return DatabaseUnavailable(_message(exc))
        if self._interrupted and exc.sqlstate == _QUERY_CANCELED:
            return Cancelled(_message(exc))
        return _kind(exc)(_message(exc))
