"""What a part hands on to the next, on the disk: DIR/.packcli/carry-UUUUU-PPP.bin, from before the part is committed
until the next one is (what a run began with, until its end). Its sha256 stands in the sidecar of the part, so that
nothing else is ever taken for it.

A carry that is lost or damaged is never done without: the part counts as not committed (`collecting.read_unit`), and is
done again, with the same bytes.
"""

from __future__ import annotations

import hashlib

from packcli.carrying import Carried
from packcli.errors import StorageError
from packcli.shards import committed, file_sha256
from packcli.sidecars import CarryInfo, Sidecar, read_sidecar, sidecar_file
from packcli.stores import Location


class LostCarryError(StorageError):
    """What a part hands on is lost or damaged, and the next part needs it."""


def keep_carry(state: Location, unit: int, part: int, carried: Carried) -> CarryInfo | None:
    """Writes what a part hands on; None when that is nothing.

    Args:
        state: The directory .packcli.
        unit: Of the part.
        part: Its index in the unit.
        carried: The documents.
    """
    content = carried.to_bytes()
    if not content:
        return None
    with committed(_path(state, unit, part)) as file:
        file.write(content)
    return CarryInfo(len(carried), carried.num_tokens, hashlib.sha256(content).hexdigest())


def has_carry(state: Location, sidecar: Sidecar) -> bool:
    """Whether the part after a committed one can be done: what that hands on is there and whole, or is nothing."""
    if sidecar.carry is None:
        return True
    try:
        return file_sha256(_path(state, sidecar.unit, sidecar.part))[0] == sidecar.carry.sha256
    except OSError:
        return False


def read_carry(state: Location, unit: int, part: int) -> Carried:
    """What the committed part before this one hands over.

    Raises:
        LostCarryError: it is lost or damaged, which it was not when the run began.
    """
    if part == 0:
        return Carried.nothing()
    before = read_sidecar(state.parent / sidecar_file(unit, part - 1))
    if before is None or not has_carry(state, before):
        raise LostCarryError(
            f"{_path(state, unit, part - 1)}: lost or damaged while it was needed", "run the same command again"
        )
    return Carried.from_bytes(_path(state, unit, part - 1).read_bytes()) if before.carry else Carried.nothing()


def drop_carry(state: Location, unit: int, part: int) -> None:
    """Removes what one part hands on: the next one is committed."""
    _path(state, unit, part).unlink(missing_ok=True)


def drop_carries(state: Location) -> None:
    """Removes what any part hands on: the run is done, or given up."""
    for path in state.glob("carry-*.bin"):
        path.unlink(missing_ok=True)


def _path(state: Location, unit: int, part: int) -> Location:
    return state / f"carry-{unit:05d}-{part:03d}.bin"
