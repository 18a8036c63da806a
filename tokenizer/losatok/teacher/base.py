"""What a teacher is: a frozen encoder that gives one vector for every token of a piece of a clip."""
# Shapes: B pieces, N samples, T tokens, E feature size.

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from audiollm.tokenizer.losatok.configuration import PIECE_TOKENS


class Teacher(nn.Module, ABC):
    """A frozen encoder; whoever uses it asks for no gradients.

    Attributes:
        kind: name in saved settings; empty: it can't be saved.
        feature_size: E.
        piece_tokens: most tokens that it looks at together; longer clips are cut, and each piece starts anew.
        has_range: whether quiet cells depend on the loudest one of the clip, see `loudest`.

    Raises:
        ValueError: for a size that is no positive whole number.
    """

    kind: ClassVar[str] = ""
    has_range: ClassVar[bool] = False

    def __init__(self, feature_size: int, piece_tokens: int = PIECE_TOKENS) -> None:
        super().__init__()
        for name, value in (("feature_size", feature_size), ("piece_tokens", piece_tokens)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r} of the teacher: use a positive whole number")
        self.feature_size = feature_size
        self.piece_tokens = piece_tokens

    @abstractmethod
    def forward(self, extended_BN: Tensor, loudest_B: Tensor | None = None) -> Tensor:
        """Computes features ``[B, T, E]`` of pieces with margins.

        Args:
            extended_BN: samples at 16 kHz, ``MARGIN`` more on either side.
            loudest_B: what `loudest` says of the clips that they are from; None: they are whole clips.
        """

    def loudest(self, extended_BN: Tensor) -> Tensor:
        """What `forward` needs of other pieces of the same clip, one number per piece; the largest counts."""
        return extended_BN.new_zeros(len(extended_BN))

    def loudest_of(self, pieces: Iterable[Tensor]) -> Tensor:
        """The largest of what `loudest` says of the pieces of clips, ``[B]``.

        Args:
            pieces: all of the same clips, ``[B, N_i]`` each, as `cut_pieces` gives them.
        """
        return torch.stack([self.loudest(piece) for piece in pieces]).amax(dim=0)

    def settings(self) -> dict[str, Any]:
        """Plain data that make it again, but for its weights.

        Raises:
            ValueError: if it can't be saved.
        """
        raise ValueError(
            f"a {type(self).__name__} can't be saved, as nothing would load it: use a teacher of "
            "audiollm.tokenizer.losatok.teacher, or give yours a kind and settings"
        )
