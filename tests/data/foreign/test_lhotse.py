"""Manifests of lhotse: cuts, supervisions with recordings, channels, and what only lhotse itself can hear."""

import pytest


def recording(path: str = "a.wav", identifier: str = "r1", channels=(0,), **more) -> dict:
    return {
        "id": identifier,
        "sources": [{"type": "file", "channels": list(channels), "source": path}],
        "sampling_rate": 8000,
        "num_samples": 8000,
        "duration": 1.0,
        "channel_ids": list(channels),
        **more,
    }


def supervision(identifier: str = "s1", start: float = 0.0, duration: float = 1.0, **more) -> dict:
    times = {"start": start, "duration": duration, "channel": 0}
    return {"id": identifier, "recording_id": "r1", **times, "text": f"text of {identifier}", **more}


def cut(*supervisions: dict, start: float = 0.0, duration: float = 1.0, **more) -> dict:
    return {
        "id": "c1",
        "start": start,
        "duration": duration,
        "channel": 0,
        "supervisions": list(supervisions),
        "recording": recording(),
        "type": "MonoCut",
        **more,
    }


@pytest.mark.parametrize("compressed", [False, True])
def test_each_supervision_of_a_cut_is_a_clip_at_its_own_time(corpus, compressed):
    two = cut(
        supervision("s1", 0.0, 0.25, language="English", speaker="f", gender="F"),
        supervision("s2", 0.3, 0.2),
        start=0.1,
        duration=0.5,
    )
    alone = cut(start=0.2, duration=0.4) | {"id": "c2"}
    source = corpus.lines("cuts.jsonl.gz" if compressed else "cuts.jsonl", two, alone, compressed=compressed)
    first, second, third = corpus.convert(source)
    assert first == {
        "id": "s1",
        "audio": "a.wav",
        "offset": 0.1,
        "duration": 0.25,
        "gender": "F",
        "text": "text of s1",
        "language": "English",
        "speaker": "f",
    }
    assert second == {"id": "s2", "audio": "a.wav", "offset": 0.4, "duration": 0.2, "text": "text of s2"}
    assert third == {"id": "c2", "audio": "a.wav", "offset": 0.2, "duration": 0.4}
    assert corpus.report.format == "a lhotse manifest"


@pytest.mark.parametrize("which", ["", "corpus_supervisions_train.jsonl.gz"])
def test_supervisions_find_their_recordings(corpus, which):
    corpus.lines("lhotse/corpus_recordings_train.jsonl.gz", recording("../a.wav"), compressed=True)
    lines = [supervision("s1", 0.25, 0.5), supervision("s2", recording_id="r9")]
    corpus.lines("lhotse/corpus_supervisions_train.jsonl.gz", *lines, compressed=True)
    (reason,) = corpus.rejections(corpus.folder / "lhotse" / which)
    assert "train.jsonl.gz:2: recording_id: 'r9' is not in " in reason
    (made,) = corpus.convert(corpus.folder / "lhotse" / which, skip_bad=True)
    assert made == {"id": "s1", "audio": "a.wav", "offset": 0.25, "duration": 0.5, "text": "text of s1"}


def test_recordings_alone_are_clips_without_texts_unless_the_texts_lie_beside_them(corpus):
    source = corpus.lines("corpus_recordings.jsonl", recording())
    assert corpus.convert(source) == [{"id": "r1", "audio": "a.wav", "duration": 1.0}]
    corpus.lines("corpus_supervisions.jsonl", supervision())
    with pytest.raises(ValueError, match=r"holds recordings without their texts; give .*corpus_supervisions"):
        corpus.convert(source)


def test_supervisions_without_recordings_and_several_manifests_are_refused(corpus):
    source = corpus.lines("lhotse/supervisions_a.jsonl", supervision())
    with pytest.raises(ValueError, match=r"whose recordings are wanted too: .*recordings_a\.jsonl is not there"):
        corpus.convert(source)
    corpus.lines("lhotse/supervisions_b.jsonl", supervision())
    with pytest.raises(ValueError, match=r"several manifests of lhotse; give one of .*_a\.jsonl, .*_b\.jsonl"):
        corpus.convert(corpus.folder / "lhotse")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"id": "c", "type": "MixedCut", "tracks": []}, "MixedCut has no recording; save it with lhotse"),
        (cut(channel=[0, 1], type="MultiCut"), r"channel: \[0, 1\]: one channel is heard here"),
        (cut(channel=1), "channel: 1 is in none of the recording's sources"),
        (
            cut(channel=1) | {"recording": recording(channels=(0, 1))},
            "channel: is channel 1 of a file of several",
        ),
        (cut(supervision(channel=1)), r"supervisions\[0\]\.channel: is 1, and the cut's is 0"),
        (cut(supervision("s", 0.5, 0.8)), r"supervisions\[0\]: reaches from 0\.5 s to 1\.3 s, out of its cut of 1 s"),
        (cut() | {"recording": recording(transforms=[{"name": "Speed"}])}, "recording.transforms: change the sound"),
        (
            cut() | {"recording": recording() | {"sources": [{"type": "command", "channels": [0], "source": "cat"}]}},
            "recording.sources: is a command, not a file",
        ),
        (cut(start="x"), "start: must be seconds"),
        (cut() | {"recording": recording("c.wav")}, "no such file"),
    ],
)
def test_a_cut_that_cannot_be_heard_from_a_file_is_rejected(corpus, bad, message):
    source = corpus.lines("cuts.jsonl", cut(), bad | {"id": "c2"})
    with pytest.raises(ValueError, match=rf"cuts\.jsonl:2: .*{message}"):
        corpus.convert(source)


def test_a_channel_in_a_file_of_its_own_is_that_file(corpus):
    both = recording() | {
        "sources": [
            {"type": "file", "channels": [0], "source": "a.wav"},
            {"type": "file", "channels": [1], "source": "b.wav"},
        ]
    }
    (made,) = corpus.convert(corpus.lines("cuts.jsonl", cut(channel=1) | {"recording": both}))
    assert made["audio"] == "b.wav"


def test_what_lhotse_knows_beside_the_sound_is_listed(corpus, caplog):
    corpus.convert(corpus.lines("cuts.jsonl", cut(supervision(custom={"mood": "calm"}), custom={"snr": 3})))
    assert "cut.custom (1 record), supervision.custom (1)" in caplog.text


def test_a_damaged_archive_ends_the_run(corpus):
    source = corpus.lines("cuts.jsonl.gz", *[cut() | {"id": f"c{n}"} for n in range(99)], compressed=True)
    source.write_bytes(source.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"cuts\.jsonl\.gz: is damaged: .*; make it again"):
        corpus.convert(source, skip_bad=True)
    assert not (corpus.folder / "out/ours.jsonl").exists()
