"""One network in several forms: `python -m tests.benchmarks.inference [--device cuda] [--size 512] [--out FILE]`.

forms.py    the network in each form: images in, the same scores out
one.py      one form in a process of its own: images a second, latency at batch 1, peak memory
__main__.py all forms after each other, the table, JSON
"""
