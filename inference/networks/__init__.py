"""Networks, one idea per file.

config.py        the `[network]` table: which parts, and how large; fields.py  its values by their types
parts.py         what the table may name (these three, and config3d.py, need no torch)
backbone.py      trunks by name: residual; efficientnet.py, swin.py, hrnet.py  others
pyramid.py       the image at several scales; features at several strides
attention.py     weights of channels, of places; scale_attention.py  the kinds of attention, per scale
alignment.py     the map of a smaller scale brought to the first's grid, places and magnitude
fusion.py        several scales into one, weighted per image
local_global.py  places mixed with the image's mean; dynamic_convolution.py  a kernel mixed for each sample
cross_scale_attention.py  a second, registered input is asked
heads.py         classes tied by a hierarchy, or free of it; experts.py  a head of several experts
decoder.py       pyramid features into a segmentation
hybridmednet.py  all of them together; graph_network.py  its maps computed in int8 by ONNX Runtime
serving.py       norms folded into convolutions, channels last: what serves
recorded.py      its maps on a GPU: float16, recorded as CUDA graphs

config3d.py            the `[network]` table of networks for volumes
hybrid_convolution.py  within the planes and across them
encoder3d.py           residual blocks of volumes, coarser and coarser
decoder3d.py           back to voxels
hybridmednet3d.py      those three together
"""
