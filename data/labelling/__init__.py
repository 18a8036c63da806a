"""SAP records for clips: by rules where labels are known, by models that listen and write where they are not.

Reading order: ``rules`` (what metadata say) → ``by_rules`` (a whole manifest). ``models`` (a captioner and a
structurer) with ``messages`` and ``prompts/`` → ``clips`` → ``by_models`` (a whole corpus) → ``report``. Names are
imported on first use: rules cost no transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME_OF = {
    "LabelClip": "audiollm.data.labelling.clips",
    "LabellingReport": "audiollm.data.labelling.report",
    "ModelLabeller": "audiollm.data.labelling.models",
    "ModelLabelling": "audiollm.data.labelling.models",
    "Prices": "audiollm.data.labelling.report",
    "RULES": "audiollm.data.labelling.rules",
    "RejectedClipError": "audiollm.data.labelling.models",
    "SapRules": "audiollm.data.labelling.rules",
    "label_by_rules": "audiollm.data.labelling.by_rules",
    "label_corpus": "audiollm.data.labelling.by_models",
    "records_by_rules": "audiollm.data.labelling.by_rules",
    "report_path": "audiollm.data.labelling.by_models",
    "rules_for": "audiollm.data.labelling.rules",
}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
