"""Tables and their checks, read from SQL: what CREATE TABLE would make, and what a check compares.

What it refuses: to guess at a check that is not one comparison; it is told as it is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace
from sqlglot import exp

from notebook_rpc.errors import InvalidParams
from notebook_rpc.model import Table
from notebook_rpc.sansio.sqltree import expression, known_as, read
from notebook_rpc.schema import ColumnFacts, Constraint, ConstraintKind, TableFacts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PREDICATES: Final[dict[type[exp.Expr], str]] = {
    exp.EQ: "=",
    exp.NEQ: "!=",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.LT: "<",
    exp.LTE: "<=",
}


def table(sql: str, dialect: str) -> TableFacts:
    """What a CREATE TABLE would make; its own text is the ``create_stmt``.

    Raises:
        InvalidParams: it is no CREATE TABLE that lists its columns.
    """
    known = known_as(dialect)
    try:
        tree = read(sql, known)
        schema = tree.this if isinstance(tree, exp.Create) and tree.kind == "TABLE" else None
        if isinstance(schema, exp.Schema):
            return _table(schema, sql, known)
    except RecursionError:
        pass  # no table is nested as deeply
    raise InvalidParams("this is no CREATE TABLE with a list of columns")


def condition(text: str, dialect: str) -> dict[str, object]:
    """A check's expression as ``lhs``, ``pred`` and ``rhs``, where it is as simple as that; else as
    its text, ``sql``."""
    known = known_as(dialect)
    try:
        tree = expression(text, known)
        return {"sql": text} if tree is None else _taken_apart(tree, known) or {"sql": text}
    except RecursionError:
        return {"sql": text}


# Tables


def _table(schema: exp.Schema, sql: str, dialect: str | None) -> TableFacts:
    columns: list[ColumnFacts] = []
    constraints: list[Constraint] = []
    for each in schema.expressions:
        if isinstance(each, exp.ColumnDef):
            constraints += _column_constraints(each, dialect)
            columns.append(_column(each, dialect))
        else:
            constraints += _constraint(each, dialect)
    keys = {
        column.casefold()
        for each in constraints
        if each.kind is ConstraintKind.PRIMARY_KEY
        for column in each.columns
    }
    columns = [
        replace(each, nullable=False) if each.name.casefold() in keys else each for each in columns
    ]
    name = schema.this
    return TableFacts(Table(name.catalog, name.db, name.name), columns, constraints, sql)


def _column(tree: exp.ColumnDef, dialect: str | None) -> ColumnFacts:
    kinds = {type(each.kind): each.kind for each in tree.constraints}
    not_null = kinds.get(exp.NotNullColumnConstraint)
    default = kinds.get(exp.DefaultColumnConstraint)
    return ColumnFacts(
        tree.name,
        "" if tree.kind is None else tree.kind.sql(dialect=dialect),
        not_null is None or bool(not_null.args.get("allow_null")),
        None if default is None else default.this.sql(dialect=dialect),
    )


def _column_constraints(tree: exp.ColumnDef, dialect: str | None) -> Iterator[Constraint]:
    for each in tree.constraints:
        match each.kind:
            case exp.PrimaryKeyColumnConstraint():
                yield Constraint(ConstraintKind.PRIMARY_KEY, each.name, [tree.name])
            case exp.UniqueColumnConstraint():
                yield Constraint(ConstraintKind.UNIQUE, each.name, [tree.name])
            case exp.CheckColumnConstraint() as check:
                yield _check(check, each.name, dialect)
            case exp.Reference() as reference:
                yield _foreign_key(each.name, [tree.name], reference)


def _constraint(tree: exp.Expr, dialect: str | None) -> Iterator[Constraint]:
    """Of a table. What it is called, if it is, stands around it."""
    named = isinstance(tree, exp.Constraint)
    for each in tree.expressions if named else [tree]:
        name = tree.name if named else ""
        match each:
            case exp.PrimaryKey():
                yield Constraint(ConstraintKind.PRIMARY_KEY, name, _names(each.expressions))
            case exp.UniqueColumnConstraint():
                within = each.this.expressions if isinstance(each.this, exp.Schema) else []
                yield Constraint(ConstraintKind.UNIQUE, name, _names(within))
            case exp.ForeignKey():
                reference = each.args.get("reference")
                if reference is not None:
                    yield _foreign_key(name, _names(each.expressions), reference)
            case exp.CheckColumnConstraint() as check:
                yield _check(check, name, dialect)


def _names(trees: Sequence[exp.Expr]) -> list[str]:
    return [column.name for tree in trees if (column := tree.find(exp.Identifier)) is not None]


def _check(tree: exp.CheckColumnConstraint, name: str, dialect: str | None) -> Constraint:
    columns = list(dict.fromkeys(column.name for column in tree.find_all(exp.Column)))
    return Constraint(ConstraintKind.CHECK, name, columns, tree.this.sql(dialect=dialect))


def _foreign_key(name: str, columns: Sequence[str], reference: exp.Reference) -> Constraint:
    schema = reference.this
    target = schema.this if isinstance(schema, exp.Schema) else schema
    return Constraint(
        ConstraintKind.FOREIGN_KEY,
        name,
        columns,
        references=Table(target.catalog, target.db, target.name),
        referenced=_names(schema.expressions) if isinstance(schema, exp.Schema) else [],
    )


# Checks


def _taken_apart(tree: exp.Expr, dialect: str | None) -> dict[str, object] | None:
    tree = tree.unnest()
    left = _uncast(tree.this) if isinstance(tree, exp.Binary | exp.In) else None
    if not isinstance(left, exp.Column):
        return None
    if isinstance(tree, exp.EQ) and isinstance(tree.expression, exp.Any):
        listed = _uncast(tree.expression.this)
        if isinstance(listed, exp.Array):
            return _is_in(left, listed.expressions, dialect)
        return None
    if isinstance(tree, exp.In):
        return _is_in(left, tree.expressions, dialect) if tree.expressions else None
    pred = _PREDICATES.get(type(tree))
    if pred is None:
        return None
    return {"lhs": left.name, "pred": pred, "rhs": _operand(tree.expression, dialect)}


def _is_in(left: exp.Column, values: Sequence[exp.Expr], dialect: str | None) -> dict[str, object]:
    return {"lhs": left.name, "pred": "IN", "rhs": [_operand(each, dialect) for each in values]}


def _operand(tree: exp.Expr, dialect: str | None) -> str:
    tree = _uncast(tree)
    return tree.name if isinstance(tree, exp.Literal | exp.Column) else tree.sql(dialect=dialect)


def _uncast(tree: exp.Expr) -> exp.Expr:
    """Without what only says of which type it is."""
    while isinstance(tree, exp.Cast | exp.Paren):
        tree = tree.this
    return tree
