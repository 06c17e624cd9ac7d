"""Members of a merged output: columns shifted as by a slow twin, inputs and units tiled."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packcli.dataset import members_of, shift_column
from packcli.dataset.members import member_of


@given(
    st.lists(
        st.tuples(st.lists(st.lists(st.integers(0, 3), max_size=3), max_size=5), st.integers(0, 9)),
        max_size=4,
    ),
    st.integers(1, 3),
)
@settings(max_examples=60)
def test_shifted_columns_against_a_slow_twin(shards, chunk_rows):
    """Chunks of any size, cut anywhere against the shards."""
    import pyarrow as pa

    from packcli.dataset.schema import TYPES

    rows = [
        [{"source": source, "row": 5, "start": 0, "end": 2} for source in row] for shard, _ in shards for row in shard
    ]
    chunks = [rows[first : first + chunk_rows] for first in range(0, len(rows), chunk_rows)]
    column = pa.chunked_array([pa.array(each, TYPES["sources"]) for each in chunks], TYPES["sources"])
    found = shift_column(column, [(len(shard), first) for shard, first in shards])["sources"].to_pylist()
    expected = [
        [{**segment, "source": segment["source"] + first} for segment in row]
        for (shard, first), begin in zip(shards, np.cumsum([0, *(len(shard) for shard, _ in shards)]), strict=False)
        for row in rows[begin : begin + len(shard)]
    ]
    assert found == expected


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=5))
def test_members_tile_inputs_and_units(counts):
    merged = [{"num_inputs": inputs, "num_units": units} for inputs, units in counts]
    num_inputs, num_units = (sum(each[place] for each in counts) for place in (0, 1))
    members = members_of({"merged": merged, "inputs": [{}] * num_inputs, "num_units": num_units})
    assert [source for each in members for source in range(num_inputs)[each.inputs]] == list(range(num_inputs))
    owners = [members.index(member_of(members, unit)) for unit in range(num_units)]
    assert owners == [number for number, (_, units) in enumerate(counts) for _ in range(units)]
    with pytest.raises(ValueError, match="no member"):
        member_of(members, num_units)
