"""Flow matching on latents (Lipman et al., 2023, arXiv:2210.02747), steered by a text: loss, sampling, files."""
# Shapes: B rows, T frames, D latent size, L text tokens, E width of the text encoder, P frames of a prompt.

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import SAFE_WEIGHTS_NAME

from audiollm.folders import LATENT_DIFFUSION, TEXT_TOKENIZER_FOLDER
from audiollm.tokenizer.checkpoints.folders import find_folder, read_json_object
from audiollm.tokenizer.checkpoints.tensors import check_loaded, check_shapes, stored_shapes
from audiollm.tokenizer.decoder.flow.masking import FrameMask
from audiollm.tokenizer.decoder.flow.matching import FlowDraws, GuidedVelocity, on_path
from audiollm.tokenizer.decoder.flow.solvers import Integration

from .configuration import LatentDiffusionConfig
from .text import TextBatch, make_text_encoder, read_text_tokenizer, tokenize_texts
from .transformer import DiffusionBlock, DiffusionTransformer

SMALLEST_DEVIATION = 1e-5
"""Of a latent dimension that never changes."""


@dataclass(frozen=True)
class Condition:
    """What a velocity is asked under, for some rows."""

    mask: FrameMask | None
    text: Tensor  # [B, 1 + L, C]
    text_mask: FrameMask | None
    task_ids: Tensor  # [B]
    given: Tensor  # [B, T, D], normalised
    is_given: Tensor  # [B, T, 1]


class LatentDiffusion(PreTrainedModel):
    """Makes latents of texts; `AudioGenerator` makes sound of them.

    Latents are normalised inside, by means and deviations of the training data that the checkpoint holds.

    Args:
        config: its sizes.
        text_encoder: with its weights; None: an untrained one of ``config.text_config``.
        text_tokenizer: for it; may be set later as an attribute.
    """

    config_class = LatentDiffusionConfig
    main_input_name = "latents"
    _supports_sdpa = True
    latent_mean: Tensor
    latent_deviation: Tensor

    def __init__(
        self,
        config: LatentDiffusionConfig,
        text_encoder: PreTrainedModel | None = None,
        text_tokenizer: Any = None,
    ) -> None:
        super().__init__(config)
        if config.text_config is None:
            raise ValueError("text_config is None: give that of a text encoder of transformers")
        if text_encoder is None:
            text_encoder = make_text_encoder(config.text_config)
        else:
            for module in text_encoder.modules():  # nothing of it is to be drawn anew
                module._is_hf_initialized = True
        self.transformer = DiffusionTransformer(config, config.text_config.hidden_size)
        self.text_encoder = text_encoder.requires_grad_(config.train_text_encoder)
        self.text_tokenizer = text_tokenizer
        self.register_buffer("latent_mean", torch.zeros(config.latent_size))
        self.register_buffer("latent_deviation", torch.ones(config.latent_size))
        self.post_init()
        self.train(self.training)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # At the start blocks add nothing and the velocity is zero, whatever time, task and text say (as in DiT).
        if isinstance(module, DiffusionBlock):
            init.zeros_(module.offsets)
            init.zeros_(cast(nn.Linear, module.text_attention.to_out[0]).weight)
        elif isinstance(module, DiffusionTransformer):
            init.zeros_(module.no_text)
            for linear in (module.steering, module.output_steering, module.output):
                init.zeros_(linear.weight)
                init.zeros_(linear.bias)
        elif isinstance(module, LatentDiffusion):
            init.zeros_(module.latent_mean)
            init.ones_(module.latent_deviation)

    def train(self, mode: bool = True) -> LatentDiffusion:
        """As of torch; a text encoder that does not learn stays as it evaluates."""
        super().train(mode)
        if not self.config.train_text_encoder:
            self.text_encoder.eval()
        return self

    # -------------------------------------------------------------------- parts

    def set_normalisation(self, mean_D: Tensor, deviation_D: Tensor) -> None:
        """Sets what latents are normalised by.

        Raises:
            ValueError: for another size, or numbers that are none.
        """
        for name, value in (("mean", mean_D), ("deviation", deviation_D)):
            if value.shape != self.latent_mean.shape or not torch.isfinite(value).all():
                raise ValueError(
                    f"{name} of the latents is {list(value.shape)} or no number: give [{len(self.latent_mean)}]"
                )
        self.latent_mean.copy_(mean_D)
        self.latent_deviation.copy_(deviation_D.clamp(min=SMALLEST_DEVIATION))

    def normalise(self, latents: Tensor) -> Tensor:
        """Latents ``[…, D]`` of mean 0 and deviation 1, float32."""
        return (latents.float() - self.latent_mean.float()) / self.latent_deviation.float()

    def denormalise(self, values: Tensor) -> Tensor:
        """Undoes `normalise`."""
        return values.float() * self.latent_deviation.float() + self.latent_mean.float()

    def tokenize(self, texts: Sequence[str]) -> TextBatch:
        """Turns texts into tokens.

        Raises:
            ValueError: if there is no text tokenizer, or a text is too long.
        """
        if self.text_tokenizer is None:
            raise ValueError("this model has no text tokenizer: set its attribute text_tokenizer")
        return tokenize_texts(self.text_tokenizer, texts, self.config.max_text_tokens)

    def encode_text(self, text: TextBatch) -> Tensor:
        """The text encoder's vectors of tokens, ``[B, L, E]``."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.train_text_encoder):
            states: Tensor = self.text_encoder(
                input_ids=text.input_ids, attention_mask=text.attention_mask
            ).last_hidden_state
        return states

    def condition(
        self,
        lengths: Tensor,
        text: TextBatch,
        task_ids: Tensor,
        given: Tensor,
        given_lengths: Tensor,
        keep: Tensor,
    ) -> Condition:
        """What the velocity of rows is asked under.

        Args:
            lengths: valid frames, int64 ``[B]``.
            text: of each row.
            task_ids: int64 ``[B]``.
            given: latents whose first frames are known, normalised ``[B, T, D]``.
            given_lengths: how many are, int64 ``[B]``.
            keep: bool ``[B]``; rows without know neither text, task nor given latents.
        """
        device, dtype = self.device, self.dtype
        keep = keep.to(device)
        read = self.transformer.read_text(self.encode_text(text.to(device)))
        is_said = torch.cat(
            [torch.ones(len(keep), 1, device=device), text.attention_mask.to(device) * keep[:, None]], 1
        )
        frames = torch.arange(given.shape[1], device=device)
        is_given = (frames < (given_lengths.to(device) * keep)[:, None])[:, :, None]
        return Condition(
            mask=FrameMask.make(lengths, given.shape[1], read),
            text=read,
            text_mask=FrameMask(is_said[:, None].to(read.dtype)),
            task_ids=task_ids.to(device) * keep,
            given=(given.to(device) * is_given).to(dtype),
            is_given=is_given.to(dtype),
        )

    def velocity(self, condition: Condition, x: Tensor, t: Tensor) -> Tensor:
        """The velocity at points ``[B, T, D]`` and times ``[B]`` or a scalar, in the dtype of the points."""
        made: Tensor = self.transformer(
            x.to(self.dtype), t.reshape(-1), condition.given, condition.is_given, condition.mask, condition.text,
            condition.text_mask, condition.task_ids,
        )  # fmt: skip
        return made.to(x.dtype)

    # ----------------------------------------------------------------- training

    def forward(
        self,
        latents: Tensor,
        lengths: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        task_ids: Tensor,
        draws: FlowDraws,
    ) -> Tensor:
        """Mean squared error of the velocity at one time per clip, over all frames that are neither padding nor given.

        Args:
            latents: as the audio tokenizer makes them, right-padded ``[B, T, D]``.
            lengths: valid frames, int64 ``[B]``.
            input_ids: of the texts, int64 ``[B, L]``.
            attention_mask: which of them are there.
            task_ids: int64 ``[B]``.
            draws: times, noise ``[B, T, D]``, which rows keep their condition, and how many latents are given.

        Returns:
            Scalar, float32.
        """
        errors_B, counts_B = self._errors(latents, lengths, TextBatch(input_ids, attention_mask), task_ids, draws)
        return errors_B.sum() / counts_B.sum().clamp(min=1)

    def row_losses(
        self,
        latents: Tensor,
        lengths: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        task_ids: Tensor,
        draws: FlowDraws,
    ) -> Tensor:
        """As `forward`, the mean of each clip, float32 ``[B]``."""
        errors_B, counts_B = self._errors(latents, lengths, TextBatch(input_ids, attention_mask), task_ids, draws)
        return errors_B / counts_B.clamp(min=1)

    def _errors(
        self, latents: Tensor, lengths: Tensor, text: TextBatch, task_ids: Tensor, draws: FlowDraws
    ) -> tuple[Tensor, Tensor]:
        """Summed squared errors of each row, and of how many values."""
        frames = torch.arange(latents.shape[1], device=self.device)
        is_valid = (frames < lengths.to(self.device)[:, None])[:, :, None]
        target = self.normalise(latents) * is_valid
        condition = self.condition(lengths, text, task_ids, target, draws.prompt_frames, draws.keep_condition)
        t = draws.t.float()
        point, true_velocity = on_path(draws.z.float(), target, t, self.config.sigma_min)
        error = self.velocity(condition, point, t).float() - true_velocity
        is_learnt = is_valid & (condition.is_given == 0)
        return (error.square() * is_learnt).sum(dim=(1, 2)), is_learnt.sum(dim=(1, 2)) * latents.shape[2]

    # ----------------------------------------------------------------- sampling

    @torch.no_grad()
    def sample(
        self,
        noises: Sequence[Tensor],
        text: TextBatch,
        task_ids: Tensor,
        integration: Integration,
        prompts: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """Makes latents; each row's are what it would get alone, up to rounding.

        Args:
            noises: standard normal, float32 ``[P_i + T_i, D]`` of each row.
            text: of each row; a prompt's words come first.
            task_ids: int64 ``[B]``.
            integration: solver, times and guidance.
            prompts: latents ``[P_i, D]`` that each row goes on from; None: none.

        Returns:
            float32 ``[T_i, D]`` on the CPU, without the prompts.

        Raises:
            ValueError: if a prompt leaves no frame.
        """
        empty = torch.zeros(0, self.config.latent_size)
        prompts = [empty] * len(noises) if prompts is None else prompts
        for noise, prompt in zip(noises, prompts, strict=True):
            if len(noise) <= len(prompt):
                raise ValueError(f"{len(noise)} frames with a prompt of {len(prompt)} leave none to make")
        lengths = torch.tensor([len(noise) for noise in noises])
        given_lengths = torch.tensor([len(prompt) for prompt in prompts])
        start = nn.utils.rnn.pad_sequence(list(noises), batch_first=True).to(self.device).float()
        given = torch.zeros_like(start)
        for row, prompt in enumerate(prompts):
            given[row, : len(prompt)] = self.normalise(prompt.to(self.device))
        made = self._integrate(start, lengths, text, task_ids, given, given_lengths, integration)
        values = self.denormalise(made).cpu()
        return [
            values[row, first:end].clone()
            for row, (first, end) in enumerate(zip(given_lengths.tolist(), lengths.tolist(), strict=True))
        ]

    def _integrate(
        self,
        start: Tensor,
        lengths: Tensor,
        text: TextBatch,
        task_ids: Tensor,
        given: Tensor,
        given_lengths: Tensor,
        integration: Integration,
    ) -> Tensor:
        def under(times: int) -> Condition:
            """The condition of all rows; with 2, once more without it."""
            return self.condition(
                lengths.repeat(times),
                TextBatch(text.input_ids.repeat(times, 1), text.attention_mask.repeat(times, 1)),
                task_ids.repeat(times),
                given.repeat(times, 1, 1),
                given_lengths.repeat(times),
                keep=torch.arange(times * len(start)) < len(start),
            )

        plain = doubled = partial(self.velocity, under(1))
        if integration.guidance:
            doubled = partial(self.velocity, under(2))
        return integration.solve(start, GuidedVelocity(plain, doubled, integration))

    # -------------------------------------------------------------------- files

    def save_pretrained(self, save_directory: str | os.PathLike[str], **options: Any) -> None:
        """Writes weights, configuration and the text tokenizer."""
        super().save_pretrained(save_directory, **options)
        if self.text_tokenizer is not None:
            self.text_tokenizer.save_pretrained(Path(save_directory) / TEXT_TOKENIZER_FOLDER)

    @classmethod
    def from_pretrained(cls, path_or_hub_id: str | os.PathLike[str], *arguments: Any, **options: Any) -> Any:
        """Loads what `save_pretrained` wrote; arguments and options are those of transformers.

        Raises:
            ValueError: if it is none, naming weights that are missing, unexpected, of another shape or no numbers.
        """
        folder = find_folder(os.fspath(path_or_hub_id))
        check_diffusion_folder(folder)
        _check_shapes(cls, folder)
        wants_report = options.pop("output_loading_info", False)
        model, report = super().from_pretrained(folder, *arguments, output_loading_info=True, **options)
        check_loaded(model, report, os.fspath(path_or_hub_id), instead="name a model that train-dit left")
        if not (model.latent_deviation > 0).all():
            raise ValueError(f"{path_or_hub_id}: latent_deviation is not above 0 everywhere: the file was altered")
        model.text_tokenizer = read_text_tokenizer(folder / TEXT_TOKENIZER_FOLDER)
        return (model, report) if wants_report else model


def _check_shapes(kind: type[LatentDiffusion], folder: Path) -> None:
    """Refuses weights of other shapes by the header of their file, before a model takes memory.

    Raises:
        ValueError: naming them, or the file if it is damaged, or what is wrong with the configuration.
    """
    path = folder / SAFE_WEIGHTS_NAME
    config = kind.config_class.from_pretrained(folder)
    if not path.is_file():  # in several files, or none: transformers will tell
        return
    stored = stored_shapes(path)
    with torch.device("meta"):
        expected = {name: one for name, one in kind(config).state_dict().items() if name in stored}
    check_shapes(expected, {name: stored[name] for name in expected}, path)


def check_diffusion_folder(folder: Path) -> None:
    """Raises ValueError unless a folder holds a `LatentDiffusion`."""
    config = folder / "config.json"
    if not config.is_file() or read_json_object(config).get("model_type") != LATENT_DIFFUSION:
        raise ValueError(
            f"{folder} holds no diffusion model on latents: name the model of a run of training/train_dit.py"
        )
