"""Parts of ``training/sap_sae_experiment.py``, which asks what SAP and SAE are worth.

Read ``data``, ``evaluation`` of one run, ``summary`` over the seeds, ``report``. Two are programs of their own:
``python -m audiollm.training.recipes.sap_sae.evaluation`` and ``….report``.
"""
