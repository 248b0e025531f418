"""The whole job as Python functions, one per command; the command line parses, calls these and prints.

pretrain(config, out=...) -> run folder      evaluate(run) -> numbers      falcon_ssl.report -> pages
"""

from falcon_ssl.core.extras import train_extra

# Imported eagerly: each function has the name of its module, and must win over it.
with train_extra("falcon_ssl.commands"):
    from falcon_ssl.commands.baseline import baseline
    from falcon_ssl.commands.diagnose import diagnose
    from falcon_ssl.commands.duplicates import duplicates
    from falcon_ssl.commands.embed import embed
    from falcon_ssl.commands.estimator import FalconEncoder
    from falcon_ssl.commands.evaluate import evaluate, evaluation_name
    from falcon_ssl.commands.export import export
    from falcon_ssl.commands.finetune import finetune
    from falcon_ssl.commands.load_encoder import load_encoder
    from falcon_ssl.commands.loading import load_run
    from falcon_ssl.commands.pretrain import pretrain
    from falcon_ssl.commands.search import search
    from falcon_ssl.commands.speedrun import speedrun
    from falcon_ssl.commands.views import views_sheet

__all__ = [
    "FalconEncoder",
    "baseline",
    "diagnose",
    "duplicates",
    "embed",
    "evaluate",
    "evaluation_name",
    "export",
    "finetune",
    "load_encoder",
    "load_run",
    "pretrain",
    "search",
    "speedrun",
    "views_sheet",
]
