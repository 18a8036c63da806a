"""SAP records for clips: by rules where labels are known, by models that listen and write where they are not.

Reading order: ``rules`` (what metadata say) → ``by_rules`` (a whole manifest). ``models`` (a captioner and a
structurer) with ``messages`` and ``prompts/`` → ``clips`` → ``by_models`` (a whole corpus) → ``report``.
"""

from __future__ import annotations

from .by_models import label_corpus, report_path
from .by_rules import label_by_rules, records_by_rules
from .clips import LabelClip
from .models import ModelLabeller, ModelLabelling, RejectedClipError
from .report import LabellingReport, Prices
from .rules import RULES, SapRules, rules_for

__all__ = [
    "RULES",
    "LabelClip",
    "LabellingReport",
    "ModelLabeller",
    "ModelLabelling",
    "Prices",
    "RejectedClipError",
    "SapRules",
    "label_by_rules",
    "label_corpus",
    "records_by_rules",
    "report_path",
    "rules_for",
]
