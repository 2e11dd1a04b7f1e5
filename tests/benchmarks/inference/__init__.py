"""Serving in several ways: `python -m tests.benchmarks.inference [--bundle FOLDER] [--against FOLDER] [--out FILE]`.

serving.py  prepared images to probabilities, lungs and heat maps: a plain loop, ours, ONNX Runtime
forms.py    the network alone in several forms (`--part network`): images in, the same scores out
one.py      one of them in a process of its own: images a second, latency and memory at batch 1, memory with batches
__main__.py all after each other, the table, JSON

`--part both` prints both tables: the first ratio holds what goes on around the network, too, the second does not.
`--against` names the bundle that the plain loop runs, so that a compressed bundle is compared with its original. On a
GPU: `--part both --device cuda --size 512 --images 256 --batch 64`. What serves takes a batch in parts of 16, as a
worker does, and the table says so.
"""
