"""The scikit-learn face: MLPClassifier and MLPRegressor."""

from nnkit.estimators.classifier import MLPClassifier
from nnkit.estimators.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
