// What `audiollm serve` does for the openai client of Node.js: speech, transcription, chat with audio in and out.
//
//     audiollm serve                                   # in another terminal
//     npm install openai && node speak_listen_chat.mjs # URL, KEY and OUTPUT may be set in the environment

import fs from "node:fs";
import path from "node:path";
import OpenAI from "openai";

const output = process.env.OUTPUT ?? ".";
const client = new OpenAI({
  baseURL: process.env.URL ?? "http://127.0.0.1:8000/v1",
  apiKey: process.env.KEY ?? "none",
});
const text = "The kettle is on.";
const model = (await client.models.list()).data[0].id;
console.log(`the server has ${model}`);

// A text becomes a file; `instructions` are the voice, in words.
const speech = path.join(output, "speech.mp3");
const spoken = await client.audio.speech.create({
  model, voice: "default", input: text, instructions: "an American man, slowly", seed: 1,
});
fs.writeFileSync(speech, Buffer.from(await spoken.arrayBuffer()));
console.log(`spoken: ${fs.statSync(speech).size} bytes in ${speech}`);

// And the file becomes text again.
const transcript = await client.audio.transcriptions.create({ model, file: fs.createReadStream(speech) });
console.log(`heard: ${transcript.text}`);

// A question about a recording; the answer comes word by word.
const data = fs.readFileSync(speech).toString("base64");
const content = [
  { type: "input_audio", input_audio: { data, format: "mp3" } },
  { type: "text", text: "Is the speaker a man or a woman?" },
];
let answer = "";
for await (const chunk of await client.chat.completions.create({
  model, messages: [{ role: "user", content }], stream: true,
})) answer += chunk.choices[0]?.delta?.content ?? "";
console.log(`answered: ${answer}`);

// An answer with sound, as a stream of 16-bit PCM of 24 kHz.
const pieces = [];
for await (const chunk of await client.chat.completions.create({
  model, messages: [{ role: "user", content: `Read this text aloud.\n\n${text}` }], seed: 1,
  modalities: ["text", "audio"], audio: { voice: "default", format: "pcm16" }, stream: true,
})) if (chunk.choices[0]?.delta?.audio?.data) pieces.push(Buffer.from(chunk.choices[0].delta.audio.data, "base64"));
fs.writeFileSync(path.join(output, "streamed.pcm"), Buffer.concat(pieces));
console.log(`streamed: ${pieces.length} pieces of sound`);
