"""The codes of K codebooks as one row of symbols, as a language model reads and writes them, and back.

Each codebook has its own range of symbols. ``flat`` is frame by frame: of two codebooks ``a0 b0 a1 b1 a2 b2``. The
order ``delay`` (MusicGen, Copet et al., 2023, arXiv:2306.05284) shifts codebook k by k steps, so that a frame's later
codebooks are written when the next frames' first ones are known; a pad fills the corners: ``a0 · a1 b0 a2 b1 · b2``.
The step in which codebook 0 has a pad tells the length.
"""
# Shapes: K codebooks, T frames, S symbols of a row, B rows.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

CodeOrder = Literal["flat", "delay"]
ORDERS: tuple[CodeOrder, ...] = get_args(CodeOrder)


class Following(NamedTuple):
    """What may come next in each of B rows; ``[B]`` each."""

    codebook: Tensor  # int64: whose turn it is
    takes_code: Tensor  # bool: a code of that codebook may come
    takes_pad: Tensor  # bool: a pad may
    may_end: Tensor  # bool: the row may end


@dataclass(frozen=True)
class CodeLayout:
    """How the codes of some codebooks are one row of symbols in ``[0, size)``.

    Symbols of codebook k are its codes behind those of all codebooks before it; the pad of a delayed row is the last.

    Attributes:
        codebook_sizes: V of each codebook in use, the tokenizer's first K.
        order: ``flat`` or ``delay``; of one codebook both are the same, and called ``flat``.

    Raises:
        ValueError: if there is no codebook, or one is empty, or the order is not known.
    """

    codebook_sizes: tuple[int, ...]
    order: CodeOrder = "flat"

    def __post_init__(self) -> None:
        sizes = self.codebook_sizes
        if not isinstance(sizes, Sequence) or isinstance(sizes, str) or not sizes:
            raise ValueError(f"codebook_sizes={sizes!r}: give the size of each codebook, at least of one")
        if any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
            raise ValueError(f"codebook_sizes={list(sizes)}: every codebook has at least one code")
        if self.order not in ORDERS:
            raise ValueError(f"code_order={self.order!r}: use {' or '.join(ORDERS)}")
        object.__setattr__(self, "codebook_sizes", tuple(sizes))  # lists, as in files of JSON, would not be hashable
        if len(sizes) == 1:
            object.__setattr__(self, "order", "flat")

    @classmethod
    def from_dict(cls, stated: Any) -> CodeLayout:
        """Reads what `to_dict` gave, as it stands in a ``config.json``.

        Raises:
            ValueError: if it says something else, or what cannot be.
        """
        if not isinstance(stated, Mapping) or stated.keys() != {"codebook_sizes", "order"}:
            raise ValueError(f"{stated!r} is no layout of codes: it has codebook_sizes and order")
        return cls(stated["codebook_sizes"], stated["order"])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"codebook_sizes": list(self.codebook_sizes), "order": self.order}

    def __str__(self) -> str:
        sizes = set(self.codebook_sizes)
        codes = f"{self.codebook_sizes[0]}" if len(sizes) == 1 else "/".join(map(str, self.codebook_sizes))
        return f"{self.num_codebooks} x {codes} codes, {self.order}"

    # Sizes

    @property
    def num_codebooks(self) -> int:
        """K."""
        return len(self.codebook_sizes)

    @property
    def size(self) -> int:
        """How many symbols there are: those of all codes, and the pad of a delayed row."""
        return sum(self.codebook_sizes) + (self.order == "delay")

    @property
    def pad(self) -> int | None:
        """The pad; None in flat rows, which have none."""
        return self.size - 1 if self.order == "delay" else None

    @property
    def offsets(self) -> tuple[int, ...]:
        """The first symbol of each codebook."""
        return tuple(sum(self.codebook_sizes[:codebook]) for codebook in range(self.num_codebooks))

    def symbols_per_second(self, frame_rate: float) -> float:
        """Symbols that a second of a long sound takes.

        Args:
            frame_rate: of the tokenizer, in Hz.
        """
        return frame_rate * self.num_codebooks

    def length(self, num_frames: int) -> int:
        """Symbols of a row of so many frames; none of none."""
        steps = num_frames + self._extra_steps if num_frames > 0 else 0
        return steps * self.num_codebooks

    def whole_frames(self, length: int) -> int:
        """Most frames that so many symbols hold in all their codebooks."""
        return max(0, length // self.num_codebooks - self._extra_steps)

    def frames_for(self, length: int) -> int:
        """Fewest frames whose row has at least so many symbols; at least one."""
        return max(1, -(-length // self.num_codebooks) - self._extra_steps)

    @property
    def _extra_steps(self) -> int:
        return self.num_codebooks - 1 if self.order == "delay" else 0

    # Codes to symbols and back

    def to_symbols(self, codes: Tensor) -> Tensor:
        """One row of the codes of a clip.

        Args:
            codes: integers ``[K, T]``.

        Returns:
            int64 ``[S]``, on the same device.

        Raises:
            ValueError: naming codebook and frame of a code that is out of range, or for another number of codebooks.
        """
        writer = SymbolWriter(self)
        return torch.cat([writer.take(codes), writer.end()])

    def to_codes(self, symbols: Tensor, *, is_cut: bool = False) -> Tensor:
        """The codes of a row; the inverse of `to_symbols`.

        Args:
            symbols: integers ``[S]``.
            is_cut: the row may break off anywhere, as an answer does at a limit: the frames that are whole count.

        Returns:
            int64 ``[K, T]``, on the same device.

        Raises:
            ValueError: naming position and codebook of a symbol that cannot stand there, or if the row breaks off
                before it is whole.
        """
        reader = FrameReader(self)
        codes = reader.take(symbols)
        if not is_cut and not reader.is_whole:
            raise ValueError(
                f"the row has {reader.length} symbols and breaks off before it is whole: {codes.shape[1]} frames of "
                f"{self} have {self.length(codes.shape[1])}, one more {self.length(codes.shape[1] + 1)}"
            )
        return codes

    def check(self, symbols: Tensor) -> None:
        """Refuses a row that is no whole one; see `to_codes`."""
        self.to_codes(symbols)

    # What may follow, for a grammar

    def following(
        self, length_B: Tensor, first_pad_B: Tensor, min_frames: int = 1, max_frames: int | None = None
    ) -> Following:
        """What may come behind the symbols that there are of each of B rows.

        Args:
            length_B: how many symbols there are, int64.
            first_pad_B: position of the first pad of codebook 0 among them; -1 where there is none yet.
            min_frames: fewest frames of a row, at least 1.
            max_frames: most of them; None for no limit.
        """
        step_B, codebook_B = length_B // self.num_codebooks, length_B % self.num_codebooks
        is_start_B = codebook_B == 0
        is_open_B = first_pad_B < 0  # how many frames there will be is not decided yet
        may_stop_B = is_start_B & is_open_B & (step_B >= max(1, min_frames))
        must_stop_B = torch.zeros_like(may_stop_B)
        if max_frames is not None:
            must_stop_B = is_start_B & is_open_B & (step_B >= max_frames)
            may_stop_B = may_stop_B | must_stop_B
        if self.order == "flat":
            return Following(codebook_B, ~must_stop_B, torch.zeros_like(is_start_B), may_stop_B)
        frame_B = step_B - codebook_B
        num_frames_B = first_pad_B // self.num_codebooks
        has_code_B = (frame_B >= 0) & (is_open_B | (frame_B < num_frames_B)) & ~must_stop_B
        is_whole_B = is_start_B & ~is_open_B & (step_B >= num_frames_B + self._extra_steps)
        takes_pad_B = (~has_code_B & ~is_whole_B) | may_stop_B
        return Following(codebook_B, has_code_B & ~is_whole_B, takes_pad_B, is_whole_B)

    # Checks

    def check_codes(self, codes: Tensor, first_frame: int = 0) -> Tensor:
        """Returns codes ``[K, T]`` as int64.

        Args:
            codes: integers.
            first_frame: what the first one of them is called in messages.

        Raises:
            ValueError: as `to_symbols`.
        """
        codes = _integers(codes, "codes")
        if codes.dim() != 2 or codes.shape[0] != self.num_codebooks:
            raise ValueError(
                f"codes have shape {list(codes.shape)}, but the layout has {self.num_codebooks} codebooks ({self}): "
                f"give [{self.num_codebooks}, T]"
            )
        sizes = torch.tensor(self.codebook_sizes, device=codes.device)[:, None]
        outside = (codes < 0) | (codes >= sizes)
        if outside.any():
            codebook, frame = outside.nonzero()[0].tolist()
            raise ValueError(
                f"code {codes[codebook, frame].item()} of codebook {codebook}, frame {first_frame + frame}, is outside "
                f"[0, {self.codebook_sizes[codebook]}): these codes come from an audio tokenizer with other codebooks"
            )
        return codes

    def check_symbols(self, symbols: Tensor, start: int = 0, first_pad: int | None = None) -> None:
        """Refuses symbols that cannot stand where they do; whether the row is whole is not asked.

        Args:
            symbols: int64 ``[S]``.
            start: position of the first of them in their row.
            first_pad: position of the first pad of codebook 0 in the row; None where there is none.

        Raises:
            ValueError: naming position and codebook.
        """
        positions = torch.arange(start, start + len(symbols), device=symbols.device)
        pads_before = torch.full_like(positions, -1)
        if first_pad is not None:
            pads_before[positions > first_pad] = first_pad
        allowed = self.following(positions, pads_before)
        first = torch.tensor(self.offsets, device=symbols.device)[allowed.codebook]
        sizes = torch.tensor(self.codebook_sizes, device=symbols.device)[allowed.codebook]
        fits = allowed.takes_code & (symbols >= first) & (symbols < first + sizes)
        if self.pad is not None:
            fits |= allowed.takes_pad & (symbols == self.pad)
        if bool(fits.all()):
            return
        at = int((~fits).nonzero()[0])
        codebook, low = int(allowed.codebook[at]), int(first[at])
        wanted = [f"{low} to {low + int(sizes[at]) - 1}"] if bool(allowed.takes_code[at]) else []
        wanted += [f"the pad {self.pad}"] if bool(allowed.takes_pad[at]) else []
        expected = f"codebook {codebook} has {' or '.join(wanted)} there" if wanted else "the row has ended before"
        raise ValueError(f"symbol {symbols[at].item()} at position {start + at} cannot be ({self}): {expected}")


class SymbolWriter:
    """Turns the frames of a clip into symbols as they come; joined, they are the row of the whole clip.

    Args:
        layout: of the row.
    """

    def __init__(self, layout: CodeLayout) -> None:
        self._layout = layout
        self._num_frames = 0
        self._before: Tensor | None = None  # symbols of the last K - 1 frames of a delayed row, [K, K - 1]

    def take(self, codes: Tensor) -> Tensor:
        """The symbols, int64 ``[S]``, that the next codes ``[K, T]`` make certain; errors as `to_symbols`."""
        codes = self._layout.check_codes(codes, self._num_frames)
        self._num_frames += codes.shape[1]
        return self._symbols(codes + torch.tensor(self._layout.offsets, device=codes.device)[:, None])

    def end(self) -> Tensor:
        """The symbols, int64 ``[S]``, behind the last frame."""
        if self._before is None or not self._num_frames:
            return torch.zeros(0, dtype=torch.int64)
        return self._symbols(self._pads(self._before.device))

    def _symbols(self, symbols_KT: Tensor) -> Tensor:
        if self._layout.order == "flat":
            return symbols_KT.T.reshape(-1)
        if self._before is None:
            self._before = self._pads(symbols_KT.device)
        delay = self._layout.num_codebooks - 1
        known = torch.cat([self._before, symbols_KT], dim=1)
        num_steps = symbols_KT.shape[1]
        shifted = [known[k, delay - k : delay - k + num_steps] for k in range(self._layout.num_codebooks)]
        self._before = known[:, num_steps:]
        return torch.stack(shifted, dim=1).reshape(-1)

    def _pads(self, device: torch.device) -> Tensor:
        num_codebooks, pad = self._layout.num_codebooks, self._layout.pad
        assert pad is not None  # of delayed rows alone
        return torch.full((num_codebooks, num_codebooks - 1), pad, dtype=torch.int64, device=device)


class FrameReader:
    """Turns the symbols of a row into codes as they come, whole frames alone; joined, they are those of the row.

    Args:
        layout: of the row.
    """

    def __init__(self, layout: CodeLayout) -> None:
        self._layout = layout
        self._num_checked = 0
        self._first_pad: int | None = None  # position of that of codebook 0
        self._num_frames = 0  # given out
        self._kept: Tensor | None = None  # the symbols from the first step of the next frame on

    @property
    def length(self) -> int:
        """How many symbols there were."""
        return self._num_checked

    @property
    def is_whole(self) -> bool:
        """Whether the row may end here."""
        if self._layout.pad is None or not self._num_checked:
            return self._num_checked == self._layout.length(self._num_frames)
        has_all = self._first_pad == self._num_frames * self._layout.num_codebooks
        return has_all and self._num_checked == self._layout.length(self._num_frames)

    def take(self, symbols: Tensor) -> Tensor:
        """The codes, int64 ``[K, T]``, of the frames that the next symbols ``[S]`` make whole; T may be 0.

        Raises:
            ValueError: as `CodeLayout.to_codes`.
        """
        symbols = _integers(symbols, "symbols")
        if symbols.dim() != 1:
            raise ValueError(f"symbols have shape {list(symbols.shape)}: a row of them is [S]")
        self._look_for_pad(symbols)
        self._layout.check_symbols(symbols, self._num_checked, self._first_pad)
        self._num_checked += len(symbols)
        kept = symbols if self._kept is None else torch.cat([self._kept, symbols])
        num_codebooks, delay = self._layout.num_codebooks, int(self._layout.order == "delay")
        num_new = self._layout.whole_frames(len(kept))
        if self._first_pad is not None:
            num_new = min(num_new, self._first_pad // num_codebooks - self._num_frames)
        steps = kept[: len(kept) // num_codebooks * num_codebooks].reshape(-1, num_codebooks)
        codes = [steps[k * delay : k * delay + num_new, k] - offset for k, offset in enumerate(self._layout.offsets)]
        self._kept = kept[num_new * num_codebooks :]
        self._num_frames += num_new
        return torch.stack(codes)

    def _look_for_pad(self, symbols: Tensor) -> None:
        if self._layout.pad is None or self._first_pad is not None:
            return
        first = -self._num_checked % self._layout.num_codebooks  # the next one of codebook 0
        found = (symbols[first :: self._layout.num_codebooks] == self._layout.pad).nonzero()
        if len(found):
            self._first_pad = self._num_checked + first + int(found[0]) * self._layout.num_codebooks


def _integers(values: Tensor, name: str) -> Tensor:
    if values.numel() and (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool):
        raise ValueError(f"{name} are {values.dtype}, but must be integers")
    return values.long()
