"""What benchmark programs share: actions, identities of runs, output of figures, pages, pictures, processes.

Reading order: ``actions`` (sub-commands from configs) → ``processes`` (``accelerate launch``) → ``identity`` (files and
runs told apart) → ``figures`` (JSON and tables) → ``page`` (HTML and Markdown from templates) → ``pictures``.
"""
