"""Documents with labels: written, packed, and read back."""

import json

import packcli


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def pack(output, source, **settings):
    return packcli.pack(source, output, **{"max_len": 4096, "workers": 1, **settings})


def unpacked(directory):
    """{row: (ids, labels)} of every document, its segments put together again."""
    pieces = {}
    for pack_row in packcli.load(directory):
        place = 0
        for source in pack_row["sources"]:
            size = source["end"] - source["start"]
            run = slice(place, place + size)
            pieces.setdefault(source["row"], []).append(
                (source["start"], pack_row["input_ids"][run], pack_row["labels"][run])
            )
            place += size
        assert set(pack_row["labels"][place:]) <= {-100}
    documents = {}
    for row, found in pieces.items():
        found.sort()
        documents[row] = ([i for _, ids, _ in found for i in ids], [i for _, _, labels in found for i in labels])
    return documents
