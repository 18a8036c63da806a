"""What transformers' own entrances lead to: ``registration`` (auto classes), ``pipelines`` (for ``pipeline()``).

``import audiollm`` runs ``registration``, which imports nothing that is slow.
"""
