"""Serving in several ways: `python -m tests.benchmarks.inference [--bundle FOLDER] [--against FOLDER] [--out FILE]`.

serving.py  prepared images to probabilities, lungs and heat maps: a plain loop, ours, ONNX Runtime
forms.py    the network alone in several forms (`--part network`): images in, the same scores out
one.py      one of them in a process of its own: images a second, latency at batch 1, peak memory
__main__.py all after each other, the table, JSON

`--against` names the bundle that the plain loop runs, so that a compressed bundle is compared with its original. On a
GPU: `--device cuda --size 512`.
"""
