"""MNIST in scikit-learn: `python scikit_learn_mnist.py FOLDER` prints the test accuracy.

It takes float32 rows and has no schedule for Adam: the rate is constant, half of the others' first.
"""

import sys
import warnings

import numpy as np
from mnist import BATCH, EPOCHS, HIDDEN, RATE, load
from sklearn.neural_network import MLPClassifier

warnings.simplefilter("ignore")  # that so few epochs have not converged
X, y, X_test, y_test = load(sys.argv[1])
classifier = MLPClassifier(
    HIDDEN, batch_size=BATCH, learning_rate_init=RATE / 2, alpha=0.0, max_iter=EPOCHS, random_state=0
)
classifier.fit(X.astype(np.float32) / 255, y)
print(classifier.score(X_test.astype(np.float32) / 255, y_test))
