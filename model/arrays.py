"""The arrays that the modules of this package hand to each other. n counts pictures."""

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.uint8]
"""(n, 28, 28), or (28, 28) for one: grey, 0 to 255, bright clothing on black."""

Labels = NDArray[np.uint8]
"""(n,): indices into dataset.LABELS."""

Probabilities = NDArray[np.float32]
"""(n, classes): every row a distribution over the labels."""

Features = NDArray[np.float32]
"""(n, d): what the network has made of each picture before its last layer."""

Scores = NDArray[np.float32]
"""(n,): how unlike the training pictures each one is; above 1 it is taken for something else."""
