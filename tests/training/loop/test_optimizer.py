"""Optimizers by name: which weights they take, and that a resumed one goes on to the same bits."""

from __future__ import annotations

import pytest
import torch

from audiollm.modeling import AudioLLM
from audiollm.training.audio_llm.adapters import add_adapters
from audiollm.training.audio_llm.config import LoRASettings
from audiollm.training.audio_llm.objective import TargetTokenLoss
from audiollm.training.loop.checkpoints import Checkpoints, CheckpointState, load
from audiollm.training.loop.errors import LaunchError
from audiollm.training.loop.launch import start_accumulating
from audiollm.training.loop.muon import Muon
from audiollm.training.loop.optimizer import hidden_matrices, make_optimizer, set_learning_rates

from .test_checkpoints import OneProcess

CPU = torch.device("cpu")
ON_THE_CPU = ("adamw", "muon", "adafactor", "sgd")


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(7, 6)
        self.inner = torch.nn.Linear(6, 8)
        self.gate = torch.nn.Linear(8, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.gate(torch.tanh(self.inner(self.embedding(ids)))).square().sum()


def make(config):
    torch.manual_seed(0)
    model = Small()
    return model, make_optimizer(model, config, CPU)


def update(model, optimizer, config, step):
    set_learning_rates(optimizer, step, 10, config)
    model(torch.tensor([[step % 7, 3, (2 * step) % 7]])).backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("name", ON_THE_CPU)
def test_a_saved_optimizer_goes_on_to_the_same_bits(make_config, tmp_path, name):
    config = make_config(optimizer=name)
    model, optimizer = make(config)
    before = [parameter.clone() for parameter in model.parameters()]
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step in range(1, 7):
        update(model, optimizer, config, step)
        if step == 3:
            saved = checkpoints.save(OneProcess(), model, optimizer, CheckpointState(step, {}), {})
    assert all(not torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    resumed, other = make(config)
    load(OneProcess(), resumed, other, saved)
    for step in range(4, 7):
        update(resumed, other, config, step)
    for one, again in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, again)


@pytest.mark.parametrize("tied", [True, False])
def test_muon_takes_hidden_matrices_and_adamw_the_rest(make_config, assets, tied):
    model = AudioLLM.from_pretrained(assets.audio_llm if tied else assets.untied_audio_llm).model
    config = make_config(optimizer="muon", muon_learning_rate=0.02)
    optimizer = make_optimizer(TargetTokenLoss(model), config, CPU)
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [sorted(name_of[id(one)] for one in group["params"]) for group in optimizer.param_groups]
    assert sorted(name for group in groups for name in group) == sorted(name_of.values())
    matrices, ends, vectors = groups
    assert all(name.endswith("proj.weight") for name in matrices)
    assert len(matrices) == 14
    assert ends == ["model.embed_tokens.weight"] if tied else ["lm_head.weight", "model.embed_tokens.weight"]
    assert all("norm" in name or "bias" in name for name in vectors)
    assert set_learning_rates(optimizer, 10, 10, config) == pytest.approx({"all": 1e-3, "muon": 2e-3})
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([2e-3, 1e-3, 1e-3])


def test_muon_takes_the_matrices_of_adapters_and_not_the_audio_rows(assets):
    adapted = add_adapters(AudioLLM.from_pretrained(assets.untied_audio_llm), LoRASettings(r=2))
    taken = {id(one) for one in hidden_matrices(TargetTokenLoss(adapted))}
    for name, parameter in adapted.named_parameters():
        assert (id(parameter) in taken) == ("lora_" in name), name


def test_muon_and_adamw_step_as_the_two_apart(make_config):
    config = make_config(optimizer="muon", weight_decay=0.1)
    model, optimizer = make(config)
    apart, _ = make(config)
    muon = Muon([apart.inner.weight], lr=1.0, weight_decay=0.1)
    rest = [apart.embedding.weight, apart.gate.weight]
    adamw = torch.optim.AdamW(
        [{"params": rest, "weight_decay": 0.1}, {"params": [apart.inner.bias, apart.gate.bias], "weight_decay": 0.0}],
        betas=config.betas,
        fused=True,
    )
    for step in range(1, 4):
        rates = set_learning_rates(optimizer, step, 10, config)
        for group in [*muon.param_groups, *adamw.param_groups]:
            group["lr"] = rates["all"]
        for one, optimizers in ((model, [optimizer]), (apart, [muon, adamw])):
            one(torch.tensor([[1, 2, 3]])).backward()
            for each in optimizers:
                each.step()
                each.zero_grad()
    for one, other in zip(model.parameters(), apart.parameters(), strict=True):
        assert torch.equal(one, other)


def test_muon_without_a_hidden_matrix_is_refused(make_config):
    with pytest.raises(ValueError, match="none is trained: use adamw"):
        make_optimizer(torch.nn.Embedding(5, 4), make_config(optimizer="muon"), CPU)


@pytest.mark.parametrize("name", ["lion", "adamw_8bit", "lion_8bit"])
def test_optimizers_of_gpus_are_refused_on_the_cpu(make_config, name):
    with pytest.raises(ValueError, match=rf"{name} runs on GPUs only, and this run is on cpu"):
        make_optimizer(Small(), make_config(optimizer=name), CPU)


@pytest.mark.parametrize("name", ["muon", "adafactor"])
def test_what_looks_at_whole_matrices_is_refused_where_they_are_cut_up(make_config, monkeypatch, name):
    import audiollm.training.loop.launch as launch

    monkeypatch.setattr(launch, "zero_stage", lambda accelerator: 2)
    with pytest.raises(LaunchError, match=rf"{name} looks at whole matrices, which \w+ cuts up"):
        start_accumulating(make_config(optimizer=name), lambda n: 1, micro_batch_size=1, mixed_precision="no")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"muon_learning_rate": 0.1}, "muon_learning_rate has no effect with optimizer: adamw"),
        ({"momentum": 0.5}, "momentum has no effect with optimizer: adamw"),
        ({"momentum": 0.5, "optimizer": "adafactor"}, "momentum has no effect with optimizer: adafactor"),
        ({"betas": (0.8, 0.9), "optimizer": "sgd"}, "betas has no effect with optimizer: sgd"),
        ({"momentum": 1.0, "optimizer": "sgd"}, "momentum=1.0: use a number in"),
        ({"muon_learning_rate": -1.0, "optimizer": "muon"}, "muon_learning_rate=-1.0: use a positive"),
        ({"decay_ratio": 0.5}, "decay_ratio has no effect with schedule: cosine"),
        ({"min_learning_rate_ratio": 0.5, "schedule": "constant"}, "min_learning_rate_ratio has no effect"),
        ({"decay_ratio": 0.99, "schedule": "warmup_stable_decay"}, "leaves room for the warm-up, 0.97 or less"),
    ],
)
def test_settings_without_effect_are_refused(make_config, settings, message):
    with pytest.raises(ValueError, match=message):
        make_config(**settings)


def test_a_vocoder_has_no_matrices_for_muon(make_decoder_config):
    assert make_decoder_config(optimizer="muon").optimizer == "muon"
    with pytest.raises(ValueError, match="a vocoder is made of convolutions"):
        make_decoder_config(optimizer="muon", model="vocoder")


def test_a_tokenizers_matrices_follow_its_parts(make_tokenizer_config):
    with pytest.raises(ValueError, match="each part of a tokenizer has its learning rate"):
        make_tokenizer_config(optimizer="muon", muon_learning_rate=0.1)
