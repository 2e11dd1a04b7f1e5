"""Training, evaluation and calibration of bundles, from labelled images to figures in `bundle.toml`.

data.py          labels.csv and its images; split by patient group
targets.py       a lung mask as background, right lung, left lung
augmentation.py  random views and grey values
losses.py        hierarchical cross-entropy, agreement of scales, Dice
loop.py          epochs: schedule, moving average, checkpoint, resume
calibration.py   a temperature per level
scores.py        accuracy, AUC, Dice, calibration error (numpy)
evaluation.py    a bundle on its validation groups, and the aspect-only baseline
figures.py       figures into bundle.toml
compression.py   a bundle with int8 weights, kept where it answers as well
lung_reference.py  right and left lung from Hounsfield units
volume_data.py, volume_augmentation.py, volume_loop.py, volume_scores.py, volume_config.py, volume_run.py  for volumes
run.py           train, evaluate, calibrate: what the command line calls
"""
