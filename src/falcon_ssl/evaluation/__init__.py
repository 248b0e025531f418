"""Evaluation: functions of frozen features, each from `Features` to named numbers.

Start with `extract`, then `evaluate_features`; `picture_arrays` feeds the report. `diagnose` says of any features
whether they have collapsed, `certify` proves from the loss terms that they have not. `AlarmMonitor` and
`QualityMonitor` watch a run.
"""

from falcon_ssl.dictionary.prototypes import PrototypeDictionary as PrototypeDictionary
from falcon_ssl.evaluation.alarms import AlarmMonitor as AlarmMonitor
from falcon_ssl.evaluation.certificate import Certificate as Certificate
from falcon_ssl.evaluation.certificate import certify as certify
from falcon_ssl.evaluation.diagnosis import Diagnosis as Diagnosis
from falcon_ssl.evaluation.diagnosis import diagnose as diagnose
from falcon_ssl.evaluation.evaluate import evaluate_features as evaluate_features
from falcon_ssl.evaluation.feature_files import load_features as load_features
from falcon_ssl.evaluation.feature_files import load_prototypes as load_prototypes
from falcon_ssl.evaluation.features import Features as Features
from falcon_ssl.evaluation.features import extract as extract
from falcon_ssl.evaluation.pictures import picture_arrays as picture_arrays
from falcon_ssl.evaluation.quality import QualityMonitor as QualityMonitor
