"""Training, evaluation and calibration of bundles, from labelled images to figures in `bundle.toml`.

data.py          labels.csv and its images; split by patient group
targets.py       a lung mask as background, right lung, left lung
sampling.py      which images an epoch shows
augmentation.py  random views and grey values; elastic.py, clahe.py  bent, equalised by tiles
losses.py        cross-entropy of a hierarchy, agreement, Dice; contrastive.py, distillation.py  further parts
task_weights.py  weights of the parts, learnt
loop.py          epochs: schedule, moving average, checkpoint, resume; precision.py  in fewer bits
run_log.py       run.json and logs for TensorBoard; watching.py  how well the network does meanwhile
calibration.py   temperatures, bounds of label sets, what is known; posterior.py  weights of the last layer
scores.py        accuracy, AUC, Dice, calibration error (numpy)
answers.py       what a network says of a part, the lungs stretched to a square too
evaluation.py    a bundle on its validation groups, and the aspect-only baseline; plots.py  pictures of it
resolution.py    what the side of the network's input leaves of outlines
explanations.py  whether explanations depend on the weights, and lie in the lungs
figures.py       figures into bundle.toml
compression.py   a smaller or faster bundle, kept where it answers as well: quantisation.py, pruning.py, student.py
making.py        where it is made, and how it is described; teaching.py  learning from the original
graph_export.py  a network as ONNX graphs
variants.py      a bundle and those made of it, side by side; speed.py  how fast each is; card.py  its model card
lung_reference.py  right and left lung from Hounsfield units
volume_data.py, volume_augmentation.py, volume_loop.py, volume_scores.py, volume_config.py, volume_run.py  for volumes
folds.py         cross-validation of a bundle for images; ablation.py  what each part of its network is worth
run.py           train, evaluate, calibrate: what the command line calls
"""
