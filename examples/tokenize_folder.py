"""Tokenizes the recordings of a folder and draws what one of them becomes.

    python examples/tokenize_folder.py RECORDINGS --output codes

writes ``codes/codes.jsonl`` (a line per recording) and ``codes/codes.png``: the first recording, its codes, and what
the decoder makes of them again. Without a folder it takes five recordings that come with the package, the first of its
Italian telephone prompts, and says so.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from audiollm import UniAudioTokenizer, load_audio
from audiollm.data.audio import save_audio
from audiollm.data.corpora import SAMPLE_FOLDER
from audiollm.data.files.json_lines import read_json_lines
from audiollm.data.tokenizing import tokenize_corpus
from audiollm.mini import mini_folder
from audiollm.program import errors_as_one_line


def draw(waveform, decoded, codes, sample_rate: int, decoded_rate: int, path: Path) -> None:
    """Spectrograms of a recording and of its codes' sound, and the codes between them over the same seconds."""
    seconds = len(waveform) / sample_rate
    figure = Figure(figsize=(9, 6), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    for axes, samples, rate, title in (
        (top, waveform, sample_rate, "recording"),
        (bottom, decoded, decoded_rate, "sound of the codes"),
    ):
        axes.specgram(samples.numpy() + 1e-9, NFFT=512, noverlap=384, Fs=rate, cmap="magma", vmin=-120, vmax=-30)
        axes.set(title=title, ylabel="Hz", ylim=(0, 8000))
    middle.plot([(n + 0.5) / 25 for n in range(len(codes))], codes, ".", markersize=5)
    middle.set(title=f"{len(codes)} codes, 25 per second", ylabel="code")
    bottom.set(xlabel="seconds", xlim=(0, seconds))
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", nargs="?", type=Path, help="folder of recordings")
    parser.add_argument("--output", type=Path, default=Path("runs/examples/codes"), help="folder for the results")
    arguments = parser.parse_args()

    folder = arguments.recordings or SAMPLE_FOLDER / "asterisk" / "it"
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".wav", ".flac", ".opus", ".ogg", ".mp3"))
    if not files:
        parser.error(f"{folder} " + ("holds no recordings" if folder.is_dir() else "is no folder"))
    if arguments.recordings is None:
        files = files[:5]
        print(
            f"no folder was given: here are {len(files)} Italian telephone prompts that come with the package, {folder}"
        )
    audio_tokenizer = UniAudioTokenizer.from_pretrained(mini_folder() / "audio_tokenizer")
    report = tokenize_corpus(files, audio_tokenizer, arguments.output / "codes.jsonl", overwrite=True, progress=False)
    print(f"{report.tokens} codes, {report.realtime_speed:.0f} times faster than real time")
    lines = list(read_json_lines(arguments.output / "codes.jsonl"))
    for line in lines:
        codes = line["codes"]
        print(f"{Path(line['audio']).name:32} {len(codes):4} codes, {len(set(codes)):4} distinct: {codes[:6]} …")

    codes = lines[0]["codes"]
    waveform, sample_rate = load_audio(lines[0]["audio"])
    [decoded] = audio_tokenizer.decode([codes])
    save_audio(arguments.output / "decoded.wav", decoded, audio_tokenizer.output_sample_rate)
    draw(waveform, decoded, codes, sample_rate, audio_tokenizer.output_sample_rate, arguments.output / "codes.png")
    print(f"see {arguments.output / 'codes.png'}, hear {arguments.output / 'decoded.wav'}")


if __name__ == "__main__":
    with errors_as_one_line(Path(__file__).stem):
        main()
