"""Networks, one idea per file.

backbone.py      torchvision ResNet as four feature stages
pyramid.py       the image at several scales; features at several strides
attention.py     where and what to look at, per scale
fusion.py        several scales into one, weighted per image
heads.py         classes tied by a hierarchy
decoder.py       pyramid features into a segmentation
hybridmednet.py  all of them together

hybrid_convolution.py  within the planes and across them
encoder3d.py           residual blocks of volumes, coarser and coarser
decoder3d.py           back to voxels
hybridmednet3d.py      those three together
"""
