"""ReasoningCodec (UniAudio 2.0, arXiv:2602.04683): codes to reason with, apart from codes to reconstruct with.

Reading order: ``configuration.py`` (sizes), ``encoders.py`` (the frozen encoders that hear), ``transformer.py`` and
``reasoning.py`` (8 codes at 5 Hz), ``reconstruction.py`` (8 codes at 12.5 Hz, under the influence of those),
``heads.py`` (what codes are taught by), ``dit.py`` and ``flow.py`` (codes to an SQCodec's latents), ``windows.py``
(long clips), ``model.py`` (all of it), ``names.py`` (what released files call the weights).
"""
