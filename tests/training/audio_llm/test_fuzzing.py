"""Reading records for fine-tuning under generated ones: each is encoded or named, whatever the others hold."""

import random
import re

import pytest

from audiollm.data.conversation.loading import load_conversations
from audiollm.processing import AudioLLMProcessor
from audiollm.training.audio_llm.records import EncodedRecords, usable_records
from audiollm.training.loop.errors import DataError
from audiollm.vocabulary import extend
from tests.audiollm.conftest import EnergyTokenizer, build_llm, build_text_tokenizer
from tests.data.generated_records import conversation_line, legal_conversation, numbers_of_lines, write_corpus

NUM_RECORDS = 1200


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sft")
    path, num_records = write_corpus(folder, [conversation_line], [legal_conversation], NUM_RECORDS, random.Random(11))
    text_tokenizer, audio_tokenizer = build_text_tokenizer(), EnergyTokenizer()
    extend(build_llm(), text_tokenizer, audio_tokenizer.codebook_size)
    processor = AudioLLMProcessor(text_tokenizer, audio_tokenizer=audio_tokenizer)
    conversations = load_conversations(path, for_training=True, codebook_size=audio_tokenizer.codebook_size)
    return EncodedRecords(conversations, processor, max_length=2000, cache_tokens=10**6), path, num_records


def test_every_record_is_encoded_or_named_with_its_line(records):
    encoded, path, num_records = records
    found = encoded.check(range(num_records))
    bad = found.problems.keys() - found.digests.keys()
    assert found.digests.keys() | found.problems.keys() == set(range(num_records))
    assert min(len(found.digests), len(bad)) > 0.3 * num_records
    lines_of = numbers_of_lines(path)
    for number, problem in found.problems.items():
        assert re.match(rf"{re.escape(str(path))}:{lines_of[number]}\b.*: ?\S", problem), problem
        assert "\n" not in problem
    with pytest.raises(DataError, match=rf"^{len(found.problems)} of {num_records} records cannot be trained on"):
        usable_records(found, num_records, on_too_long="skip", source=str(path))
    # Alone each is encoded as among the others.
    for number in random.Random(0).sample(sorted(found.digests), 50):
        assert encoded.check([number]).digests == {number: found.digests[number]}
    for number in random.Random(0).sample(sorted(bad), 50):
        with pytest.raises(ValueError, match=re.escape(found.problems[number])):
            encoded.encode([number])
