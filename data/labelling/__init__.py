"""SAP records for clips: by rules where labels are known, by models that listen and write where they are not.

Reading order: ``rules`` (what metadata say) → ``by_rules`` (a whole manifest). ``models`` (a captioner and a
structurer) with ``messages`` and ``prompts/`` → ``clips`` → ``by_models`` (a whole corpus) → ``report``. Names are
imported on first use: rules cost no transformers.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "by_models": ["label_corpus", "report_path"],
        "by_rules": ["label_by_rules", "records_by_rules"],
        "clips": ["LabelClip"],
        "models": ["ModelLabeller", "ModelLabelling", "RejectedClipError"],
        "report": ["LabellingReport", "Prices"],
        "rules": ["RULES", "SapRules", "rules_for"],
    },
)
