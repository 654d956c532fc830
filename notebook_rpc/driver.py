"""What a database must offer, and nothing about any database.

``Driver.open`` gives a ``Database``, which gives ``Connection``s, each of which runs one
statement at a time and gives a ``Result``.

Threads: every method may block and is called on a worker thread, one call at a time for
each connection, though not always the same thread; queries that are ``brief`` also on the event
loop. The exceptions may race with anything and must not raise: ``interrupt``, called on a thread of
its own, and ``progress``, ``transaction`` and ``changes``, asked on the event loop, where they
must not block.

Errors: a method raises a ``notebook_rpc.errors.NotebookError``, with the database's own
exception as its ``__cause__``. Anything else is a bug in the driver and reported as one.
``DatabaseUnavailable`` from a connection says that it is broken, and a new one is needed.

Transactions: a connection is in autocommit mode until a statement says BEGIN, and again after
COMMIT or ROLLBACK. Where the database or its module would rather begin by itself, the driver
hides that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from notebook_rpc.model import (
        ArrowResult,
        Column,
        CountedResult,
        Line,
        Lines,
        Parameters,
        ParquetResult,
        Result,
        Stability,
        Table,
        Touched,
        Transaction,
    )
    from notebook_rpc.schema import TableFacts


class Connection(Protocol):
    """One session's connection. An open result must not get in the way of the catalog:
    ``tables``, ``views`` and ``columns`` neither disturb it nor miss what only this
    connection can see (temporary and uncommitted objects)."""

    def execute(
        self, sql: str, parameters: Parameters | None = None, /
    ) -> Result[Sequence[object]]:
        """Run *sql* and return its last statement's result, rows to come.

        The previous result is closed by then. All statements of *sql* run, in order, up to
        the first that fails; an error names it if there is more than one. *parameters*
        belong to the last. No statement at all is a ``QueryError``.
        """
        ...

    def tables(self) -> Sequence[Table]: ...
    def views(self) -> Sequence[Table]: ...

    def columns(self, catalog: str, schema: str, table: str, /) -> Sequence[Column]:
        """Columns of tables and views, in table order; "" matches any name."""
        ...

    @property
    def transaction(self) -> Transaction:
        """What the last call that ended has left."""
        ...

    def rollback(self) -> bool:
        """Undo and end an open transaction, closing any open result; back to autocommit.

        Returns whether there was a transaction.
        """
        ...

    def close(self) -> None:
        """Close the result and the connection; an open transaction is rolled back."""
        ...


@runtime_checkable
class SupportsText(Protocol):
    """Capability: the database writes rows as text, exactly, and faster than Python can."""

    def execute_text(self, sql: str, parameters: Parameters | None = None, /) -> Result[str]:
        """As ``Connection.execute``, but each row is a JSON object from column name to string
        or null; the strings follow the text table of ``sansio/values.py``."""
        ...


@runtime_checkable
class SupportsJson(Protocol):
    """Capability: the database writes rows as typed JSON, exactly, and faster than Python can."""

    def execute_json(
        self, sql: str, parameters: Parameters | None = None, /, *, arrays: bool = False
    ) -> Result[str]:
        """As ``Connection.execute``, but each row is a JSON object from column name to value, or
        with *arrays* an array of the values, which follow the JSON table of
        ``sansio/values.py``."""
        ...


@runtime_checkable
class SupportsLines(Protocol):
    """Capability: the database writes many rows at a time, as text that needs no more than to be
    sent."""

    def execute_lines(
        self,
        sql: str,
        parameters: Parameters | None = None,
        /,
        *,
        line: Line,
        before: str = "",
        after: str = "",
    ) -> Lines:
        """As ``Connection.execute``; each row is *before*, the *line*, and *after*."""
        ...


@runtime_checkable
class SupportsParquet(Protocol):
    """Capability: write rows into a Parquet file."""

    def execute_parquet(
        self, sql: str, parameters: Parameters | None, path: str, /
    ) -> ParquetResult:
        """As ``Connection.execute``, but the rows are in the file at *path*, which is ours, and
        which the client need not be allowed to reach. If it fails, the file is not to be used."""
        ...


@runtime_checkable
class SupportsPages(Protocol):
    """Capability: a part of a query's rows, without making all that are in front of it, and the
    number of all, without reading them."""

    def execute_page(
        self, sql: str, parameters: Parameters | None, offset: int, limit: int | None, /
    ) -> CountedResult | None:
        """Rows as of ``SupportsJson.execute_json`` with *arrays*. None: nothing has been run, as
        that would not be the same as to read the whole, or *sql* is wrong."""
        ...

    def part(self, sql: str, offset: int, limit: int | None, /) -> str | None:
        """SQL for these rows of the query *sql*, with its parameters; None as above."""
        ...


@runtime_checkable
class SupportsArrow(Protocol):
    """Capability: the database gives its rows as Arrow."""

    def execute_arrow(self, sql: str, parameters: Parameters | None = None, /) -> ArrowResult:
        """As ``Connection.execute``."""
        ...


@runtime_checkable
class SupportsUpload(Protocol):
    """Capability: make a table of an Arrow IPC stream."""

    def upload(self, schema: str, table: str, stream: bytes, /) -> int:
        """Create the table, or replace it, in one transaction; "" is the schema in use. Returns
        the number of rows. A stream that is malformed, or breaks off, is a ``QueryError`` and
        changes nothing."""
        ...


@runtime_checkable
class SupportsReset(Protocol):
    """Capability: serve one client after the other. A connection without it serves one only."""

    def reset(self) -> None:
        """Forget what former clients have left on this connection: an open result, temporary
        objects, settings, prepared statements. Takes no time where nothing was left; no
        transaction is open."""
        ...


@runtime_checkable
class SupportsChanges(Protocol):
    """Capability: tell writes from reads. Without it every statement may have written."""

    @property
    def changes(self) -> int:
        """A number that grows with each call that may have committed something others can see,
        also if the call failed in the end. Asked on the event loop, between calls."""
        ...


@runtime_checkable
class SupportsTouched(SupportsChanges, Protocol):
    """Capability: tell which tables statements read and write. Without it, it may be any.

    Both may name more tables than there are, and never too few: the rows of a query stay what
    they are as long as nothing was written of what it reads. What it reads is to be asked again
    when anything may have been written, as after a statement that made or changed a table.
    """

    def reads(self, sql: str, /) -> Touched:
        """The tables that the query *sql* reads, those behind views too. It asks the database,
        but does not run *sql*. What is no single query touches any."""
        ...

    def take_written(self) -> Touched:
        """The tables that were written, in the words of ``reads``, by what has been committed
        since this was asked last. A table that a trigger writes is told here, or else ``reads``
        has the trigger's own for it. Asked on the event loop, between calls."""
        ...


@runtime_checkable
class SupportsDescribe(Protocol):
    """Capability: the structure of tables and views, as it is now, this connection's own
    included. As the catalog, it does not disturb an open result."""

    def describe(self, table: Table, /) -> TableFacts:
        """What "" as catalog or schema stands for is what SQL would find. A name means the table
        that is spelt so, or else the one that SQL would find by it without quotes.

        Raises:
            UnknownTable: there is none of this name.
        """
        ...

    def schemas(self) -> Sequence[str]: ...

    def databases(self) -> Sequence[str]:
        """Those that this connection could be made to, or that it has attached."""
        ...

    def written(self, table: Table, /) -> str:
        """Its name as SQL has it, quoted."""
        ...


@runtime_checkable
class SupportsStability(Protocol):
    """Capability: say of a query how long its rows stay what they are. Without it they are
    ``VOLATILE``."""

    def stability(self, sql: str, /) -> Stability:
        """Anything but a single query is ``VOLATILE``, and so is what cannot be told. It asks
        the database, but does not run *sql*."""
        ...


@runtime_checkable
class SupportsInterrupt(Protocol):
    """Capability: stop the call that runs on this connection, from any thread.

    One interrupt may arrive before the call has begun and be lost; callers repeat it.
    Without a running call it does nothing. It may take as long as telling the database does;
    whoever interrupts begins nothing new on the connection before it has returned.
    """

    def interrupt(self) -> None: ...


@runtime_checkable
class ComputesHere(Protocol):
    """A fact about a connection: its calls compute in this process, and compete for Python's lock,
    so that a few at a time are quicker than many. Without it they are taken to wait for a server,
    and any number of them may."""

    @property
    def computes_here(self) -> Literal[True]: ...


@runtime_checkable
class SupportsBrief(SupportsInterrupt, Protocol):
    """Capability: know queries that take a millisecond or less. They may be run on the event loop,
    while no other call may hold what they would wait for, and are interrupted if they take three or
    more; then they are run again, after ``reset``, on a thread."""

    def harmless(self, sql: str, /) -> bool:
        """Whether *sql*, without parameters, is known as a query that has no effect and, however
        long it takes, holds nothing that others wait for, if it is what this connection runs next.
        Asked on the event loop, between calls."""
        ...

    def brief(self, sql: str, /) -> bool:
        """Whether it is harmless, waits for nothing but the processor, and as far as ``took`` has
        told takes no longer. In a transaction, or while a result is open whose rows are to come, or
        where its words may mean something else, it is not. Asked as ``harmless``."""
        ...

    def took(self, sql: str, seconds: float, /) -> None:
        """How long it has been run on the event loop; infinity, if it was interrupted there."""
        ...


@runtime_checkable
class SupportsProgress(Protocol):
    """Capability: how far the running statement is, from 0 to 1; None if not known."""

    def progress(self) -> float | None: ...


class Database(Protocol):
    """An open database. Connections must be closed before it is."""

    @property
    def description(self) -> str:
        """For logs: what was opened, without any password."""
        ...

    def connect(self) -> Connection: ...

    def close(self) -> None:
        """Bring everything committed to disk and let go of the database."""
        ...


class Listener(Protocol):
    """Hears what is announced on one channel, by a connection of its own."""

    def fileno(self) -> int:
        """Of a socket: when it can be read, there may be something to take. Raises as ``take``
        does; asked on the event loop, between calls."""
        ...

    def take(self) -> Sequence[str]:
        """The texts announced since this was called last, each once; "" is one without a text, or
        one text too many. Waits for none.

        Raises:
            DatabaseUnavailable: the connection is lost, and with it what was announced.
        """
        ...

    def close(self) -> None: ...


@runtime_checkable
class SupportsNotices(Protocol):
    """Capability of a database: hear what its other clients announce."""

    def listen(self, channel: str, /) -> Listener:
        """
        Raises:
            DatabaseUnavailable: that cannot be done now.
        """
        ...


@runtime_checkable
class SupportsReadOnly(Protocol):
    """Capability of a database that is open for writing: connections that cannot write."""

    def connect_read_only(self) -> Connection:
        """A connection by which nothing outside of it can be changed, whatever its client
        sends: no database, no file, no setting of others. The engine enforces it."""
        ...


class Driver(Protocol):
    """How a kind of database is opened. Registered in the entry-point group
    ``notebook_rpc.drivers`` under the name its URLs begin with."""

    def open(self, properties: Mapping[str, str], /, *, read_only: bool = False) -> Database:
        """Open the database that *properties* describe, *read_only* by the engine's own means.

        Keys: ``database``, ``host``, ``port``, ``username``, ``password`` from the URL
        where it has them, then its query arguments and the ``-P`` options as they stand.

        Raises:
            DatabaseUnavailable: it cannot be opened.
            InvalidParams: a property is unknown or malformed; the message names it.
            NotSupported: nothing in the engine would enforce *read_only*.
        """
        ...


@runtime_checkable
class SupportsFolders(Protocol):
    """Capability of a driver: bound what its databases reach of this machine's files."""

    def within(self, folders: Sequence[Path], /) -> Driver:
        """A driver like this one. A database that it opens reaches, besides its own files, those
        in *folders* and below, whatever its clients send; the engine enforces it. *folders* are
        absolute, without links; none means no files at all."""
        ...
