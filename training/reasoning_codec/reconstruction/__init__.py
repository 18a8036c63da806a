"""The last stage of a ReasoningCodec's training: reconstruction codes and the flow decoder, to an SQCodec's latents.

Reading order: ``start`` (the codec that is trained) → ``segments`` (what is cut out of the recordings and drawn for it)
→ ``objective`` (the losses) → ``stage`` (updates) → ``evaluation``.
"""
