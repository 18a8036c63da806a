#!/bin/sh
# What `audiollm serve` does for curl: speech, transcription, a question about a recording, all of it streamed.
#
#     audiollm serve                         # in another terminal
#     sh examples/serving/speak_listen_chat.sh  # URL, KEY, MODEL and OUTPUT may be set in the environment
set -eu

url=${URL:-http://127.0.0.1:8000/v1}
model=${MODEL:-mini}
output=${OUTPUT:-.}
ask() { curl --silent --show-error --fail-with-body --no-buffer -H "Authorization: Bearer ${KEY:-none}" "$@"; }

echo "models:"
ask "$url/models"
echo

# A text becomes a file; --output - | ffplay - would play it as it comes.
ask "$url/audio/speech" -H "Content-Type: application/json" --output "$output/speech.mp3" \
  --data '{"model": "'"$model"'", "voice": "default", "input": "The kettle is on.", "seed": 1,
           "instructions": "an American man, slowly"}'
echo "spoken: $(wc -c < "$output/speech.mp3") bytes"

# And the file becomes text again; srt and vtt are subtitles.
echo "heard: $(ask "$url/audio/transcriptions" -F "file=@$output/speech.mp3" -F "model=$model" -F response_format=text)"

# A question about a recording: the body is made in a file, for it is too long for a command line.
{
  printf '{"model": "%s", "stream": true, "messages": [{"role": "user", "content": [' "$model"
  printf '{"type": "input_audio", "input_audio": {"format": "mp3", "data": "'
  base64 < "$output/speech.mp3" | tr -d '\n'
  printf '"}}, {"type": "text", "text": "Is the speaker a man or a woman?"}]}]}'
} > "$output/question.json"
ask "$url/chat/completions" -H "Content-Type: application/json" --data "@$output/question.json"
rm "$output/question.json"
