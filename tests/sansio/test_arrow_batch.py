"""What is written by hand must be what Arrow's own readers read: pyarrow, nanoarrow, and the check
that stands in front of nanoarrow."""

from __future__ import annotations

import datetime
import struct
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import nanoarrow
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nanoarrow.ipc import InputStream

from notebook_rpc.model import END_OF_STREAM
from notebook_rpc.sansio import arrow
from notebook_rpc.sansio.arrow_batch import Column, message
from notebook_rpc.sansio.arrow_check import check

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn

    from notebook_rpc.sansio.arrow import Kind


def of_bits(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    return (
        st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        if signed
        else st.integers(0, 2**bits - 1)
    )


def of_digits(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    most = 10**precision - 1
    # Not by arithmetic, which would round to the 28 digits of Python's own context.
    return st.integers(-most, most).map(lambda units: Decimal(f"{units}E-{scale}"))


UTC = ZoneInfo("UTC")  # as pyarrow has it
FINITE_32 = st.floats(width=32, allow_nan=False)
# Without fold, which Arrow has not, and text shows.
TIMES = st.times().map(lambda time: time.replace(fold=0))
MOMENTS = st.datetimes().map(lambda moment: moment.replace(fold=0))
KINDS: list[tuple[Kind, pa.DataType, st.SearchStrategy[Any]]] = [
    (arrow.INT8, pa.int8(), of_bits(8, signed=True)),
    (arrow.INT16, pa.int16(), of_bits(16, signed=True)),
    (arrow.INT32, pa.int32(), of_bits(32, signed=True)),
    (arrow.INT64, pa.int64(), of_bits(64, signed=True)),
    (arrow.UINT8, pa.uint8(), of_bits(8, signed=False)),
    (arrow.UINT16, pa.uint16(), of_bits(16, signed=False)),
    (arrow.UINT32, pa.uint32(), of_bits(32, signed=False)),
    (arrow.UINT64, pa.uint64(), of_bits(64, signed=False)),
    (arrow.FLOAT32, pa.float32(), FINITE_32),
    (arrow.FLOAT64, pa.float64(), st.floats(allow_nan=False)),
    (arrow.BOOLEAN, pa.bool_(), st.booleans()),
    (arrow.TEXT, pa.string(), st.text(max_size=12)),
    (arrow.BINARY, pa.binary(), st.binary(max_size=12)),
    (arrow.DATE, pa.date32(), st.dates()),
    (arrow.TIME, pa.time64("us"), TIMES),
    (arrow.TIMESTAMP, pa.timestamp("us"), MOMENTS),
    (arrow.INSTANT, pa.timestamp("us", "UTC"), MOMENTS.map(lambda m: m.replace(tzinfo=UTC))),
    (arrow.decimal(38, 0), pa.decimal128(38, 0), of_digits(38, 0)),
    (arrow.decimal(38, 38), pa.decimal128(38, 38), of_digits(38, 38)),
    (arrow.decimal(18, 3), pa.decimal128(18, 3), of_digits(18, 3)),
    (arrow.decimal(1, 0), pa.decimal128(1, 0), of_digits(1, 0)),
]


class Batch(NamedTuple):
    """What is to be written, a column at a time."""

    rows: int
    kinds: list[Kind]
    types: list[pa.DataType]
    values: list[list[Any]]

    @property
    def message(self) -> bytes:
        columns = [kind.column(each) for kind, each in zip(self.kinds, self.values, strict=True)]
        return message(self.rows, columns)

    @property
    def stream(self) -> bytes:
        schema = arrow.schema_of((f"c{n}", kind) for n, kind in enumerate(self.kinds))
        return arrow.Messages(schema).schema + self.message + END_OF_STREAM


@st.composite
def batches(draw: DrawFn) -> Batch:
    # Few values for many rows, or Hypothesis would run out of its own bytes.
    rows = draw(st.one_of(st.integers(0, 20), st.integers(0, 300)))
    chosen = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=20))
    values = []
    for _, _, strategy in chosen:
        some = draw(
            st.lists(
                draw(st.sampled_from([strategy, st.none() | strategy])), min_size=1, max_size=9
            )
        )
        values.append([some[row % len(some)] for row in range(rows)])
    return Batch(rows, [each[0] for each in chosen], [each[1] for each in chosen], values)


@settings(deadline=None, max_examples=100)
@given(batches())
def test_pyarrow_reads_what_was_given(batch: Batch) -> None:
    (read,) = pa.ipc.open_stream(batch.stream)
    read.validate(full=True)
    assert read.schema.types == batch.types
    assert read.num_rows == batch.rows
    assert [column.null_count for column in read] == [each.count(None) for each in batch.values]
    # As text, which tells -0.0 from 0.0.
    assert repr([column.to_pylist() for column in read]) == repr(batch.values)


@settings(deadline=None, max_examples=50)
@given(batches())
def test_nanoarrow_reads_it_too(batch: Batch) -> None:
    check(batch.stream)
    stream = nanoarrow.c_array_stream(InputStream.from_readable(batch.stream))
    # As arrays, by pyarrow: nanoarrow 0.9 takes decimals below zero for large ones in Python.
    (read,) = pa.RecordBatchReader.from_stream(stream)
    read.validate(full=True)
    assert read.schema.types == batch.types
    assert repr([column.to_pylist() for column in read]) == repr(batch.values)


@settings(deadline=None, max_examples=50)
@given(batches())
def test_its_sizes_are_those_of_its_parts(batch: Batch) -> None:
    written = batch.message
    begins, metadata = struct.unpack_from("<Ii", written)
    assert begins == 0xFFFFFFFF
    assert metadata % 8 == 0  # "Encapsulated message format": so that the body begins at eight
    assert len(written) % 8 == 0
    read = pa.ipc.read_message(written)
    assert read.type == "record batch"
    assert read.metadata_version == pa.ipc.MetadataVersion.V5
    assert len(read.metadata) == metadata
    assert len(read.body) == len(written) - 8 - metadata
    columns = [kind.column(each) for kind, each in zip(batch.kinds, batch.values, strict=True)]
    buffers = [buffer for column in columns for buffer in column.buffers]
    assert len(read.body) == sum(len(buffer) + -len(buffer) % 8 for buffer in buffers)
    places = struct.unpack_from(f"<{2 * len(buffers)}q", written, 8 + metadata - 16 * len(buffers))
    at = 0
    for offset, size, buffer in zip(places[::2], places[1::2], buffers, strict=True):
        assert offset == at  # one behind the other, each at a multiple of eight
        assert read.body[offset : offset + size].to_pybytes() == buffer
        at += size + -size % 8


def test_infinities_and_nan_stay() -> None:
    values = [float("inf"), float("-inf"), float("nan"), None, -0.0]
    batch = Batch(5, [arrow.FLOAT32, arrow.FLOAT64], [], [values, values])
    (read,) = pa.ipc.open_stream(batch.stream)
    assert repr([column.to_pylist() for column in read]) == repr([values, values])


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, 63, 64, 65, 300])
def test_bits_end_where_rows_do(rows: int) -> None:
    values = [[True, None, False][row % 3] for row in range(rows)]
    batch = Batch(rows, [arrow.BOOLEAN], [pa.bool_()], [values])
    (read,) = pa.ipc.open_stream(batch.stream)
    read.validate(full=True)
    assert read.column(0).to_pylist() == values


def test_a_batch_may_have_no_columns_and_columns_no_bytes() -> None:
    assert pa.ipc.read_message(message(3, [])).body.size == 0
    (read,) = pa.ipc.open_stream(
        arrow.Messages(arrow.schema_of([("a", arrow.INT64)])).schema
        + message(0, [Column(0, [b"", b""])])
        + END_OF_STREAM
    )
    assert read.num_rows == 0


# Edges of the kinds themselves: nothing is rounded, cut or wrapped.
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *((getattr(arrow, f"INT{bits}"), 2 ** (bits - 1)) for bits in (8, 16, 32, 64)),
        *((getattr(arrow, f"INT{bits}"), -(2 ** (bits - 1)) - 1) for bits in (8, 16, 32, 64)),
        *((getattr(arrow, f"UINT{bits}"), 2**bits) for bits in (8, 16, 32, 64)),
        *((getattr(arrow, f"UINT{bits}"), -1) for bits in (8, 16, 32, 64)),
        (arrow.INT8, True),
        (arrow.BOOLEAN, 1),
        (arrow.FLOAT32, 0.1),
        (arrow.FLOAT32, 1e39),
        (arrow.FLOAT32, 1),
        (arrow.FLOAT64, 2**53 + 1),
        (arrow.DATE, datetime.datetime(2026, 1, 1)),
        (arrow.DATE, "12000-01-01"),
        (arrow.TIME, "24:00:00"),
        (arrow.TIMESTAMP, "0044-03-15 (BC) 00:00:00"),
        (arrow.BINARY, "text"),
        (arrow.decimal(38, 0), Decimal(10**38)),
        (arrow.decimal(5, 2), Decimal("0.001")),
        (arrow.decimal(5, 2), Decimal(1000)),
        (arrow.decimal(5, 2), Decimal("NaN")),
        (arrow.decimal(5, 2), Decimal("Infinity")),
    ],
)
def test_what_does_not_fit_is_refused(kind: Kind, value: object) -> None:
    with pytest.raises(arrow.Misfit):
        kind.column([None, value])


@pytest.mark.parametrize("kind", [each[0] for each in KINDS], ids=lambda kind: kind.name)
def test_a_kind_is_found_by_what_the_c_data_interface_calls_it(kind: Kind) -> None:
    found = arrow.kind_of_format(nanoarrow.c_schema(kind.type).format)
    if kind is arrow.INSTANT:  # whose zone might be any
        assert found is None
    else:
        assert found is not None
        assert found.name == kind.name


@pytest.mark.parametrize(
    "format_", ["d:5,2,64", "d:50,2,256", "U", "Z", "vu", "tdm", "tts", "+l", "n"]
)
def test_formats_of_other_layouts_have_no_kind(format_: str) -> None:
    assert arrow.kind_of_format(format_) is None
