"""Under which heading of ``--help`` an option is shown, by what it is about."""

from __future__ import annotations

OPTION_GROUPS: dict[str, tuple[str, ...]] = {
    "input and output": (
        "data", "pairs", "meta", "wavs", "texts", "esc10", "predictions", "per_clip", "codes", "question", "index",
        "examples", "limit", "max_length", "max_items", "max_clips", "min_clips_per_class", "num_clips", "sound_type",
        "label_key",
        "prediction_key", "shuffle_options", "attributes", "conditions", "templates", "min_segments", "max_segments",
        "split", "shots", "shots_data", "rules", "voice_share", "audit",
        "task", "instruction", "text_key", "base_dir", "check_audio", "mono", "output", "output_dir", "format",
        "json", "jsonl", "overwrite",
    ),
    "model": (
        "model", "audio_tokenizer", "audio_tokenizers", "codebook_size", "codebooks", "code_order", "init",
        "dtype", "device", "speaker_encoder",
        "endpoint_model", "endpoint_key", "structurer", "structurer_model", "structurer_key", "structurer_prices",
        "captioner", "captioner_model", "captioner_key", "captioner_prices", "url", "key_variable",
    ),
    "generation": (
        "prompt", "voice", "prompt_audio", "prompt_text", "speaker_audio", "steps", "guidance", "quality",
        "temperature", "seconds", "min_seconds", "max_seconds", "max_new_tokens", "longest_seconds", "pauses", "seed",
        "seeds", "num_seeds", "attempts", "stream", "speak",
    ),
    "scoring": (
        "report", "text", "asr", "language", "similarity", "mos", "metrics", "mode", "judge", "judge_model",
        "judge_key", "votes", "normalizer", "unit", "distance", "scale", "num_clusters", "num_restarts", "fail_below",
        "beyond_chance", "allow_different", "strict", "require_known_data", "study",
    ),
    "serving": (
        "host", "port", "name", "engine", "vllm_url", "vllm_model", "max_running", "voices", "translates", "ignore",
        "log_content", "no_page", "compare_tokenizer",
    ),
    "limits": (
        "max_waiting", "deadline_seconds", "idle_seconds", "max_upload_megabytes", "max_decoded_megabytes",
        "max_upload_seconds", "max_channels", "max_text_characters", "max_part_characters", "max_tokens",
        "max_prompt_tokens", "max_connections_per_key", "grace_seconds", "sound_process", "api_keys",
        "max_session_seconds", "max_session_items", "max_turn_seconds", "turn_detector",
    ),
    "the Hub": (
        "token", "revision", "tags", "private", "commit_message",
    ),
    "run": (
        "batch_size", "concurrency", "processes", "ray", "num_decoders", "shard_hours", "num_shards", "shard",
        "bench", "max_asks", "max_retries", "timeout_seconds", "measures_only",
        "max_failures", "skip_bad", "keep_going", "config", "print_config", "verbose", "version", "help",
    ),
}  # fmt: skip
"""Heading → options. What is listed nowhere, such as a trainer's settings, stands under the parser's own heading."""

HEADINGS: dict[str, str] = {name: heading for heading, names in OPTION_GROUPS.items() for name in names}
"""Option → heading."""
