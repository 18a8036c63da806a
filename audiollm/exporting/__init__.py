"""Models for other programs: ``checkpoint`` (a folder, whole or in fewer bits), ``onnx_encoder`` (features to codes).

What may be written where is checked in ``places``.
"""

from .checkpoint import export_checkpoint
from .onnx_encoder import export_onnx

__all__ = ["export_checkpoint", "export_onnx"]
