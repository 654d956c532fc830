"""What the Scoot protocol has in its bodies: requests as they come, tables and columns as they go.

Beyond the protocol: a check that is not one comparison has its text, ``sql``, as its condition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from notebook_rpc.errors import InvalidParams
from notebook_rpc.sansio.changes import Change, Condition, Operation
from notebook_rpc.sansio.typespec import typespec
from notebook_rpc.schema import ConstraintKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from notebook_rpc.model import ResultColumn
    from notebook_rpc.sansio.origins import Origin
    from notebook_rpc.schema import ColumnFacts, Constraint, TableFacts

YES: Final = frozenset({"true", "t", "1", "y", "yes"})
_MOST_CONDITIONS: Final = 100


class Term(msgspec.Struct):
    """A condition of WHERE, or a column of SELECT."""

    lhs: str = ""
    cmp: str = ""
    rhs: str | int | float | None = None
    name: str = ""


class Action(msgspec.Struct):
    action: Literal["execute", "modify", "parse-ddl"]
    target: Literal["WHERE", "SELECT"] = "WHERE"
    operation: Literal["add", "remove"] = "add"
    conditions: list[Term] = msgspec.field(default_factory=list)

    def change(self) -> Change:
        """
        Raises:
            InvalidParams: a condition lacks something.
        """
        terms = self.conditions
        if not 0 < len(terms) <= _MOST_CONDITIONS:
            raise InvalidParams(f"conditions must be from 1 to {_MOST_CONDITIONS}")
        operation = Operation(self.operation)
        if self.target == "SELECT":
            if not all(term.name for term in terms):
                raise InvalidParams("a column needs its name")
            return Change(operation, "SELECT", columns=[term.name for term in terms])
        if not all(term.lhs and term.cmp for term in terms):
            raise InvalidParams("a condition needs lhs, cmp and rhs")
        conditions = [Condition(term.lhs, term.cmp, _sql(term.rhs)) for term in terms]
        return Change(operation, "WHERE", conditions=conditions)


class Asked(msgspec.Struct):
    """A query. Clients send more than these, which is theirs to know."""

    sql: str
    metadata: bool | None = False
    action: Action | None = None


class Registering(msgspec.Struct):
    url: str | None = None
    name: str | None = None
    persist: bool | None = False


EXECUTE: Final = Action("execute")


def _sql(value: str | int | float | None) -> str:
    return "NULL" if value is None else str(value)


def table(
    facts: TableFacts, conditions: Sequence[Mapping[str, object]], dialect: str
) -> dict[str, object]:
    """A table as it is described; *conditions* are those of its checks, in their order."""
    return {
        "name": facts.table.table,
        "schema": facts.table.schema or None,
        "columns": [column(each, facts, dialect) for each in facts.columns],
        "constraints": constraints(facts, conditions),
        "create_stmt": facts.create_stmt or None,
    }


def column(facts: ColumnFacts, within: TableFacts, dialect: str) -> dict[str, object]:
    return {
        "name": facts.name,
        **_type(facts.datatype, dialect),
        "nullable": facts.nullable,
        "primary_key": facts.name in within.primary_key,
        "default": facts.default,
    }


def result_column(
    of: ResultColumn,
    origin: Origin | None,
    constraints: Sequence[Mapping[str, object]],
    dialect: str,
) -> dict[str, object]:
    """A column of a result; *constraints* are those of the table it is from."""
    if origin is None:
        known = _type(of.datatype, dialect) if of.datatype else {}
        return {"name": of.column, **known, "table": None, "column": None, "constraints": []}
    return {
        **column(origin.column, origin.facts, dialect),
        "name": of.column,
        "table": origin.facts.table.table,
        "column": origin.column.name,
        "constraints": [each for each in constraints if origin.column.name in _columns(each)],
    }


def _columns(constraint: Mapping[str, object]) -> Sequence[object]:
    columns = constraint["columns"]
    assert isinstance(columns, list)  # noqa: S101  # made below
    return columns


def _type(datatype: str, dialect: str) -> dict[str, object]:
    spec = typespec(datatype, dialect)
    kind = None if spec is None else spec["type"]
    return {"type": kind, "typespec": spec, "native_type": datatype}


def checks(facts: TableFacts) -> list[str]:
    """The texts of its checks."""
    kinds = (each for each in facts.constraints if each.kind is ConstraintKind.CHECK)
    return [each.condition for each in kinds]


def constraints(
    facts: TableFacts, conditions: Sequence[Mapping[str, object]]
) -> list[dict[str, object]]:
    """Foreign keys and checks. The protocol has no other kinds."""
    of_checks = iter(conditions)
    found: list[dict[str, object]] = []
    for each in facts.constraints:
        about = {"name": each.name or None, "columns": list(each.columns)}
        if each.kind is ConstraintKind.FOREIGN_KEY:
            found.append({**about, "type": "fk", "reference": _reference(each)})
        elif each.kind is ConstraintKind.CHECK:
            found.append({**about, "type": "chk", "condition": next(of_checks)})
    return found


def _reference(constraint: Constraint) -> dict[str, object]:
    target = constraint.references
    return {
        "table": None if target is None else target.table,
        "columns": list(constraint.referenced),
    }
