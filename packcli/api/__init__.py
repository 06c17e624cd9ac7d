"""The verbs in Python: `packcli.pack`, `stats`, `inspect`, `verify` and `units`, with the options as keywords.

    packcli.pack(inputs, output, max_len=4096)   -> keywords checked, settings made   -> pipeline, report, verification

One file a verb, and nothing is imported here: `packcli` takes each function from its file when it is first used.
The command line calls the same functions.
"""
