"""Changing a SELECT as a client asks for it: a condition more or less, a column more or less.

What it refuses: to run anything, to change what is not a single SELECT, and to hand out a statement
that it could not read again as what it meant to write.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import sqlglot
from sqlglot import exp

from notebook_rpc.errors import InvalidParams, NotSupported
from notebook_rpc.sansio.changes import Operation
from notebook_rpc.sansio.origins import Item, Outline, Source, all_columns
from notebook_rpc.sansio.sqltree import LONGEST, expression, known_as, read_query

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from notebook_rpc.sansio.changes import Change, Condition
    from notebook_rpc.sansio.origins import Facts

COMPARISONS: Final = frozenset(
    {"=", "!=", "<>", "<", "<=", ">", ">=", "IS", "IS NOT", "IN", "NOT IN"}
    | {"LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE"}
)
PART: Final = 32  # characters that a condition or a column counts for besides its own
_SIMPLE: Final = re.compile(r"[a-z_][a-z0-9_]*")
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # whatever it means without quotes


def outline(sql: str, dialect: str) -> Outline | None:
    """That of *sql*; None if it is anything but a single SELECT from tables that can be told."""
    tree = read_query(sql, known_as(dialect))
    if not isinstance(tree, exp.Select) or tree.args.get("with_"):
        return None
    return _outline(tree, known_as(dialect))


def changed(sql: str, change: Change, dialect: str, facts: Facts) -> str:
    """*sql* after *change*. *facts* are of the tables in its outline, for the columns that ``*``
    stands for.

    Raises:
        InvalidParams: a condition or a column is none, or not there.
        NotSupported: *sql* is no statement that can be changed.
    """
    known = known_as(dialect)
    if len(sql) + _length(change) > LONGEST:
        raise NotSupported(f"only a SELECT of {LONGEST} characters can be changed, with the change")
    tree = read_query(sql, known)
    if not isinstance(tree, exp.Select):
        raise NotSupported("only a single SELECT can be changed, and this cannot be read as one")
    try:
        match change.operation, change.target:
            case Operation.ADD, "WHERE":
                _add_conditions(tree, change.conditions, known)
            case Operation.REMOVE, "WHERE":
                _remove_conditions(tree, change.conditions, known)
            case Operation.ADD, _:
                _add_columns(tree, change.columns, known)
            case _:
                _remove_columns(tree, change.columns, known, facts)
        text = tree.sql(dialect=known)
        if read_query(text, known, 4 * LONGEST) != tree:
            raise NotSupported("this statement cannot be changed without changing what it means")
    except RecursionError:
        raise NotSupported("this statement is nested too deeply to be changed") from None
    return text


def _length(change: Change) -> int:
    """Its characters, and some for what each part costs, however short."""
    texts = [each.lhs + each.rhs for each in change.conditions] + list(change.columns)
    return sum(len(text) + PART for text in texts)


# Outlines


def _outline(tree: exp.Select, dialect: str | None) -> Outline | None:
    joins: Sequence[exp.Join] = tree.args.get("joins") or ()
    parts = [tree.args.get("from_"), *joins, *(tree.args.get("laterals") or ())]
    sources = [_source(part.this, dialect) for part in parts if part is not None]
    merges = any(join.args.get("using") or join.method == "NATURAL" for join in joins)
    items = [_item(each, dialect) for each in tree.expressions]
    known = [item for item in items if item is not None]
    return Outline(known, sources, merges) if len(known) == len(items) else None


def _source(tree: exp.Expr, dialect: str | None) -> Source:
    alias = tree.alias_or_name
    told = {"this", "db", "catalog", "alias"}
    if not isinstance(tree, exp.Table) or not isinstance(tree.this, exp.Identifier):
        return Source("", alias)
    odd = any(value for key, value in tree.args.items() if key not in told)
    if odd or (tree.args.get("alias") and tree.args["alias"].columns):
        return Source("", alias)  # sampled, pivoted, its columns renamed
    name = ".".join(_found_as(part, dialect) for part in tree.parts)
    return Source(name, alias, bool(tree.alias))


def _found_as(part: exp.Expr, dialect: str | None) -> str:
    """An identifier as the database finds it."""
    unquoted = isinstance(part, exp.Identifier) and not part.quoted
    return part.name.lower() if unquoted and dialect == "postgres" else part.name


def _item(tree: exp.Expr, dialect: str | None) -> Item | None:
    """None for what may be several columns, and nobody knows which."""
    inner = tree.this if isinstance(tree, exp.Alias) else tree
    if isinstance(tree, exp.Star) and not any(tree.args.values()):
        return Item("*")
    if isinstance(inner, exp.Column) and not isinstance(inner.this, exp.Star):
        if dialect is None and inner.this.quoted:  # to MySQL, "id" is a string
            return Item(name=tree.alias_or_name)
        return Item(inner.name, inner.table, tree.alias_or_name)
    if isinstance(tree, exp.Column) and not any(tree.this.args.values()):
        return Item("*", tree.table)
    expands = (exp.Columns, exp.Unnest, exp.Explode)
    if isinstance(inner, expands) or any(_is_loose(star) for star in inner.find_all(exp.Star)):
        return None
    return Item(name=tree.alias)


def _is_loose(star: exp.Star) -> bool:
    return not isinstance(star.parent, exp.Count)


# Conditions


def _add_conditions(tree: exp.Select, conditions: Sequence[Condition], dialect: str | None) -> None:
    added = [_condition(tree, each, dialect) for each in conditions]
    _set_terms(tree, [*_terms(tree), *added])


def _remove_conditions(
    tree: exp.Select, conditions: Sequence[Condition], dialect: str | None
) -> None:
    """Those that are joined by AND. One that is not there is removed already."""
    gone = {_condition(each, one, dialect).unnest() for each in (tree, None) for one in conditions}
    _set_terms(tree, [term for term in _terms(tree) if term.unnest() not in gone])


def _set_terms(tree: exp.Select, terms: Sequence[exp.Expr]) -> None:
    copies = [term.copy() for term in terms]
    tree.set("where", exp.Where(this=exp.and_(*copies, copy=False)) if copies else None)


def _terms(tree: exp.Select) -> Iterator[exp.Expr]:
    """What is joined by AND in WHERE, in order; without recursion, as there may be thousands."""
    where = tree.args.get("where")
    rest = [] if where is None else [where.this]
    while rest:
        each = rest.pop()
        inner = each.unnest()
        if isinstance(inner, exp.And):
            rest += [inner.expression, inner.this]
        else:
            yield each


def _condition(tree: exp.Select | None, asked: Condition, dialect: str | None) -> exp.Expr:
    comparison = " ".join(asked.cmp.upper().split())
    if comparison not in COMPARISONS:
        known = ", ".join(sorted(COMPARISONS))
        raise InvalidParams(f"{asked.cmp!r} is no comparison; there are {known}")
    left = _left(tree, asked.lhs, dialect).sql(dialect=dialect)
    found = expression(f"{left} {comparison} {asked.rhs}", dialect)
    alone = expression(f"({asked.rhs})", dialect)
    if found is None or alone is None or isinstance(found, exp.Connector):
        raise InvalidParams(f"{asked.lhs} {asked.cmp} {asked.rhs} cannot be read as a condition")
    return found


def _left(tree: exp.Select | None, name: str, dialect: str | None) -> exp.Expr:
    """What a condition on a result's column *name* must be about. WHERE knows no names that SELECT
    has given, and a name may stand for several columns but for its table."""
    for item in () if tree is None else tree.expressions:
        if item.alias_or_name != name:
            continue
        inner = item.this if isinstance(item, exp.Alias) else item
        is_star = isinstance(inner, exp.Star) or isinstance(inner.this, exp.Star)
        late = inner.find(exp.AggFunc, exp.Window, exp.Query)
        if not is_star and late is None:
            whole: exp.Expr = inner.copy()
            return whole if isinstance(whole, exp.Column | exp.Func) else exp.paren(whole)
    return _named(name, dialect)


def _named(name: str, dialect: str | None) -> exp.Expr:
    """A column by its name, or the expression that a client has in its place."""
    if re.fullmatch(r"\w+", name):
        return exp.column(_identifier(name, dialect))
    found = expression(name, dialect)
    if isinstance(found, exp.Column | exp.Func | exp.Cast | exp.Paren):
        return found
    return exp.column(_identifier(name, dialect))


def _identifier(name: str, dialect: str | None) -> exp.Identifier:
    """In quotes where it would mean something else without."""
    keywords = sqlglot.Dialect.get_or_raise(dialect).tokenizer_class.KEYWORDS
    words = {word for keyword in keywords for word in keyword.split()}  # ORDER BY is one
    plain = _PLAIN if dialect is None else _SIMPLE
    quoted = not plain.fullmatch(name) or name.upper() in words
    if quoted and dialect is None:  # to MySQL, "id" is a string
        raise NotSupported(
            f"{name!r} needs quotes, and how this database has them is not known; its URL may tell"
            " by beginning with mysql+pyodbc:// or mssql+pyodbc://"
        )
    found = exp.to_identifier(name, quoted=quoted)
    assert found is not None  # noqa: S101  # a name is given
    return found


# Columns


def _add_columns(tree: exp.Select, names: Sequence[str], dialect: str | None) -> None:
    taken = {item.output_name for item in tree.expressions}
    for name in names:
        if name not in taken:
            tree.select(_named(name, dialect), append=True, copy=False)


def _remove_columns(
    tree: exp.Select, names: Sequence[str], dialect: str | None, facts: Facts
) -> None:
    gone = {name.casefold() for name in names}
    kept: list[exp.Expr] = []
    found: set[str] = set()
    for item, called in _with_stars_expanded(tree, dialect, facts):
        if gone & called:
            found |= called
        else:
            kept.append(item)
    missing = [name for name in names if name.casefold() not in found]
    if missing:
        raise InvalidParams(f"there is no column {missing[0]!r} to be removed")
    if not kept:
        raise InvalidParams("a SELECT needs a column; this would remove its last one")
    tree.set("expressions", kept)


def _with_stars_expanded(
    tree: exp.Select, dialect: str | None, facts: Facts
) -> Iterator[tuple[exp.Expr, set[str]]]:
    """Each item, and what it may be called."""
    for each in tree.expressions:
        item = _item(each, dialect)
        if item is not None and item.column != "*":
            yield each, {(each.output_name or each.sql(dialect=dialect)).casefold()}
            continue
        within = None if tree.args.get("with_") else _outline(tree, dialect)
        expanded = None if item is None or within is None else all_columns(item, within, facts)
        if within is None or expanded is None:
            raise NotSupported("it is not known which columns * stands for here")
        for source, origin in expanded:
            name = origin.column.name
            whose = source.alias if source.is_renamed or len(within.sources) > 1 else None
            qualifier = None if whose is None else _identifier(whose, dialect)
            yield exp.column(_identifier(name, dialect), qualifier), {name.casefold()}
