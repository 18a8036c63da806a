"""Each trainer lists the keys of its records that nothing reads, once for a source."""

from __future__ import annotations

import json

import pytest

from audiollm.training import sft, train_decoder, train_losatok, train_tokenizer

from .conftest import write_records


@pytest.mark.parametrize("trainer", ["sft", "train_tokenizer", "train_losatok", "train_decoder"])
def test_a_trainer_lists_unknown_keys_once_per_source(
    trainer,
    assets,
    tokenizer_corpus,
    losatok_corpus,
    decoder_corpus,
    make_config,
    make_tokenizer_config,
    make_losatok_config,
    make_decoder_config,
    caplog,
):
    module, make, source, dev = {
        "sft": (sft, make_config, assets.train, assets.dev),
        "train_tokenizer": (train_tokenizer, make_tokenizer_config, tokenizer_corpus.train, tokenizer_corpus.dev),
        "train_losatok": (train_losatok, make_losatok_config, losatok_corpus.train, losatok_corpus.dev),
        "train_decoder": (train_decoder, make_decoder_config, decoder_corpus.train, decoder_corpus.dev),
    }[trainer]
    paths = []
    for number, path in enumerate((source, dev)):
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        records[0] |= {"transcirpt": "a"}
        records = [record | {"colour": "red", "nothing": None} if number == 0 else record for record in records]
        paths.append(write_records(path.with_name(f"unread-{trainer}-{number}.jsonl"), records))
    module.train(make(train_data=str(paths[0]), eval_data=str(paths[1]), eval_every=2, max_steps=2))
    said = [one.getMessage() for one in caplog.records if "keys that nothing reads" in one.getMessage()]
    count = len(paths[0].read_text().splitlines())
    assert said == [
        f"{paths[0]}: keys that nothing reads: colour ({count} records), transcirpt (1)",
        f"{paths[1]}: keys that nothing reads: transcirpt (1 record)",
    ]
