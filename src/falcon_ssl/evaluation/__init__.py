"""Evaluation: functions of frozen features, each from `Features` to named numbers.

Start with `extract`, then `evaluate_features`; `picture_arrays` feeds the report.
"""

from falcon_ssl.evaluation.codes import PrototypeDictionary as PrototypeDictionary
from falcon_ssl.evaluation.evaluate import evaluate_features as evaluate_features
from falcon_ssl.evaluation.features import Features as Features
from falcon_ssl.evaluation.features import extract as extract
from falcon_ssl.evaluation.features import load_features as load_features
from falcon_ssl.evaluation.pictures import picture_arrays as picture_arrays
