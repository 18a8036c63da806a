"""The frozen encoders whose features a LoSATok keeps: what each is, and how it is saved with what was made of it.

Reading order: ``base.py`` (what a teacher is), ``dasheng.py`` (the released one), ``plugged.py`` (any other encoder),
``kinds.py`` (from saved settings to a teacher).
"""
