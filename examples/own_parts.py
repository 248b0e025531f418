"""Your encoder, your data set and your augmentation, in a run like any other: `python own_parts.py`.

From the shell, in the folder of my_parts.py, the same run and its pages:

    export PYTHONPATH=.
    falcon-ssl pretrain --encoder.name python:my_parts:encoder --data python:my_parts:data \
        --views.preset python:my_parts:views --epochs 5 --out runs/own --trust_code
    falcon-ssl evaluate runs/own --trust_code
    falcon-ssl report runs/own
"""

from __future__ import annotations

import my_parts

from falcon_ssl import commands
from falcon_ssl.config import FalconConfig, RunConfig
from falcon_ssl.report import build_report

config = RunConfig(epochs=5, falcon=FalconConfig(embed_dim=64))
run = commands.pretrain(
    config,
    out="runs/own",
    resume="auto",  # begins, or goes on where a stop left it
    encoder=my_parts.encoder,
    data=my_parts.data,
    views=my_parts.views,
)
numbers = commands.evaluate(run)
print(f"kNN {numbers['top1_knn']:.3f}, untrained {numbers['random_encoder']['top1_knn']:.3f}")
print(commands.diagnose(run).sentence)
print(build_report(run))
