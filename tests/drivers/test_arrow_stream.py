"""An Arrow stream that another reads, and that stays ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nanoarrow
import pyarrow as pa
import pytest

from notebook_rpc_drivers._arrow_stream import Lent, release

if TYPE_CHECKING:
    from collections.abc import Iterator

BATCH = pa.record_batch({"i": [1, 2]})


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_lent_only_ends_and_is_not_released(fails: bool) -> None:
    asked: list[int] = []

    def made() -> Iterator[pa.RecordBatch]:
        for number in range(2):
            asked.append(number)
            if fails and number:
                raise ValueError("late")
            yield BATCH

    stream = nanoarrow.c_array_stream(pa.RecordBatchReader.from_batches(BATCH.schema, made()))
    lent = Lent(stream)
    reader = pa.RecordBatchReader.from_stream(lent)
    assert list(reader) == [BATCH] * (1 if fails else 2)
    assert list(reader) == []
    reader.close()
    assert asked == [0, 1]
    assert ("late" in str(lent.failure)) is fails
    assert (lent.failure is not None) is fails
    assert stream.is_valid()
    release(stream)
    assert not stream.is_valid()
