"""The sample, packed in this process."""

from helpers import SAMPLE

import packcli


def pack(output, inputs=SAMPLE, **settings):
    settings.setdefault("max_len", 256)
    settings.setdefault("workers", 1)
    return packcli.pack(inputs, output, **settings)
