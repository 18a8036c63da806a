"""Classes for transformers' ``pipeline()``: questions about sound, transcripts, speech.

``pipeline("automatic-speech-recognition", model=folder, pipeline_class=SpeechRecognitionPipeline)`` makes one. The
names of tasks belong to transformers, whose own classes know nothing of codes; so the class is named beside the task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import Pipeline

from audiollm.chat.input import audio_parts, to_conversation
from audiollm.data.conversation.types import Conversation, Message, TextPart
from audiollm.modeling import AudioLLM, question_about
from audiollm.processing.processor import AudioLLMProcessor
from audiollm.prompts import instruction
from audiollm.speaking import speak_many


class _AudioLLMPipeline(Pipeline):
    """What the pipelines share: an Audio-LLM of model and processor, and settings that go on to it.

    A pipeline takes one input, or a list, a data set or a generator of them, ``batch_size`` at a time. All other
    arguments, of the call or of ``pipeline()``, are those of the `AudioLLM` method that a pipeline says it uses.
    """

    _load_processor = True
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args: Any, processor: Any = None, **kwargs: Any) -> None:
        if not isinstance(processor, AudioLLMProcessor):
            raise ValueError(
                f"{type(self).__name__} takes an Audio-LLM: name its folder as model, or give model= and processor= of "
                "an AudioLLM"
            )
        # Its own text tokenizer, or transformers would look for a feature extractor, and pad with both.
        super().__init__(*args, processor=processor, **{**kwargs, "tokenizer": processor.tokenizer})
        self.audio_llm = AudioLLM(self.model, processor).eval()
        processor.audio_device = self.device

    def _sanitize_parameters(self, **settings: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Sorts arguments into those of `preprocess` and of `_forward`; transformers asks for this."""
        preprocessing = {"sampling_rate": settings.pop("sampling_rate")} if "sampling_rate" in settings else {}
        return preprocessing, {**(settings.pop("generate_kwargs", None) or {}), **settings}, {}

    def _forward(self, inputs: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
        """Answers one input, or several that were put together."""
        value = inputs["input"]
        if isinstance(value, list):
            return {"output": self._answers(value, **settings)}
        return {"output": self._answers([value], **settings)[0]}

    def _answers(self, inputs: list[Any], **settings: Any) -> list[dict[str, Any]]:
        raise NotImplementedError

    def postprocess(self, outputs: Mapping[str, Any], **_: Any) -> Any:
        return outputs["output"]


class AnyToAnyPipeline(_AudioLLMPipeline):
    """Task ``any-to-any``: answers chats in text or sound, as `AudioLLM.chat` does.

    ``pipe(messages)``, a list of chats, or ``pipe("What is said?", audio="clip.wav")``. ``generation_mode="audio"``
    asks for sound. Each answer is ``[{"generated_text": …}]`` without the prompt, in sound with ``generated_audio``
    (float32 ``[N]``) and ``sampling_rate``.
    """

    def __call__(self, text: Any = None, audio: Any = None, **settings: Any) -> Any:
        if text is None:
            raise ValueError("text is missing: give a chat (a list of messages), or a question with audio=")
        if isinstance(text, str):
            text = {"text": text, "audio": audio}
        elif audio is not None:
            raise ValueError("audio goes with a question as text; in a chat it belongs into the messages")
        return super().__call__(text, **settings)

    def _sanitize_parameters(self, **settings: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        generation_mode = settings.pop("generation_mode", None)
        if generation_mode not in (None, "text", "audio"):
            raise ValueError(f"generation_mode={generation_mode!r}: use 'text' or 'audio'")
        if generation_mode is not None:
            settings["modalities"] = {generation_mode}
        return super()._sanitize_parameters(**settings)

    def preprocess(self, inputs: Any, sampling_rate: int | None = None) -> dict[str, Any]:
        if isinstance(inputs, str):
            inputs = {"text": inputs}
        if isinstance(inputs, Mapping):
            parts = [] if inputs.get("audio") is None else audio_parts(inputs["audio"], sampling_rate)
            return {"input": Conversation("question", [Message("user", [*parts, TextPart(inputs["text"])])])}
        messages = getattr(inputs, "messages", inputs)  # transformers puts a chat into a class of its own
        return {"input": to_conversation(messages, "conversation", None, sampling_rate)}

    def _answers(self, inputs: list[Any], **settings: Any) -> list[dict[str, Any]]:
        result = self.audio_llm.chat(inputs, **settings)
        answers: list[dict[str, Any]] = [{"generated_text": text} for text in result.texts]
        for answer, waveforms in zip(answers, result.waveforms or [], strict=False):
            if waveforms:
                answer["generated_audio"] = (
                    waveforms[0].numpy() if len(waveforms) == 1 else [w.numpy() for w in waveforms]
                )
                answer["sampling_rate"] = result.sample_rate
        return answers

    def postprocess(self, outputs: Mapping[str, Any], **_: Any) -> Any:
        return [outputs["output"]]


class SpeechRecognitionPipeline(_AudioLLMPipeline):
    """Task ``automatic-speech-recognition``: transcribes as `AudioLLM.ask` with the instruction for it does.

    ``pipe("clip.wav")``, bytes, ``{"array": …, "sampling_rate": …}`` (or ``"raw"``), what ``load_audio`` returns, or
    samples with ``sampling_rate=``. Each answer is ``{"text": …}``.
    """

    def _sanitize_parameters(self, **settings: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        return super()._sanitize_parameters(**settings)

    def preprocess(self, inputs: Any, sampling_rate: int | None = None) -> dict[str, Any]:
        if isinstance(inputs, Mapping) and "raw" in inputs:
            inputs = {"array": inputs["raw"], "sampling_rate": inputs.get("sampling_rate", sampling_rate)}
        return {"input": question_about(inputs, instruction("transcribe"), sampling_rate)}

    def _answers(self, inputs: list[Any], **settings: Any) -> list[dict[str, Any]]:
        return [{"text": text} for text in self.audio_llm.chat(inputs, **settings).texts]


class TextToSpeechPipeline(_AudioLLMPipeline):
    """Tasks ``text-to-speech`` and ``text-to-audio``: speaks as `audiollm.speaking.speak_many` does.

    ``pipe("The kettle is on.", voice="an old man")``. Each answer is ``{"audio": float32 [N], "sampling_rate": …}``.
    """

    def preprocess(self, inputs: Any, sampling_rate: int | None = None) -> dict[str, Any]:
        if sampling_rate is not None:
            raise ValueError("sampling_rate is the decoder's: leave it out, and resample the answer")
        if not isinstance(inputs, str):
            raise ValueError(f"a text to speak is a string, not {type(inputs).__name__}")
        return {"input": inputs}

    def _answers(self, inputs: list[Any], voice: Sequence[Any] | Any = None, **settings: Any) -> list[dict[str, Any]]:
        spoken = speak_many(self.audio_llm, inputs, voice, **settings)
        return [{"audio": one.waveform.numpy(), "sampling_rate": one.sample_rate} for one in spoken]
