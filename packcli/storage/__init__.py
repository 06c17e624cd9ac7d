"""Files, on this machine or in an object store: where they are, and that each is there whole or not at all.

A location is a pathlib.Path, or a RemotePath, which speaks those words of Path that packcli uses. The door to fsspec.

    a path or URL    location.locate      -> Location; walks, uploads, many small requests at once
    Location         files.committed      -> a file that appears whole, or not
                     heartbeats           -> who works here; processes: who a process is, and whether it is alive
                     locks.locked         -> one writer at a time in a store, by a heartbeat that is created once
    RemotePath       filesystem           -> requests to a store: tried again when they fail, errors in our words
                     ranges.open_stream   -> an object as a file to read: blocks ahead of a reader, or ranges
    a disk           space                -> room on it, and words for a full one

An object store has no rename: an object appears under its name when its upload has ended, whole. It has no folders
either: a prefix is there when something is under it. Nothing here knows of packing.
"""

from __future__ import annotations

from packcli.storage.files import committed, file_sha256
from packcli.storage.filesystem import Entry
from packcli.storage.heartbeats import SILENCE_S, Heartbeat, Peer, read_heartbeat, read_heartbeats
from packcli.storage.location import Location, concurrently, is_inside, is_remote, locate, names_in, uploaded, walk
from packcli.storage.locks import locked, owner_of, refuse_locked
from packcli.storage.ranges import open_random, open_stream
from packcli.storage.remote import RemotePath
from packcli.storage.space import full_disk, is_full, look_for_room

__all__ = [
    "SILENCE_S",
    "Entry",
    "Heartbeat",
    "Location",
    "Peer",
    "RemotePath",
    "committed",
    "concurrently",
    "file_sha256",
    "full_disk",
    "is_full",
    "is_inside",
    "is_remote",
    "locate",
    "locked",
    "look_for_room",
    "names_in",
    "open_random",
    "open_stream",
    "owner_of",
    "read_heartbeat",
    "read_heartbeats",
    "refuse_locked",
    "uploaded",
    "walk",
]
