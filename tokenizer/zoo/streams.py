"""A stream of samples in pieces of whole frames, for tokenizers that encode what comes in."""
# Shapes: N samples.

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from audiollm.tokenizer.signal.resampling import Resampler, check_sample_rate
from audiollm.tokenizer.signal.waveforms import check_waveform


def whole_pieces(
    chunks: Iterable[Tensor], sample_rate: int, target_rate: int, largest: int, smallest: int | None = None
) -> Iterator[Tensor]:
    """Resamples a stream and cuts it anew.

    Args:
        chunks: consecutive pieces of one waveform, float ``[N_i]``, of any lengths.
        sample_rate: their rate in Hz.
        target_rate: that of what is yielded.
        largest: most samples of a piece.
        smallest: a piece has a multiple of these, and comes as soon as there is one; None: ``largest``.

    Yields:
        float32 ``[N]`` on the CPU, none of them empty; only the last may be no multiple.

    Raises:
        ValueError: for a sample rate that makes no sense, or a chunk that is no waveform, naming it.
    """
    step = largest if smallest is None else smallest
    resampler = Resampler(check_sample_rate(sample_rate), target_rate)
    waiting: list[Tensor] = []
    num_waiting = 0
    for index, chunk in enumerate(chunks):
        made = resampler.push(check_waveform(chunk, f"chunk {index}").cpu())
        waiting.append(made)
        num_waiting += len(made)
        if num_waiting >= step:
            together = torch.cat(waiting)
            whole = num_waiting // step * step
            yield from together[:whole].split(largest)
            waiting, num_waiting = [together[whole:].clone()], num_waiting - whole
    rest = torch.cat([*waiting, resampler.finish()])
    if len(rest):
        yield from rest.split(largest)
