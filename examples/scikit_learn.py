"""An encoder without labels, and a classifier on 50 of them, in one scikit-learn pipeline."""

from __future__ import annotations

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from falcon_ssl import FalconEncoder

digits = load_digits()
images, labels = digits.images / 16, digits.target
encoder = FalconEncoder(epochs=10, random_state=0).fit(images[:1400])  # sees no label
few = LogisticRegression(max_iter=500).fit(encoder.transform(images[:50]), labels[:50])
raw = LogisticRegression(max_iter=500).fit(images[:50].reshape(50, -1), labels[:50])
print("50 labels:", few.score(encoder.transform(images[1400:]), labels[1400:]))
print("50 labels, pixels:", raw.score(images[1400:].reshape(-1, 64), labels[1400:]))
