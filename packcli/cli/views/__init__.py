"""What a terminal shows. The door to rich.

console    where messages go: errors, warnings, JSON;  progress   bars while the work goes on
results    what a verb gave;  stats, packs, units          tables of the verbs with these names
"""

from __future__ import annotations
