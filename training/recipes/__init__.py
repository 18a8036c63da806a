"""Parts of the programs that run several trainings after one another.

``launching`` starts trainers as users do, ``schedule`` runs the steps that are due; ``demo``, ``mini``, ``real`` and
``sap_sae`` belong to the program of that name, ``decoder_report`` to ``decoder_demo.py``. ``fitted_tokenizer`` makes an
audio tokenizer without training, ``answering`` asks a trained model, ``gates`` measures how far the gate of a tokenizer
opens, ``marked_page`` puts results into a page.
"""
