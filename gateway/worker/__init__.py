"""The role `work`: claim, load, infer, render, release objects, commit the rest, acknowledge last.

model.py    what the worker is given: models and renderers
load.py     the study of a job, as it stands
files.py    result files
ahead.py    studies that still arrive, read and prepared before their job is there
publish.py  outcomes -> result files
hand.py     jobs in hand, and which go to the device together
unfinished.py  jobs that leave without a result
role.py     the loop; measures.py  what it measures
"""

from gateway.worker.ahead import Ahead
from gateway.worker.model import FindModel, Inference, Limits, Model, Renderers
from gateway.worker.role import Worker

__all__ = ["Ahead", "FindModel", "Inference", "Limits", "Model", "Renderers", "Worker"]
