"""The shipped recordings are sound, free and fairly split; builders read their sources; manifests are checked."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from audiollm.data.audio.reading import load_audio
from audiollm.data.corpora import build, g722
from audiollm.data.corpora.build import CORPORA, build_corpus
from audiollm.data.corpora.clips import (
    Clip,
    ClipMetadata,
    CorpusError,
    Recording,
    assign_splits,
    connected_groups,
    hash_split,
    load_manifest,
    save_manifest,
    stratified_splits,
)
from audiollm.data.corpora.labels import check_reviewed, sound_labels
from audiollm.data.corpora.opus import encode_opus
from audiollm.data.corpora.sample_build import LICENCES, is_sentence
from audiollm.data.corpora.sample_corpus import SAMPLE_FOLDER, load_sample_corpus
from audiollm.data.corpora.sources import asterisk, fillets, game_sounds, music, opensfx, sonic_pi, tuxpaint
from audiollm.data.packages import PackageError

LANGUAGES = {"en", "es", "fr", "it", "ru"}


@pytest.fixture(scope="module")
def sample() -> list[Clip]:
    return load_sample_corpus()


# --- the shipped recordings -------------------------------------------------------------------------------------------


def test_the_sample_is_small_and_about_half_an_hour(sample):
    size = sum(path.stat().st_size for path in SAMPLE_FOLDER.rglob("*") if path.is_file())
    assert 4_000_000 < size < 5_000_000
    assert 25 * 60 < sum(clip.duration_seconds for clip in sample) < 35 * 60
    assert len(sample) <= 900


def test_every_clip_is_the_file_that_the_manifest_describes(sample):
    assert {clip.audio for clip in sample} == set(SAMPLE_FOLDER.rglob("*.opus"))
    for clip in sample:
        assert hashlib.sha256(clip.audio.read_bytes()).hexdigest() == clip.sha256, clip.id


def test_clips_decode_to_their_length_at_16_khz_and_are_not_silent(sample):
    for clip in sample[::7]:
        waveform, sample_rate = load_audio(clip.audio)
        assert sample_rate == 16000
        assert len(waveform) / 16000 == pytest.approx(clip.duration_seconds, abs=1e-4), clip.id
        assert waveform.abs().max() > 0.01, clip.id
        assert torch.isfinite(waveform).all()


def test_every_clip_may_be_redistributed_and_names_its_author(sample):
    assert {clip.licence for clip in sample} <= LICENCES
    attribution = (SAMPLE_FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for clip in sample:
        assert clip.attribution in attribution
        assert clip.source.partition(":")[0] in attribution
        assert f"- {clip.licence}: " in attribution.partition("## Licences")[2]


def test_no_prompt_recording_or_track_is_in_two_splits(sample):
    for keys in (
        lambda clip: [clip.group],
        lambda clip: [clip.attributes["prompt"]] if clip.sound_type == "speech" else [],
        lambda clip: [(clip.language, clip.text.lower())] if clip.text else [],
        lambda clip: [clip.id.rpartition(".")[0]] if clip.sound_type == "music" else [],
        lambda clip: [clip.sha256],
    ):
        splits = defaultdict(set)
        for clip in sample:
            for key in keys(clip):
                splits[key].add(clip.split)
        assert splits
        assert all(len(found) == 1 for found in splits.values())


def test_the_sample_is_balanced(sample):
    speech = Counter((clip.language, clip.split) for clip in sample if clip.sound_type == "speech")
    for split, count in (("train", 40), ("dev", 8), ("test", 10)):
        assert {speech[language, split] for language in LANGUAGES} == {count}
    moods = Counter((clip.label, clip.split) for clip in sample if clip.id.startswith("immich"))
    assert {mood for mood, _ in moods} == {"calm", "energetic", "happy", "nostalgic", "tender"}
    assert all(moods[mood, "test"] >= 6 and moods[mood, "train"] >= 9 for mood, _ in moods)
    styles = Counter((clip.attributes["style"], clip.split) for clip in sample if "style" in clip.attributes)
    assert styles["acoustic", "test"] == styles["electronic", "test"] > 0
    sounds = Counter((clip.label, clip.split) for clip in sample if clip.sound_type == "sound")
    classes = {label for label, _ in sounds}
    assert len(classes) >= 15
    assert all(sounds[label, "test"] >= 1 and sounds[label, "train"] >= 2 for label in classes)


def test_transcripts_are_whole_spoken_sentences(sample):
    for clip in sample:
        if clip.sound_type == "speech":
            assert is_sentence(clip.text), clip.text
            assert asterisk.is_spoken(clip.attributes["prompt"], clip.text)
            assert 1 <= clip.duration_seconds <= 8


# --- splits -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.text(min_size=1), unique=True, min_size=1, max_size=30))
def test_the_split_of_a_group_depends_on_nothing_else(groups):
    assert [hash_split(group) for group in groups] == [hash_split(group) for group in reversed(groups)][::-1]


def test_hash_splits_have_their_shares():
    shares = Counter(hash_split(f"group {number}") for number in range(5000))
    assert shares["test"] / 5000 == pytest.approx(0.1, abs=0.02)
    assert shares["dev"] / 5000 == pytest.approx(0.1, abs=0.02)
    assert hash_split("asterisk key vm-intro") == hash_split("asterisk key vm-intro")


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(0, 12).map(str), min_size=1, max_size=30)))
def test_every_class_keeps_training_data_and_large_ones_get_a_test_set(groups):
    splits = stratified_splits(groups)
    assert splits.keys() == {group for members in groups.values() for group in members}
    assert splits == stratified_splits({stratum: members[::-1] for stratum, members in groups.items()})
    separate = {stratum: [f"{stratum}{group}" for group in members] for stratum, members in groups.items()}
    splits = stratified_splits(separate)
    for members in separate.values():
        found = Counter(splits[group] for group in members)
        assert found["train"] >= 1
        sizes = Counter(members)
        if len(sizes) >= 2 and max(sizes.values()) <= len(members) / 2:
            assert found["test"] >= 1


def test_shared_keys_make_one_group_however_long_the_chain():
    keys = [{"a", "b"}, {"x"}, {"b", "c"}, {"d", "c"}, {"x", "y"}]
    assert connected_groups(keys) == ["a", "x", "a", "a", "x"]
    assert connected_groups(keys[::-1]) == ["x", "a", "a", "x", "a"]


# --- the manifest -----------------------------------------------------------------------------------------------------


def clip(folder: Path, **changes) -> Clip:
    metadata = {
        "id": "toy/one", "sound_type": "speech", "group": "toy one", "duration_seconds": 1.5, "licence": "CC0-1.0",
        "attribution": "Ann", "source": "toy 1.0: one.wav", "text": "Grüße", "language": "de", "split": "train",
        "audio": folder / "toy/one.wav", "sha256": "0" * 64, "attributes": {"bpm": 90, "key": "C"},
    }  # fmt: skip
    return Clip(**{**metadata, **changes})


def test_a_manifest_comes_back_as_it_was(tmp_path):
    clips = [clip(tmp_path), clip(tmp_path, id="toy/a", sound_type="sound", text=None, language=None, label="bell")]
    save_manifest(clips, tmp_path / "manifest.jsonl")
    assert load_manifest(tmp_path) == sorted(clips, key=lambda item: item.id)
    assert load_manifest(tmp_path / "manifest.jsonl") == load_manifest(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sound_type": "noise"}, "sound_type is 'noise'; use one of speech, sound, music"),
        ({"split": "eval"}, "split is 'eval'"),
        ({"licence": ""}, "licence is empty"),
        ({"duration_seconds": 0}, "at least one sample"),
        ({"duration_seconds": float("nan")}, "seconds as a number"),
        ({"text": None}, "speech needs text and language"),
        ({"sound_type": "sound"}, "needs a label"),
        ({"id": "../x"}, "cannot name a file"),
        ({"id": "/x"}, "cannot name a file"),
        ({"sha256": "abc"}, "64 lower-case hex digits"),
    ],
)
def test_a_clip_with_a_bad_field_is_refused(tmp_path, changes, message):
    with pytest.raises(CorpusError, match=message):
        clip(tmp_path, **changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.pop("licence"), "missing licence"),
        (lambda record: record.update(speed=1), "unknown speed"),
        (lambda record: record.update(text=3), "text is 3; give a string"),
        (lambda record: record.update(attributes=[]), "give an object"),
        (lambda record: record.update(audio="../../etc/passwd"), "below the manifest's folder"),
        (lambda record: record.update(duration_seconds="long"), "duration_seconds is 'long'"),
    ],
)
def test_a_bad_line_is_named(tmp_path, change, message):
    path = tmp_path / "manifest.jsonl"
    save_manifest([clip(tmp_path)], path)
    record = json.loads(path.read_text())
    change(record)
    path.write_text(path.read_text() + json.dumps(record) + "\n")
    with pytest.raises(CorpusError, match=rf"manifest\.jsonl:2: .*{message}"):
        load_manifest(path)


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "manifest.jsonl").write_text('{"id": ')
    with pytest.raises(CorpusError, match=r"manifest\.jsonl: line 1 is not JSON"):
        load_manifest(tmp_path)


def test_doubled_ids_and_leaking_groups_are_refused(tmp_path):
    path = tmp_path / "manifest.jsonl"
    with pytest.raises(CorpusError, match="'toy/one' occurs twice"):
        save_manifest([clip(tmp_path), clip(tmp_path)], path)
    with pytest.raises(CorpusError, match="group 'toy one' is in train and in test"):
        save_manifest([clip(tmp_path), clip(tmp_path, id="toy/two", split="test")], path)
    with pytest.raises(CorpusError, match="outside the corpus folder"):
        save_manifest([clip(tmp_path, audio=Path("/elsewhere.wav"))], path)
    assert not path.exists()


# --- building ---------------------------------------------------------------------------------------------------------


def toy_recording(number: int) -> Recording:
    metadata = ClipMetadata(
        id=f"toy/{number}", sound_type="music", group=f"toy {number}", duration_seconds=0.5, licence="CC-BY-3.0",
        attribution="Ann", source="toy 1.0: music",
    )  # fmt: skip
    generator = torch.Generator().manual_seed(number)
    return Recording(metadata=metadata, load=lambda: torch.rand(8000, generator=generator) * 0.2)


@pytest.fixture
def toy_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = build.Corpus("toy", "Toys", (), lambda: [toy_recording(number) for number in range(4)], 4)
    monkeypatch.setattr(build, "CORPORA", {"toy": corpus})


@pytest.mark.parametrize("audio_format", ["flac", "wav", "opus"])
def test_a_built_corpus_is_whole_and_the_same_each_time(tmp_path, toy_corpus, audio_format):
    clips = load_manifest(build_corpus("toy", tmp_path / "one", audio_format=audio_format))
    again = load_manifest(build_corpus("toy", tmp_path / "two", audio_format=audio_format))
    assert [item.sha256 for item in clips] == [item.sha256 for item in again]
    assert [item.split for item in clips] == [hash_split(f"toy {number}") for number in range(4)]
    for item in clips:
        waveform, sample_rate = load_audio(item.audio)
        assert (len(waveform), sample_rate) == (8000, 16000)
        assert hashlib.sha256(item.audio.read_bytes()).hexdigest() == item.sha256
    assert "CC-BY-3.0: Ann (4 clips)" in (tmp_path / "one/ATTRIBUTION.md").read_text()


def test_a_wrong_number_of_clips_stops_the_build_and_leaves_nothing(tmp_path, toy_corpus, monkeypatch):
    short = build.Corpus("toy", "Toys", (), lambda: [toy_recording(0)], 4)
    monkeypatch.setattr(build, "CORPORA", {"toy": short})
    with pytest.raises(CorpusError, match="toy gave 1 clips, expected 4"):
        build_corpus("toy", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_unknown_names_and_existing_folders_are_refused(tmp_path, toy_corpus):
    with pytest.raises(ValueError, match="no corpus 'ljspeech'; available are toy"):
        build_corpus("ljspeech", tmp_path / "out")
    with pytest.raises(ValueError, match="audio_format='mp3'"):
        build_corpus("toy", tmp_path / "out", audio_format="mp3")  # type: ignore[arg-type]
    with pytest.raises(FileExistsError, match="exists already"):
        build_corpus("toy", tmp_path)


def test_every_registered_corpus_is_pinned():
    for name, corpus in CORPORA.items():
        assert corpus.name == name
        assert corpus.num_clips > 0
        assert corpus.packages
        assert all(len(package.sha256) == 64 for package in corpus.packages)


def test_opus_bytes_depend_on_the_input_only():
    waveform = 0.3 * torch.sin(torch.arange(16000) * 0.1)
    content = encode_opus(waveform, 16000, "a")
    assert content == encode_opus(waveform, 16000, "a")
    assert content != encode_opus(waveform, 16000, "b")
    decoded, sample_rate = soundfile.read(io.BytesIO(content), dtype="float32")  # refuses a wrong page checksum
    assert (len(decoded), sample_rate) == (16000, 16000)
    assert np.corrcoef(decoded, waveform.numpy())[0, 1] > 0.9
    assert len(encode_opus(waveform, 64000, "a")) > 2 * len(content)
    with pytest.raises(ValueError, match="bitrate_bps=1"):
        encode_opus(waveform, 1, "a")


def test_without_a_g722_decoder_the_error_says_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / "a.g722"
    path.write_bytes(bytes(800))
    assert g722.duration_seconds(path) == 0.1
    monkeypatch.setattr(g722.shutil, "which", lambda _: None)

    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(g722.importlib, "import_module", absent)
    with pytest.raises(CorpusError, match=r"pip install 'audiollm\[corpora\]'.*ffmpeg"):
        g722.decode_g722(path)


def test_g722_gives_two_samples_per_byte(tmp_path):
    if g722.shutil.which("ffmpeg") is None:
        pytest.importorskip("av", reason="neither ffmpeg nor PyAV is here")
    path = tmp_path / "a.g722"
    path.write_bytes(bytes(range(256)) * 10)
    waveform = g722.decode_g722(path)
    assert len(waveform) == 2 * 2560
    assert waveform.abs().max() <= 1
    assert waveform.std() > 0


# --- readers of the sources -------------------------------------------------------------------------------------------


def test_asterisk_transcripts_and_what_is_not_spoken(tmp_path):
    path = tmp_path / "core-sounds-xx.txt.gz"
    lines = "\ufeff; a comment: not a prompt\n\nvm-intro: Leave a message: now.\ndigits/1: one\nno colon\n"
    path.write_bytes(gzip.compress(lines.encode()))
    assert asterisk.read_transcripts(path) == {"vm-intro": "Leave a message: now.", "digits/1": "one"}
    assert asterisk.is_spoken("vm-intro", "Is that right?")
    for text in ("", "[tone]", "IAX (note: no 2)", "Quella opzione ? invalida.", "perch?o no"):
        assert not asterisk.is_spoken("vm-intro", text), text
    assert not asterisk.is_spoken("silence/1", "one second of silence")


def cat_file(*sounds: tuple[str, bytes]) -> bytes:
    head, body = b"", b""
    for description, wav in sounds:
        offset = 8 * len(sounds) + len(body)
        text = description.encode("latin-1") + b"\0"
        head += struct.pack("<II", offset | 0x80000000, len(wav))
        body += bytes([len(text)]) + text + wav
    return head + body


def test_cat_files_give_caption_licence_and_sound():
    wav = io.BytesIO()
    soundfile.write(wav, np.zeros(441), 44100, format="WAV", subtype="PCM_16")
    content = cat_file(
        ('"Cow". Original "cow.wav" by "A". License: Creative Commons Zero 1.0.', wav.getvalue()),
        ('"Train". By B. License: Creative Commons Attribution-ShareAlike 3.0 Unported.', wav.getvalue()),
        ('"Bus". By B. License: Creative Commons Attribution 3.0 Unported.', wav.getvalue()),
        ('"Odd". By B. License: All rights reserved.', wav.getvalue()),
    )
    entries = opensfx.read_cat(content)
    assert [entry.caption for entry in entries] == ["Cow", "Train", "Bus", "Odd"]
    assert [entry.licence for entry in entries[:3]] == ["CC0-1.0", "CC-BY-SA-3.0", "CC-BY-3.0"]
    assert all(len(load_audio(entry.wav)[0]) == 441 for entry in entries)
    with pytest.raises(CorpusError, match="no known licence"):
        _ = entries[3].licence
    for damaged in (content[:-1], content[:20], b""):
        with pytest.raises(CorpusError, match="damaged"):
            opensfx.read_cat(damaged)


def test_sonic_pi_readme_names_uploaders():
    readme = (
        "* `:bd_808` - http://www.freesound.org/people/Autistic%20Lucario/sounds/1/\n"
        "* `:perc_bell_2`- https://freesound.org/people/hullum/sounds/2/\n"
    )
    uploaders = sonic_pi.read_uploaders(readme)
    assert (uploaders["bd_808"], uploaders["perc_bell2"]) == ("Autistic Lucario", "hullum")
    assert sonic_pi.instrument("drum_tom_hi_soft") == sonic_pi.instrument("drum_tom_hi_hard")
    assert sonic_pi.instrument("elec_blip") != sonic_pi.instrument("elec_blip2")


def test_labelled_game_sounds_are_found_by_name_and_takes_share_a_group(tmp_path, monkeypatch):
    folder = tmp_path / "files"
    labels = {"sword-1.ogg": "blade_weapon", "deep/sword-2.ogg": "blade_weapon", "copy.ogg": "bell_alarm"}
    for number, name in enumerate([*labels, "not-reviewed.ogg"]):
        path = folder / "usr/share/game/sounds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tone = 0.1 * np.sin(np.arange(16000) * (0.1 + 0.01 * min(number, 1)))  # the third is a copy of the second
        soundfile.write(path, tone, 16000, format="OGG", subtype="VORBIS")
    (folder / "usr/share/game/sounds/copy.ogg").write_bytes(
        (folder / "usr/share/game/sounds/deep/sword-2.ogg").read_bytes()
    )
    package = game_sounds.SOURCES[0].package
    monkeypatch.setattr(type(package), "extract", lambda self, *patterns: folder)
    monkeypatch.setattr(game_sounds, "sound_labels", lambda source: labels)
    monkeypatch.setattr(game_sounds, "SOURCES", game_sounds.SOURCES[:1])
    found = game_sounds.recordings()
    assert [recording.metadata.label for recording in found] == ["bell_alarm", "blade_weapon"]  # the copy came first
    assert found[1].metadata.group == "wesnoth sword"
    assert game_sounds.take_group("sword-2") == game_sounds.take_group("Sword 12") != game_sounds.take_group("swords-2")
    labels["gone.ogg"] = "bell_alarm"
    with pytest.raises(CorpusError, match=r"lacks 1 labelled sounds: gone\.ogg"):
        game_sounds.recordings()


def test_fillets_scripts_give_role_translation_and_text():
    script = 'dialogId("a-1", "font_big", "Say \\"yes\\".")\ndialogStr("Řekni \\"ano\\".")\n\ndialogId("x", "f", "y")'
    assert fillets.read_dialogues(script) == {"a-1": fillets.Line("big", 'Say "yes".', 'Řekni "ano".')}


def test_tuxpaint_texts_by_language(tmp_path):
    path = tmp_path / "duck.txt"
    path.write_text("A duck.\nbe.utf8=Качка.\nfr.utf8=\nnonsense\n", encoding="utf-8")
    assert tuxpaint.read_descriptions(path) == {"en": "A duck.", "be": "Качка."}
    path.write_text("")
    assert tuxpaint.read_descriptions(path) == {"en": ""}


def test_music_lists_and_windows():
    listed = music.read_track_list("calm/\n  a_1.opus    68 bpm  C major   seed 101  [acoustic]\nother line\n")
    assert listed == {"a_1.opus": {"bpm": 68, "key": "C major", "style": "acoustic"}}
    track = ClipMetadata(
        id="toy/a", sound_type="music", group="toy a", duration_seconds=24.0, licence="MIT", attribution="A", source="s"
    )
    waveform = torch.arange(24 * 16000).float()
    found = music.windows(track, lambda: waveform)
    assert [item.metadata.duration_seconds for item in found] == [
        10.0,
        10.0,
    ]  # the rest of 4 s is less than half a window
    assert torch.equal(torch.cat([item.load() for item in found]), waveform[: 20 * 16000])
    assert len({item.metadata.id for item in found}) == 2
    assert {item.metadata.group for item in found} == {"toy a"}
    assert len(assign_splits(found)) == 1


def test_the_label_table_knows_exactly_its_sources():
    for source, num_names in ((opensfx.NAME, 73), (sonic_pi.NAME, 165)):
        labels = sound_labels(source)
        assert 0 < len(labels) < num_names
        assert all(label.replace("_", "").isalpha() for label in labels.values())
        with pytest.raises(CorpusError, match="not reviewed: a new sound"):
            check_reviewed(source, {*labels, "a new sound"})
    with pytest.raises(CorpusError, match="0 rows for nobody"):
        sound_labels("nobody")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["opensfx", "sonic-pi"])
def test_a_real_package_builds(tmp_path, name):
    try:
        clips = load_manifest(build_corpus(name, tmp_path / "out"))
    except PackageError as error:
        pytest.skip(f"the package registry cannot be used here: {error}")
    assert len(clips) == CORPORA[name].num_clips
    shipped = {item.id: item.split for item in load_sample_corpus()}
    assert {item.split == shipped[item.id] for item in clips if item.id in shipped} == {True}
