"""Parts of the programs that run several trainings after one another.

``launching`` starts trainers as users do; ``demo``, ``mini`` and ``sap_sae`` belong to the program of that name,
``decoder_report`` to ``decoder_demo.py``; ``gates`` measures how far the gate of a tokenizer opens.
"""
