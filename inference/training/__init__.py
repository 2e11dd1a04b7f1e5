"""Training, evaluation and calibration of bundles, from labelled images to figures in `bundle.toml`.

data.py          labels.csv and its images; split by patient group
targets.py       a lung mask as background, right lung, left lung
sampling.py      which images an epoch shows
augmentation.py  random views and grey values; elastic.py, clahe.py  bent, equalised by tiles
losses.py        hierarchical cross-entropy, agreement of scales, Dice; contrastive.py, distillation.py  further parts
task_weights.py  weights of the parts, learnt
loop.py          epochs: schedule, moving average, checkpoint, resume; precision.py  in fewer bits
run_log.py       run.json and logs for TensorBoard
calibration.py   a temperature per level
scores.py        accuracy, AUC, Dice, calibration error (numpy)
evaluation.py    a bundle on its validation groups, and the aspect-only baseline
explanations.py  whether explanations depend on the weights, and lie in the lungs
figures.py       figures into bundle.toml
compression.py   a bundle with int8 weights or fewer channels (pruning.py), kept where it answers as well
lung_reference.py  right and left lung from Hounsfield units
volume_data.py, volume_augmentation.py, volume_loop.py, volume_scores.py, volume_config.py, volume_run.py  for volumes
run.py           train, evaluate, calibrate: what the command line calls
"""
