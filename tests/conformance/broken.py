"""A driver that is SQLite's, but for what a test puts in the place of its methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from notebook_rpc.model import ResultColumn, Transaction
from notebook_rpc_drivers import sqlite

if TYPE_CHECKING:
    from notebook_rpc.model import Column, Parameters, Result, Table, Touched
    from notebook_rpc.schema import TableFacts

Fault = Callable[..., Any]
Row = Sequence[object]


class Driver:
    """*faults* are called with what they spoil, the real object, and with the arguments.

    Their names are those of the port's methods; ``result_columns``, ``count``, ``streaming``,
    ``fetch`` and ``finish`` are the result's.
    """

    def __init__(self, **faults: Fault) -> None:
        self._faults = faults

    def open(self, properties: Mapping[str, str], /, *, read_only: bool = False) -> _Database:
        fault = self._faults.get("open")
        if fault is not None:
            return _Database(fault(sqlite.DRIVER, properties, read_only), self._faults)
        return _Database(sqlite.DRIVER.open(properties, read_only=read_only), self._faults)


class _Database:
    def __init__(self, real: Any, faults: Mapping[str, Fault]) -> None:
        self._real = real
        self._faults = faults
        self.connection_type: type[OfNoInterrupt] = _Connection

    @property
    def description(self) -> str:
        fault = self._faults.get("description")
        return str(fault(self._real)) if fault else str(self._real.description)

    def connect(self) -> OfNoInterrupt:
        fault = self._faults.get("connect")
        real = fault(self._real) if fault else self._real.connect()
        return self.connection_type(real, self._faults)

    def connect_read_only(self) -> OfNoInterrupt:
        fault = self._faults.get("connect_read_only")
        real = fault(self._real) if fault else self._real.connect_read_only()
        return self.connection_type(real, self._faults)

    def close(self) -> None:
        self._real.close()


class OfNoInterrupt:
    def __init__(self, real: Any, faults: Mapping[str, Fault]) -> None:
        self._real = real
        self._faults = faults

    def execute(self, sql: str, parameters: Parameters | None = None, /) -> _Result:
        return _Result(self._do("execute", sql, parameters), self._faults)

    def tables(self) -> list[Table]:
        return list(self._do("tables"))

    def views(self) -> list[Table]:
        return list(self._do("views"))

    def columns(self, catalog: str, schema: str, table: str, /) -> list[Column]:
        return list(self._do("columns", catalog, schema, table))

    def describe(self, table: Table, /) -> TableFacts:
        facts: TableFacts = self._do("describe", table)
        return facts

    def schemas(self) -> list[str]:
        return list(self._do("schemas"))

    def databases(self) -> list[str]:
        return list(self._do("databases"))

    def written(self, table: Table, /) -> str:
        return str(self._do("written", table))

    @property
    def changes(self) -> int:
        fault = self._faults.get("changes")
        return int(fault(self._real) if fault else self._real.changes)

    def reads(self, sql: str, /) -> Touched:
        touched: Touched = self._do("reads", sql)
        return touched

    def take_written(self) -> Touched:
        touched: Touched = self._do("take_written")
        return touched

    @property
    def transaction(self) -> Transaction:
        fault = self._faults.get("transaction")
        state: Transaction = fault(self._real) if fault else self._real.transaction
        return state

    def rollback(self) -> bool:
        return bool(self._do("rollback"))

    def close(self) -> None:
        self._do("close")

    def _do(self, name: str, *arguments: object) -> Any:
        fault = self._faults.get(name)
        return fault(self._real, *arguments) if fault else getattr(self._real, name)(*arguments)


class _Connection(OfNoInterrupt):
    def interrupt(self) -> None:
        self._do("interrupt")

    def progress(self) -> float | None:
        return float(self._faults["progress"](self._real)) if "progress" in self._faults else None

    def harmless(self, sql: str, /) -> bool:
        return bool(self._faults["brief"](self._real, sql)) if "brief" in self._faults else False

    def brief(self, sql: str, /) -> bool:
        return bool(self._faults["brief"](self._real, sql)) if "brief" in self._faults else False

    def took(self, sql: str, seconds: float, /) -> None:
        """SQLite's has no brief queries."""

    def reset(self) -> None:
        self._do("reset")


class _Result:
    def __init__(self, real: Result[Row], faults: Mapping[str, Fault]) -> None:
        self._real = real
        self._faults = faults

    @property
    def columns(self) -> Sequence[ResultColumn]:
        names = [column.column for column in self._real.columns]
        fault = self._faults.get("result_columns")
        return [ResultColumn(name, "") for name in (fault(names) if fault else names)]

    @property
    def count(self) -> int:
        fault = self._faults.get("count")
        return int(fault(self._real)) if fault else self._real.count

    @property
    def streaming(self) -> bool:
        fault = self._faults.get("streaming")
        return bool(fault(self._real)) if fault else self._real.streaming

    def fetch(self, limit: int, /) -> Sequence[Row]:
        fault = self._faults.get("fetch")
        rows: Sequence[Row] = fault(self._real, limit) if fault else self._real.fetch(limit)
        return rows

    def close(self) -> None:
        fault = self._faults.get("finish")
        if fault:
            fault(self._real)
        else:
            self._real.close()
