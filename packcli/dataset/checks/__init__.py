"""Is a packed directory sound, by itself? Its inputs are not read.

    output   all of this for one output
    files    every file is there, is the one the manifest knows by its sha256, and says what the others say
    rows     every shard: sha256 first, then the schema, and every row and document, by invariants
    same     two outputs, row by row

Nothing is written, and nothing in an output is trusted: names in it lead nowhere else, its buffers are validated
before they are touched.
"""

from __future__ import annotations
