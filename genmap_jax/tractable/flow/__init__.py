"""Normalizing flows: exact densities by invertible maps. Read `bijection` first, then the model you want.

bijection        the record of an invertible map, compositions, memory-saving repetition, the density
linear           actnorm, LU matrices and 1x1 convolutions, permutations
splines          rational-quadratic splines
coupling         coupling and autoregressive layers, their conditioners
images           logits of pixels, squeeze, multi-scale split, convolutional conditioners
dequantisation   from densities to probabilities of integers: uniform, variational
density          what all flows share as algorithms: training, likelihood, sampling

spline           neural spline flow (coupling, MAF, IAF), for vectors
glow             Glow, for images
tarflow          TarFlow: transformers over patches, for images
continuous       continuous flow (FFJORD), for vectors
"""
