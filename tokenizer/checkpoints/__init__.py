"""What every checkpoint needs: folders, configurations and tensors, never a model class.

Reading order: ``folders.py`` (a folder or Hub id; files put in place whole), ``tokenizer.py`` (a tokenizer's files),
``names.py`` (its tensors' names in each layout), ``tensors.py`` (any file of tensors), ``whisper.py`` (what a plain
Whisper model gives), ``fingerprint.py`` (hashes of what decides codes or sound).
"""
