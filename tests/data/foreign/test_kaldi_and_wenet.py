"""Data folders of Kaldi, and shards of WeNet."""

import io
import tarfile

import pytest


def kaldi(corpus, **files: list[str]):
    for name, lines in files.items():
        corpus.lines(f"data/{name.replace('wav_scp', 'wav.scp')}", *lines)
    return corpus.folder / "data"


@pytest.mark.parametrize("which", ["", "wav.scp"])
def test_files_of_one_key_are_one_clip(corpus, which):
    folder = kaldi(corpus, wav_scp=["u1 ../a.wav"], text=["u1  good  morning"], utt2spk=["u1 f03"])
    (made,) = corpus.convert(folder / which)
    assert made == {"id": "u1", "audio": "a.wav", "text": "good  morning", "speaker": "f03"}
    assert corpus.report.format == "a Kaldi data folder"


def test_segments_cut_their_recordings(corpus):
    folder = kaldi(
        corpus,
        wav_scp=["r1 ../a.wav"],
        segments=["u1 r1 0.25 0.75", "u2 r1 0.5 -1"],
        text=["u1 good", "u2 morning"],
    )
    first, second = corpus.convert(folder)
    assert first == {"id": "u1", "audio": "a.wav", "offset": 0.25, "duration": 0.5, "text": "good"}
    assert second == {"id": "u2", "audio": "a.wav", "offset": 0.5, "text": "morning"}


def test_whatever_has_no_counterpart_is_rejected_with_file_and_line(corpus):
    folder = kaldi(
        corpus,
        wav_scp=["r1 ../a.wav", "r1 ../b.wav", "r2 sox x.sph -t wav - |", "r3 feats.ark:17"],
        segments=["u1 r1 0 1", "u2 r9 0 1", "u3 r1 0", "u4 r2 0 1", "u5 r3 0 1", "u6 r1 1 0", "u7 r1 0 1", "u1 r1 0 1"],
        text=["u1 yes", "u4 x", "u5 x", "u6 x", "u8 x", "u8 y"],
    )
    reasons = [reason.removeprefix(f"{folder}/") for reason in corpus.rejections(folder)]
    expected = [
        "wav.scp:2: r1 is there twice",
        "text:6: u8 is there twice",
        "segments:2: r9 is not in wav.scp",
        "segments:3: a segment is: key, recording, start, end",
        "segments:4: wav.scp: is the output of a command, and commands are not run; write the sound to a file",
        "segments:5: wav.scp: is a Kaldi archive; write the sound to files",
        "segments:6: segments: a part from 1 s to 0 s is none",
        "segments:7: u7 has no line in text",
        "segments:8: u1 is there twice",
        "text:5: u8 has no sound in segments",
    ]
    assert reasons == expected


def tar(path, *members: tuple[str, bytes]):
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def test_shards_give_files_named_by_their_content(corpus):
    sound = (corpus.folder / "a.wav").read_bytes()
    other = (corpus.folder / "b.wav").read_bytes()
    assert sound == other  # recorded with the same noise: one file is enough
    tar(corpus.folder / "shards/0.tar", ("u1.txt", b"good"), ("u1.wav", sound), ("u2.txt", b"morning"))
    tar(corpus.folder / "shards/1.tar", ("u3.wav", other), ("u3.txt", "ñ".encode()))
    source = corpus.lines("shards.list", "shards/0.tar", "shards/1.tar")
    (reason,) = corpus.rejections(source)
    assert reason.startswith(f"{corpus.folder}/shards/0.tar: u2: holds no sound; an utterance has one of wav, flac")
    first, second = corpus.convert(source, skip_bad=True)
    assert (first["id"], first["text"], second["id"], second["text"]) == ("u1", "good", "u3", "ñ")
    assert first["audio"] == second["audio"]
    assert first["audio"].startswith("out/ours_audio/")
    assert (corpus.folder / first["audio"]).read_bytes() == sound
    assert str(corpus.report).endswith(f"1 recordings out of records are in {corpus.folder}/out/ours_audio")


def test_a_shard_alone_is_read_and_names_in_it_lead_nowhere(corpus):
    sound = (corpus.folder / "a.wav").read_bytes()
    source = tar(corpus.folder / "0.tar", ("../../x.wav", sound), ("../../x.txt", b"yes"))
    (made,) = corpus.convert(source)
    assert made["id"] == "../../x"
    assert sorted(path.name for path in corpus.folder.parent.glob("x.*")) == []


def test_damaged_and_missing_shards_end_the_run_and_leave_nothing(corpus):
    sound = (corpus.folder / "a.wav").read_bytes()
    shard = tar(corpus.folder / "0.tar", ("u1.wav", sound), ("u1.txt", b"x"), ("u2.wav", sound), ("u2.txt", b"y"))
    shard.write_bytes(shard.read_bytes()[:-26_000])
    with pytest.raises(ValueError, match=r"0\.tar: is damaged: .*; make it again"):
        corpus.convert(shard, skip_bad=True)
    with pytest.raises(ValueError, match=r"shards\.list:1: 1\.tar: no such file; relative paths start from"):
        corpus.convert(corpus.lines("shards.list", "1.tar"), skip_bad=True)
    assert list((corpus.folder / "out").iterdir()) == []


def test_bytes_that_are_no_sound_are_rejected(corpus):
    source = tar(corpus.folder / "0.tar", ("u1.wav", b"RIFF and no more"), ("u1.txt", b"x"))
    with pytest.raises(ValueError, match=r"all 1 records are bad; .*ours\.jsonl\.rejected\.jsonl says why"):
        corpus.convert(source, skip_bad=True)
    (reason,) = corpus.rejected()
    assert "0.tar: u1" in reason
