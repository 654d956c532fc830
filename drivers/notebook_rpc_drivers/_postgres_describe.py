"""What PostgreSQL tells of a table, whichever driver asks it: in one query, which sees one state
of the catalog.

PostgreSQL keeps no CREATE statement, so one is put together of what its own functions write. It
has the columns, the constraints and the parents, but no indexes, triggers, rights, comments, or
places on a disk.

What it refuses: to quote a name itself where the server can, which knows its keywords.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from notebook_rpc.errors import UnknownTable
from notebook_rpc.model import Table
from notebook_rpc.schema import ColumnFacts, Constraint, ConstraintKind, TableFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Ask = Callable[[str, Sequence[str]], Sequence[Sequence[Any]]]
    """Runs a query with values for its question marks."""

# What a name finds: a schema of one's own temporary objects goes by "pg_temp", and without a
# schema it is the server that looks along the search path.
_NAMED: Final = """
    SELECT pg_catalog.to_regclass(pg_catalog.quote_ident(asked.name)) AS oid, 1 AS rank
    FROM asked WHERE asked.schema = ''
    UNION ALL
    SELECT pg_catalog.to_regclass(pg_catalog.quote_ident(pg_catalog.lower(asked.name))), 2
    FROM asked WHERE asked.schema = ''
    UNION ALL
    SELECT other.oid, CASE WHEN other.relname = asked.name THEN 1 ELSE 2 END
        + CASE WHEN place.nspname = asked.schema OR asked.schema = 'pg_temp' THEN 0 ELSE 2 END
    FROM asked
    JOIN pg_catalog.pg_namespace AS place ON place.nspname
            IN (asked.schema, pg_catalog.lower(asked.schema))
        OR (asked.schema = 'pg_temp' AND place.oid = pg_catalog.pg_my_temp_schema())
    JOIN pg_catalog.pg_class AS other ON other.relnamespace = place.oid
        AND other.relname IN (asked.name, pg_catalog.lower(asked.name))"""

_COLUMNS: Final = """
    SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
        'name', attribute.attname,
        'written', pg_catalog.quote_ident(attribute.attname),
        'type', pg_catalog.format_type(attribute.atttypid, attribute.atttypmod),
        'required', attribute.attnotnull,
        'default', pg_catalog.pg_get_expr(initial.adbin, initial.adrelid),
        'generated', attribute.attgenerated,
        'identity', attribute.attidentity,
        'sequence', (
            SELECT pg_catalog.json_build_array(sequence.seqstart, sequence.seqincrement,
                sequence.seqmin, sequence.seqmax, sequence.seqcache, sequence.seqcycle,
                depends.deptype, pg_catalog.format('nextval(%L::regclass)',
                    depends.objid::pg_catalog.regclass::pg_catalog.text))
            FROM pg_catalog.pg_depend AS depends
            JOIN pg_catalog.pg_sequence AS sequence ON sequence.seqrelid = depends.objid
            WHERE depends.refobjid = relation.oid AND depends.refobjsubid = attribute.attnum
                AND depends.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                AND depends.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                AND depends.deptype IN ('a', 'i') LIMIT 1),
        'collation', CASE WHEN attribute.attcollation <> type.typcollation
            THEN pg_catalog.format('%I.%I', place.nspname, sorting.collname) END,
        'inherited', attribute.attinhcount > 0 AND NOT attribute.attislocal
    ) ORDER BY attribute.attnum)
    FROM pg_catalog.pg_attribute AS attribute
    JOIN pg_catalog.pg_type AS type ON type.oid = attribute.atttypid
    LEFT JOIN pg_catalog.pg_attrdef AS initial
        ON initial.adrelid = attribute.attrelid AND initial.adnum = attribute.attnum
    LEFT JOIN pg_catalog.pg_collation AS sorting ON sorting.oid = attribute.attcollation
    LEFT JOIN pg_catalog.pg_namespace AS place ON place.oid = sorting.collnamespace
    WHERE attribute.attrelid = relation.oid AND attribute.attnum > 0
        AND NOT attribute.attisdropped"""

_NAMES_OF: Final = """(
    SELECT pg_catalog.json_agg(attribute.attname ORDER BY key.place)
    FROM pg_catalog.unnest({keys}) WITH ORDINALITY AS key(number, place)
    JOIN pg_catalog.pg_attribute AS attribute
        ON attribute.attrelid = {table} AND attribute.attnum = key.number)"""
_CONSTRAINTS: Final = f"""
    SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
        'kind', con.contype,
        'name', con.conname,
        'written', pg_catalog.format('CONSTRAINT %I %s', con.conname,
            pg_catalog.pg_get_constraintdef(con.oid)),
        'columns', {_NAMES_OF.format(keys="con.conkey", table="con.conrelid")},
        'condition', CASE WHEN con.contype = 'c'
            THEN pg_catalog.pg_get_expr(con.conbin, con.conrelid, true) END,
        'schema', target_schema.nspname,
        'table', target.relname,
        'referenced', {_NAMES_OF.format(keys="con.confkey", table="con.confrelid")},
        'inherited', NOT con.conislocal OR con.conparentid <> 0
    ) ORDER BY con.contype <> 'p', con.conname)
    FROM pg_catalog.pg_constraint AS con
    LEFT JOIN pg_catalog.pg_class AS target ON target.oid = con.confrelid
    LEFT JOIN pg_catalog.pg_namespace AS target_schema ON target_schema.oid = target.relnamespace
    WHERE con.conrelid = relation.oid AND con.contype IN ('p', 'u', 'f', 'c', 'x')"""  # noqa: S608

# As json, not jsonb, which would put the keys of objects in an order of its own.
_DESCRIBE: Final = f"""
    WITH asked(catalog, schema, name) AS (SELECT ?::text, ?::text, ?::text),
        named AS ({_NAMED})
    SELECT pg_catalog.json_build_object(
        'catalog', pg_catalog.current_database(),
        'schema', CASE WHEN schema.oid = pg_catalog.pg_my_temp_schema()
            THEN 'pg_temp' ELSE schema.nspname END,
        'name', relation.relname,
        'written', CASE WHEN schema.oid = pg_catalog.pg_my_temp_schema()
            THEN pg_catalog.quote_ident(relation.relname)
            ELSE pg_catalog.format('%I.%I', schema.nspname, relation.relname) END,
        'kind', relation.relkind,
        'persistence', relation.relpersistence,
        'options', pg_catalog.array_to_string(relation.reloptions, ', '),
        'view', CASE WHEN relation.relkind IN ('v', 'm')
            THEN pg_catalog.pg_get_viewdef(relation.oid) END,
        'partitions', CASE WHEN relation.relkind = 'p'
            THEN pg_catalog.pg_get_partkeydef(relation.oid) END,
        'bound', pg_catalog.pg_get_expr(relation.relpartbound, relation.oid),
        'parents', (
            SELECT pg_catalog.json_agg(pg_catalog.format('%I.%I', place.nspname, parent.relname)
                ORDER BY inherits.inhseqno)
            FROM pg_catalog.pg_inherits AS inherits
            JOIN pg_catalog.pg_class AS parent ON parent.oid = inherits.inhparent
            JOIN pg_catalog.pg_namespace AS place ON place.oid = parent.relnamespace
            WHERE inherits.inhrelid = relation.oid),
        'server', (
            SELECT pg_catalog.json_build_array(pg_catalog.quote_ident(server.srvname), (
                SELECT pg_catalog.string_agg(pg_catalog.format('%I %L', option_name, option_value),
                    ', ') FROM pg_catalog.pg_options_to_table(outside.ftoptions)))
            FROM pg_catalog.pg_foreign_table AS outside
            JOIN pg_catalog.pg_foreign_server AS server ON server.oid = outside.ftserver
            WHERE outside.ftrelid = relation.oid),
        'columns', ({_COLUMNS}),
        'constraints', ({_CONSTRAINTS})
    )::pg_catalog.text
    FROM asked, named JOIN pg_catalog.pg_class AS relation ON relation.oid = named.oid
    JOIN pg_catalog.pg_namespace AS schema ON schema.oid = relation.relnamespace
    WHERE relation.relkind IN ('r', 'p', 'f', 'v', 'm')
        AND asked.catalog IN ('', pg_catalog.current_database())
    ORDER BY named.rank LIMIT 1"""  # noqa: S608

_SCHEMAS: Final = r"""
    SELECT nspname::text FROM pg_catalog.pg_namespace
    WHERE nspname NOT LIKE 'pg\_%' ORDER BY nspname COLLATE "C" """
_DATABASES: Final = """
    SELECT datname::text FROM pg_catalog.pg_database
    WHERE datallowconn AND NOT datistemplate ORDER BY datname COLLATE "C" """

_KINDS: Final = {
    "p": ConstraintKind.PRIMARY_KEY,
    "u": ConstraintKind.UNIQUE,
    "f": ConstraintKind.FOREIGN_KEY,
    "c": ConstraintKind.CHECK,
}
_SERIALS: Final = {"smallint": "smallserial", "integer": "serial", "bigint": "bigserial"}
_LARGEST: Final = {"smallint": 2**15 - 1, "integer": 2**31 - 1, "bigint": 2**63 - 1}


def written(table: Table) -> str:
    # The catalog is the one that the connection has; no other can be named.
    parts = (part.replace('"', '""') for part in (table.schema, table.table) if part)
    return ".".join(f'"{part}"' for part in parts)


def schemas(ask: Ask) -> list[str]:
    return [str(name) for (name,) in ask(_SCHEMAS, ())]


def databases(ask: Ask) -> list[str]:
    return [str(name) for (name,) in ask(_DATABASES, ())]


def describe(ask: Ask, wanted: Table) -> TableFacts:
    """
    Raises:
        UnknownTable: there is none.
    """
    rows: Sequence[Sequence[Any]] = ()
    if wanted.table:  # to PostgreSQL, "" is not even a name
        rows = ask(_DESCRIBE, (wanted.catalog, wanted.schema, wanted.table))
    if not rows:
        raise UnknownTable(f"there is no table {wanted.table!r}")
    told = json.loads(rows[0][0])
    columns = [_Column.of(each) for each in told["columns"] or ()]
    constraints = [each for each in told["constraints"] or () if each["kind"] in _KINDS]
    return TableFacts(
        Table(told["catalog"], told["schema"], told["name"]),
        [column.facts for column in columns],
        [_constraint(told["catalog"], each) for each in constraints],
        _create(told, columns),
        told["kind"] in "vm",
    )


def _constraint(catalog: str, told: dict[str, Any]) -> Constraint:
    references = None
    if told["table"] is not None:
        references = Table(catalog, told["schema"], told["table"])
    return Constraint(
        _KINDS[told["kind"]],
        told["name"],
        told["columns"] or (),
        told["condition"] or "",
        references,
        told["referenced"] or (),
    )


@dataclass(frozen=True)
class _Column:
    facts: ColumnFacts
    named: str
    typed: str
    rules: str
    inherited: bool

    @classmethod
    def of(cls, told: dict[str, Any]) -> _Column:
        kind, default = told["type"], told["default"]
        typed = f"{kind} COLLATE {told['collation']}" if told["collation"] else kind
        generated, rules = None, []
        if told["generated"]:
            stored = "STORED" if told["generated"] == "s" else "VIRTUAL"
            generated, default = default, None
            rules.append(f"GENERATED ALWAYS AS ({generated}) {stored}")
        elif told["identity"]:
            when = "ALWAYS" if told["identity"] == "a" else "BY DEFAULT"
            rules.append(f"GENERATED {when} AS IDENTITY{_numbering(told['sequence'])}")
        elif _is_serial(kind, default, told["sequence"]):
            typed = _SERIALS[kind]
        elif default is not None:
            rules.append(f"DEFAULT {default}")
        if told["required"]:
            rules.append("NOT NULL")
        facts = ColumnFacts(told["name"], kind, not told["required"], default, generated)
        return cls(facts, told["written"], typed, " ".join(rules), told["inherited"])

    def line(self, *, of_partition: bool) -> str | None:
        """None where all of it is the parent's."""
        if self.inherited and (not self.rules or self.facts.generated is not None):
            return None
        words = (self.named, "" if of_partition else self.typed, self.rules)
        return " ".join(filter(None, words))


def _is_serial(kind: str, default: str | None, sequence: list[Any] | None) -> bool:
    """Whether its numbers come from a sequence of its own, as it would be made again."""
    if sequence is None or kind not in _SERIALS:
        return False
    *numbering, owned, following = sequence
    usual = [1, 1, 1, _LARGEST[kind], 1, False]
    return owned == "a" and default == following and numbering == usual


def _numbering(sequence: list[Any] | None) -> str:
    if sequence is None:
        return ""
    start, step, least, most, cache, cycles, *_ = sequence
    return (
        f" (START WITH {start} INCREMENT BY {step} MINVALUE {least} MAXVALUE {most}"
        f" CACHE {cache}{' CYCLE' if cycles else ''})"
    )


def _create(told: dict[str, Any], columns: list[_Column]) -> str:
    name, options = told["written"], told["options"]
    storage = f" WITH ({options})" if options else ""
    temporary = {"t": "TEMPORARY ", "u": "UNLOGGED "}.get(told["persistence"], "")
    if told["kind"] == "v":
        return f"CREATE {temporary}VIEW {name}{storage} AS\n{told['view']}"
    if told["kind"] == "m":
        return f"CREATE MATERIALIZED VIEW {name}{storage} AS\n{told['view']}"
    return "".join([f"CREATE {temporary}", *_table(told, columns, name, storage)])


def _table(told: dict[str, Any], columns: list[_Column], name: str, storage: str) -> Iterator[str]:
    yield f"FOREIGN TABLE {name}" if told["kind"] == "f" else f"TABLE {name}"
    of_partition = told["bound"] is not None
    lines = [column.line(of_partition=of_partition) for column in columns]
    constraints = told["constraints"] or ()
    lines += [each["written"] for each in constraints if not each["inherited"]]
    listed = ",\n    ".join(line for line in lines if line is not None)
    listed = f" (\n    {listed}\n)" if listed else ""
    if of_partition:
        yield f" PARTITION OF {told['parents'][0]}{listed} {told['bound']}"
    else:
        yield listed or " ()"
        if told["parents"]:
            yield f" INHERITS ({', '.join(told['parents'])})"
    if told["partitions"] is not None:
        yield f" PARTITION BY {told['partitions']}"
    if told["server"] is not None:
        server, settings = told["server"]
        yield f" SERVER {server}" + (f" OPTIONS ({settings})" if settings else "")
    yield storage
