"""Where inputs and outputs are: on this machine, or in an object store. The door to fsspec.

A location is a pathlib.Path, or a RemotePath, which speaks those words of Path that packcli uses. What is local
never passes through here but for one question, whether it is local.

    access.py   requests to a store: tried again when they fail, errors in our words
    remote.py   RemotePath: look, list, read a range, put an object whole, delete
    places.py   which location a path or URL means; walks, uploads, many small requests at once
    ranges.py   an object as a file to read: blocks ahead of a reader, or just the ranges that are asked for
    locks.py    one writer at a time, by an object that is created once

An object store has no rename: an object appears under its name when its upload has ended, whole. It has no folders
either: a prefix is there when something is under it.
"""

from packcli.stores.access import Entry
from packcli.stores.locks import locked, owner_of, refuse_locked
from packcli.stores.places import Location, concurrently, is_inside, is_remote, locate, names_in, uploaded, walk
from packcli.stores.ranges import open_random, open_stream
from packcli.stores.remote import RemotePath

__all__ = [
    "Entry",
    "Location",
    "RemotePath",
    "concurrently",
    "is_inside",
    "is_remote",
    "locate",
    "locked",
    "names_in",
    "open_random",
    "open_stream",
    "owner_of",
    "refuse_locked",
    "uploaded",
    "walk",
]
