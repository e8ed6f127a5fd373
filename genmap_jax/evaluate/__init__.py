"""Measurements of arrays: they know no run, no family and no file of results.

* `likelihood`    from log-probabilities of batches to the number in a table
* `distance`      energy distance, and what distances between sets share     * `kernel`   kernel distance, CMMD
* `frechet`       Fréchet distance                                           * `manifold` precision, recall, coverage
* `diversity`     Inception and Vendi score      * `memorisation`  copies    * `path_length`
* `translation`   errors of translated images to their truth and after the way back
* `resampling`    intervals, and what real data score in the samples' place  * `quality`  all of these as a table
* `features`      the spaces in which images are compared
"""
