"""Many associations at once, for minutes, with strangers among them: `python -m tests.benchmarks.load`.

senders.py  associations that send, break off or only knock; what each was told
sampling.py memory, threads and descriptors of the receiver, each second
plot.py     the samples as an SVG
verdict.py  what must hold: nothing lost, nobody refused below the limit, everybody above it, nothing grows
"""
