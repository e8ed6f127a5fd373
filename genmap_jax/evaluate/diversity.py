"""Diversity of one set of samples: scores that look at no real data."""

import numpy as np
from scipy.special import rel_entr, xlogy

from genmap_jax.evaluate.checks import checked


def inception_score(probabilities: np.ndarray, splits: int = 1) -> float:
    """exp of the mean KL(p(y|x) || p(y)), with p(y) the mean of p(y|x) (Salimans et al. 2016); from 1 to K.

    probabilities [N, K]: class probabilities of each sample by any classifier; only with Inception is it the published
    score. `splits` averages the scores of that many consecutive parts of the samples; the literature takes 10.
    Raises ValueError on NaN or infinity, fewer samples than splits, or rows that are no probabilities to 1e-3.
    """
    (p,) = checked(splits, probabilities=probabilities)
    if (p < 0).any() or np.abs(p.sum(1) - 1.0).max() > 1e-3:
        raise ValueError("probabilities has rows that are negative or do not sum to 1: apply a softmax to logits first")
    parts = np.array_split(p, splits)
    return float(np.mean([np.exp(rel_entr(part, part.mean(0)).sum(1).mean()) for part in parts]))


def vendi_score(features: np.ndarray) -> float:
    """The effective number of different samples, from 1 to N: exp of the entropy of the eigenvalues of K / N.

    features [N, ...], none of them zero. K holds the cosines between samples (Friedman & Dieng 2023). The eigenvalues
    of K / N are the squared singular values of the [N, D] unit vectors, over N: no N x N matrix is formed when D < N.
    Raises ValueError on NaN or infinity, or features of length zero.
    """
    (x,) = checked(1, features=features)
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    if (lengths == 0).any():
        raise ValueError(f"features has {(lengths == 0).sum()} examples of length zero: they have no direction")
    eigenvalues = np.square(np.linalg.svd(x / lengths, compute_uv=False)) / len(x)
    return float(np.exp(-xlogy(eigenvalues, eigenvalues).sum()))
