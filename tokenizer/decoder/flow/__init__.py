"""The flow model: from codes to a mel spectrogram.

Reading order: ``model.py``, ``token_encoder.py`` (a transformer over the codes), ``length_regulator.py`` (codes
stretched to mel frames), ``matching.py`` (the flow from noise to mel), ``estimator.py`` (its velocity), ``masking.py``
(padding).
"""
