"""The check of a GPU: tried out on a processor, and what comes of sections that break, hang or do not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from audiollm.benchmarks.speed.gpu import decode, encode, flags, generate, marked_tests
from audiollm.benchmarks.speed.gpu.document import JSON_NAME, TABLE_NAME, CheckDocument
from audiollm.benchmarks.speed.gpu.machine import peak_of
from audiollm.benchmarks.speed.gpu.measurements import Measurements, SectionSettings
from audiollm.benchmarks.speed.gpu.plan import MACHINE, SECTIONS, Section, chosen_sections, seconds_for
from audiollm.benchmarks.speed.gpu.processes import Ending, run_process
from audiollm.benchmarks.speed.llm_shapes import QWEN_05B, QWEN_15B, SMOKE_SHAPE, qwen_config
from audiollm.training import gpu_check
from audiollm.training.gpu_check import GpuCheckConfig
from audiollm.training.speed import sft

ROOT = Path(__file__).parents[2]
RATES = {"float32": 50.0, "tf32": 50.0, "bfloat16": 50.0, "float16": 50.0}


def measurements_in(folder: Path, **settings: Any) -> Measurements:
    told = {"results": str(folder / "results.jsonl"), "ends_at": time.time() + 3600, "smoke": True, "device": "cpu"}
    return Measurements(SectionSettings(**(told | settings)))


def lines_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def check_planned(folder: Path) -> dict[str, dict[str, Any]]:
    """What a section wrote by name, after seeing that it is what it had announced."""
    announced, *lines = lines_in(folder)
    assert [line["name"] for line in lines] == announced["planned"]
    return {line["name"]: line for line in lines}


# --- on a processor ---------------------------------------------------------------------------------------------------


def smoke(folder: Path, *more: str) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "training" / "gpu_check.py"), "--smoke", "--device", "cpu"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--output_dir", str(folder), *more], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (folder / TABLE_NAME).read_text()
    found: dict[str, Any] = json.loads((folder / JSON_NAME).read_text())
    assert found["is_complete"]
    return found


def test_the_program_runs_its_sections_and_writes_a_table(tmp_path: Path) -> None:
    found = smoke(tmp_path, "--sections", "[tests]", "--budget_seconds", "3600")
    assert {name: one["status"] for name, one in found["sections"].items()} == {"machine": "done", "tests": "done"}
    machine, tests = (found["sections"][name]["measurements"] for name in ("machine", "tests"))
    assert {one["figures"]["format"] for name, one in machine.items() if name != "facts"} == set(RATES)
    assert tests["tests marked gpu"]["figures"]["collected"] >= 2  # and not run
    assert "| machine | products in bfloat16 | " in (tmp_path / TABLE_NAME).read_text()


def test_with_the_least_time_the_machine_is_told_and_the_rest_named(tmp_path: Path) -> None:
    found = smoke(tmp_path, "--sections", "[encode]", "--budget_seconds", "15")
    assert {name: one["status"] for name, one in found["sections"].items()} == {"machine": "done", "encode": "not run"}


@pytest.mark.parametrize("seconds", [-1.0, 14.0, float("nan"), float("inf")])
def test_a_time_in_which_nothing_can_be_done_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match=f"budget_seconds={seconds:g}: use 15 or more"):
        GpuCheckConfig(budget_seconds=seconds)


@pytest.mark.slow
def test_all_sections_run_on_a_processor(tmp_path: Path) -> None:
    found = smoke(tmp_path, "--budget_seconds", "3600")
    assert list(found["sections"]) == [section.name for section in SECTIONS]
    assert all(one["status"] == "done" for one in found["sections"].values())


def test_every_form_of_encoding_is_held_against_the_plain_path(tmp_path: Path) -> None:
    encode.measure(measurements_in(tmp_path, gflops=RATES))
    found = check_planned(tmp_path)
    one = found["one file of 3 s, float32"]["figures"]
    assert one["share_of_codes_changed"] == 0
    assert one["share_of_bound"] > 0
    assert one["speedup_median"] > 0
    assert found["8 times as fast as plain"]["figures"]["target"] == 8


def test_decoding_tells_of_its_first_sound(tmp_path: Path) -> None:
    decode.measure(measurements_in(tmp_path))  # without rates there is no bound
    found = check_planned(tmp_path)
    assert found["first sound of a stream, 2 steps, float32"]["figures"]["first_sound_codes"] > 0
    assert found["one clip of 0.4 s, bfloat16"]["figures"]["flops"] > 0
    assert "share_of_bound" not in found["one clip of 0.4 s, bfloat16"]["figures"]


def test_generating_counts_tokens_of_all_rows(tmp_path: Path) -> None:
    generate.measure(measurements_in(tmp_path))
    found = check_planned(tmp_path)
    for rows in (1, 8):
        for name in ("text, transformers", "text, ours", "sound, ours"):
            figures = found[f"{name}, {rows} row{'s' * (rows > 1)}"]["figures"]
            counted = figures["tokens_per_second"] * figures["seconds"]
            assert counted == pytest.approx(rows * figures["tokens_per_row"])


# --- fine-tuning ------------------------------------------------------------------------------------------------------


def test_all_ways_to_train_learn_the_same(tmp_path: Path) -> None:
    sft.measure(measurements_in(tmp_path, gflops=RATES, peak_gflops=100.0, arguments={"shape": "Qwen2.5-0.5B"}))
    found = check_planned(tmp_path)
    padded, packed, compiled = (found[name]["figures"]["losses"] for name in ("padded", "packed", "packed, compiled"))
    assert packed == pytest.approx(padded, rel=1e-2)  # products in bfloat16
    assert compiled == pytest.approx(packed, rel=1e-2)
    figures = found["packed"]["figures"]
    assert figures["padding_share"] == 0
    assert found["padded"]["figures"]["padding_share"] > 0
    assert figures["mfu_of_measured_rate"] == pytest.approx(2 * figures["mfu_of_data_sheet"])
    assert figures["done_of_measured_rate"] < figures["mfu_of_measured_rate"]
    assert found["packed, Liger"]["status"] == found["packed, flash attention"]["status"] == "skipped"


def test_operations_are_six_for_each_weight_and_token_and_those_of_attention() -> None:
    model = AutoModelForCausalLM.from_config(qwen_config(SMOKE_SHAPE))
    width, depth = SMOKE_SHAPE.hidden_size, SMOKE_SHAPE.num_layers
    layers = depth * (2 * width * width + 2 * width * width // 2 + 3 * width * SMOKE_SHAPE.feed_forward_size)
    head = width * SMOKE_SHAPE.vocabulary_size
    usual, done = sft.operations_of(model, tokens=10, targets=4, squares=58)
    attention = 3 * 2 * 2 * 58 * width * depth // 2
    assert usual == 6 * (layers + head) * 10 + attention
    assert done == 6 * layers * 10 + 6 * head * 4 + attention


def test_records_fill_so_many_tokens_and_the_same_passes_hold_them_all() -> None:
    records = sft.draw_records(2000, vocabulary_size=50, longest=300, seed=1)
    lengths = [len(record["input_ids"]) for record in records]
    assert 1600 < sum(lengths) <= 2000
    assert max(lengths) <= 300
    for variant in sft.VARIANTS[:2]:
        passes = sft.passes_of(records, variant, tokens_per_pass=600)
        assert max(one["input_ids"].numel() for one in passes) <= 600
        targets = sum(int((one["labels"][:, 1:] != -100).sum()) for one in passes)
        assert targets == sum(sum(label != -100 for label in record["labels"][1:]) for record in records)


@pytest.mark.parametrize(("shape", "billions"), [(QWEN_05B, 0.494), (QWEN_15B, 1.544)])
def test_shapes_are_those_of_the_published_models_and_the_audio_rows(shape: Any, billions: float) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(qwen_config(shape))
    more_rows = (shape.vocabulary_size - 151_936) * shape.hidden_size
    assert (model.num_parameters() - more_rows) / 1e9 == pytest.approx(billions, abs=6e-4)


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_what_does_not_fit_or_fails_ends_no_other_measurement(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measurements = measurements_in(tmp_path)

    def fails(error: Exception) -> Any:
        raise error

    too_large = "CUDA out of memory. Tried to allocate 9 GiB.\nMore of it"
    assert measurements.make("large", lambda: fails(torch.OutOfMemoryError(too_large))) is None
    assert measurements.make("bare", lambda: fails(ModuleNotFoundError("No module", name="liger_kernel.ops"))) is None
    assert measurements.make("broken", lambda: fails(ZeroDivisionError("of nothing"))) is None
    assert measurements.make("good", lambda: {"told": "fine", "value": 1}) == {"told": "fine", "value": 1}
    large, bare, broken, good = lines_in(tmp_path)
    assert (large["status"], large["reason"]) == ("does not fit", "CUDA out of memory. Tried to allocate 9 GiB.")
    assert (bare["status"], bare["reason"]) == (
        "skipped", "needs what is not installed: pip install liger-kernel",
    )  # fmt: skip
    assert (broken["status"], broken["reason"]) == ("failed", "ZeroDivisionError: of nothing")
    assert (good["status"], good["told"], good["figures"]) == ("done", "fine", {"value": 1})
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_no_measurement_begins_when_the_time_is_over(tmp_path: Path) -> None:
    measurements = measurements_in(tmp_path, ends_at=time.time() - 1)
    assert measurements.make("late", lambda: pytest.fail("it began")) is None
    assert lines_in(tmp_path) == [{"name": "late", "status": "not run", "reason": "the section's time was over"}]


PROGRAM = """
import json, subprocess, sys, time
settings = json.load(open(sys.argv[1]))
def write(**line):
    with open(settings["results"], "a") as file:
        file.write(json.dumps(line) + "\\n")
"""


@pytest.fixture
def section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a section of a program."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(program: str, **facts: Any) -> Section:
        (tmp_path / "made_section.py").write_text(PROGRAM + program)
        return Section("made", "made", "made_section", 1, **facts)

    return make


def run_made(section: Section, folder: Path, told: list[dict[str, Any]], clock: Any = time.time) -> Ending:
    return run_process(section, {"smoke": True}, 3600, folder / "log", told.append, lambda _: None, clock)


def test_a_section_that_hangs_is_ended_with_all_that_it_started_and_loses_nothing(tmp_path: Path, section: Any) -> None:
    told: list[dict[str, Any]] = []

    def clock() -> float:  # the time is over as soon as there is a result
        return 7200.0 if any("child" in line for line in told) else 0.0

    hangs = section(
        "child = subprocess.Popen(['sleep', '600'])\nwrite(planned=['first', 'second'])\n"
        "write(name='first', status='done', child=child.pid)\ntime.sleep(600)\n"
    )
    ending = run_made(hangs, tmp_path, told, clock)
    assert (ending.status, ending.reason) == ("stopped", "its 3600 s were over")
    assert [line.get("name") for line in told] == [None, "first"]
    state = Path(f"/proc/{told[1]['child']}/stat")
    assert not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] in "ZX"


def test_a_section_that_breaks_says_its_last_words(tmp_path: Path, section: Any) -> None:
    ending = run_made(section("write(name='first', status='done')\nraise RuntimeError('no more')\n"), tmp_path, [])
    assert ending.status == "failed"
    assert ending.reason is not None
    assert ending.reason.startswith("ended with status 1: ")
    assert ending.reason.endswith("RuntimeError: no more")


def test_a_section_without_a_package_is_skipped_with_the_command(tmp_path: Path, section: Any) -> None:
    ending = run_made(section("import no_such_package.part\n"), tmp_path, [])
    assert ending == Ending("skipped", "needs what is not installed: pip install no-such-package")


def fake_process(facts: dict[str, Any], endings: dict[str, Ending], ran: list[str]) -> Any:
    def run(section: Section, settings: Any, seconds: float, log: Path, tell: Any, wait: Any) -> Ending:
        ran.append(section.name)
        if section is MACHINE:
            tell({"name": "facts", "status": "done", "told": "a machine", "figures": facts})
        else:
            tell({"planned": ["first", "second"]})
            tell({"name": "first", "status": "done", "told": "fast | slow", "peak_gib": 1.25})
        return endings.get(section.name, Ending("done"))

    return run


def test_sections_that_are_missing_are_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []
    facts = {"device": "cuda:0", "peak_gflops": None}
    endings = {"encode": Ending("stopped", "its 9 s were over"), "decode": Ending("failed", "ended with status 1: oh")}
    monkeypatch.setattr(gpu_check, "run_process", fake_process(facts, endings, ran))
    monkeypatch.setattr(gpu_check, "missing_packages", lambda modules: ["soundfile"] if "soundfile" in modules else [])
    assert gpu_check.run(GpuCheckConfig(output_dir=str(tmp_path / "new" / "check"))) == 1
    found = json.loads((tmp_path / "new" / "check" / JSON_NAME).read_text())["sections"]
    assert "generate" not in ran
    assert found["generate"]["reason"] == "needs what is not installed: pip install soundfile"
    assert found["encode"]["measurements"]["second"] == {"status": "not run", "reason": "its 9 s were over"}
    table = (tmp_path / "new" / "check" / TABLE_NAME).read_text()
    assert "| encode | second | **not run**: its 9 s were over |  |" in table
    assert "| encode | first | fast \\| slow | 1.2 |" in table
    assert "| decode |  | **failed**: ended with status 1: oh |  |" in table
    assert "1 failed: decode: ended with status 1: oh" in capsys.readouterr().err
    with pytest.raises(ValueError, match="exists already"):
        gpu_check.run(GpuCheckConfig(output_dir=str(tmp_path / "new" / "check")))


def test_without_a_gpu_only_the_machine_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(gpu_check, "run_process", fake_process({"device": "cpu", "peak_gflops": None}, {}, ran))
    with pytest.raises(ValueError, match="no GPU here: --smoke tries"):
        gpu_check.run(GpuCheckConfig(output_dir=str(tmp_path)))
    assert ran == ["machine"]


def test_a_check_without_time_left_names_what_it_did_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(gpu_check, "run_process", fake_process({"device": "cuda:0", "peak_gflops": None}, {}, ran))
    monkeypatch.setattr(gpu_check._Check, "_seconds", lambda self: 50.0 * len(ran))
    gpu_check.run(GpuCheckConfig(output_dir=str(tmp_path), budget_seconds=60, sections=("encode", "decode")))
    found = json.loads((tmp_path / JSON_NAME).read_text())["sections"]
    assert ran == ["machine"]
    assert [found[name]["reason"] for name in ("encode", "decode")] == ["the 60 s of the check were over"] * 2


# --- its parts --------------------------------------------------------------------------------------------------------


def test_what_a_section_leaves_of_its_time_is_shared_by_the_later_ones() -> None:
    first, *later = chosen_sections(None)
    assert seconds_for(first, later, 540) < 0.2 * 540
    assert seconds_for(later[-1], [], 100) == 100
    assert seconds_for(later[0], later[1:], 400) > seconds_for(later[0], later[1:], 300)


def test_unknown_sections_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"sections: spin unknown; choose among machine, tests, encode"):
        GpuCheckConfig(sections=("spin",))
    with pytest.raises(ValueError, match="budget_seconds=5: use 15 or more"):
        GpuCheckConfig(budget_seconds=5)
    assert [one.name for one in chosen_sections(["decode"])] == ["machine", "decode"]


def test_a_document_is_whole_at_every_moment(tmp_path: Path) -> None:
    made = Section("made", "made", "none", 1)
    document = CheckDocument(tmp_path, {}, [made])
    assert "| made |  | **not run**: not begun |  |" in (tmp_path / TABLE_NAME).read_text()
    document.begin(made, 9.0)
    document.add(made, {"name": "loss", "status": "done", "told": "", "figures": {"value": float("nan")}})
    assert json.loads((tmp_path / JSON_NAME).read_text())["sections"]["made"]["measurements"]["loss"]
    assert "(not complete)" in (tmp_path / TABLE_NAME).read_text()


def test_a_report_of_pytest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    path.write_text(
        "<testsuites><testsuite><testcase name='a'/><testcase name='b'><failure message='no\nmore'/></testcase>"
        "<testcase name='c'><skipped/></testcase></testsuite></testsuites>"
    )
    figures = marked_tests.read_report(path)
    assert figures["told"] == "1 passed, 1 failed, 1 skipped"
    assert figures["failures"] == ["b: ['no more']"]


@pytest.mark.parametrize(
    ("name", "peak"),
    [("NVIDIA H200", 989.4e3), ("NVIDIA A100-SXM4-80GB", 312e3), ("NVIDIA H100 PCIe", None), ("Tesla T4", None)],
)
def test_data_sheets_are_known_by_the_name_of_the_gpu(name: str, peak: float | None) -> None:
    assert peak_of(name) == peak


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Of a program."""

    output_dir: str = "here"
    seconds: float = 1.0
    names: tuple[str, ...] | None = None
    smoke: bool = False
    device: str | None = None


def test_flags_are_read_without_the_parser_of_other_programs(capsys: pytest.CaptureFixture[str]) -> None:
    read = flags.run_program(
        Flags, vars, arguments=["--output-dir", "there", "--seconds", "2", "--names", "a", "b", "--smoke"]
    )
    assert read == {"output_dir": "there", "seconds": 2.0, "names": ["a", "b"], "smoke": True, "device": None}
    assert flags.run_program(Flags, vars, arguments=["--output_dir", "x"])["output_dir"] == "x"

    def refuse(config: Flags) -> None:
        raise ValueError("seconds=1: too few")

    with pytest.raises(SystemExit, match="error: seconds=1: too few"):
        flags.run_program(Flags, refuse, arguments=[])


def test_without_jsonargparse_the_program_still_reads_its_flags(tmp_path: Path) -> None:
    (tmp_path / "jsonargparse.py").write_text("raise ModuleNotFoundError(\"No module named 'jsonargparse'\")")
    done = subprocess.run(
        [sys.executable, str(ROOT / "training" / "gpu_check.py"), "--budget-seconds", "2"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "gpu_check.py: error: budget_seconds=2: use 15 or more" in done.stderr
