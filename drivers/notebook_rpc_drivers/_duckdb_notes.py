"""What the statements of a session may have done: to the catalog, to others, to the next client.

It knows the kinds of statements that the engine tells, and no connection. What it refuses: to take
a kind that it does not know for a harmless one.
"""

from __future__ import annotations

from duckdb import Statement, StatementType

from notebook_rpc_drivers import _duckdb_touched
from notebook_rpc_drivers._duckdb_sql import (
    KEEPS_CATALOG,
    LEAVES_NOTHING,
    SAYS_TEMPORARY,
    TAKEN_BACK,
    begins,
    commits,
    type_of,
)
from notebook_rpc_drivers._touched import Written


class Notes:
    """``changes`` and ``written`` are as the driver's port has them."""

    def __init__(self) -> None:
        self.changes = 0
        self.written = Written()
        self.begin()

    def begin(self) -> None:
        """With a cursor that nobody has used."""
        self.stale = False  # the catalog may be another than it was when it was captured
        self.in_transaction = False
        self.failed = False  # and with it everything but its end
        self.temporary = False  # it may have had a temporary object
        self.changed = False  # the transaction has run a statement that may change the catalog
        self._wrote = False  # the transaction has run a statement that is no read
        self.left = False  # a statement may have left something that the next client would notice
        self.used = False  # by anything but queries that are proven to leave nothing at all

    @property
    def apart(self) -> bool:
        """Whether words may mean something here that they mean to nobody else."""
        return self.left or self.in_transaction

    def note(self, statement: Statement) -> bool:
        """Remember what *statement*, which is about to run, may do to the catalog, and leave.
        Whether what queries give may change by it, for anybody."""
        kind = type_of(statement)
        says_so = kind in SAYS_TEMPORARY and kind != StatementType.EXPLAIN
        if kind not in LEAVES_NOTHING and not (says_so and "temp" not in statement.query.lower()):
            self.left = True
        if kind == StatementType.TRANSACTION:
            if begins(statement):
                self.in_transaction = True
            else:
                if self._wrote and commits(statement):
                    self.written.commit()
                    self.changes += 1
                unsettles = self.changed
                self.transaction_ended()
                return unsettles
        elif kind == StatementType.SET:
            self.stale = True  # where names are looked for, perhaps
            return True
        elif kind not in KEEPS_CATALOG:
            self.stale = True
            if kind not in SAYS_TEMPORARY or "temp" in statement.query.lower():
                self.temporary = True
            self.changed = self.in_transaction
            return True
        return False

    def note_write(self, statement: Statement) -> None:
        """Of a statement that is not proven to be a read. In a transaction it is seen when that
        is committed, unless it does what no ROLLBACK takes back."""
        kind = type_of(statement)
        if kind == StatementType.TRANSACTION:
            return
        tables = _duckdb_touched.written(kind, statement.query)
        at_once = not self.in_transaction or kind not in TAKEN_BACK
        self.written.note(tables, at_once=at_once)
        self._wrote = self.in_transaction
        self.changes += at_once
        if not self.in_transaction:
            self.written.commit()

    def transaction_ended(self) -> None:
        self.stale |= self.changed
        self.in_transaction = self.changed = self.failed = self._wrote = False
        self.written.roll_back()
