"""The words of questions about a SAP record, several for each; wordings are only ever appended: their numbers are ids.

``{value}`` stands for what is true or claimed, ``{subject}`` for the class of the event that is asked about.
"""

from __future__ import annotations

QUESTIONS: dict[str, tuple[str, ...]] = {
    "sound_type": (
        "Is this speech, music or another sound?",
        "What kind of recording is this: speech, music or sound?",
        "Do you hear speech, music or some other sound?",
    ),
    "linguistic_content": (
        "What is said?",
        "Which words are spoken?",
        "Give the exact words of the speaker.",
        "What do you hear being said?",
    ),
    "age": (
        "How old does the speaker sound: a child, an adult or elderly?",
        "Which age group is the speaker in: child, adult or elderly?",
        "Estimate the age group of the voice: child, adult or elderly.",
    ),
    "gender": (
        "Is the voice male or female?",
        "What is the gender of the speaker, female or male?",
        "Do you hear a male or a female voice?",
    ),
    "emotion": (
        "Which emotion does the speaker show?",
        "What emotion do you hear in the voice?",
        "Name the emotion of the speaker.",
    ),
    "accent": (
        "Which accent does the speaker have?",
        "What accent do you hear?",
        "Name the accent of the speaker.",
    ),
    "prosody": (
        "How does the speaker speak: pace, pitch, rhythm?",
        "Describe the prosody of the speech.",
        "What is the delivery of the speaker like?",
    ),
    "timbre": (
        "What is the timbre of the voice?",
        "Describe the quality of the voice.",
        "How does the voice itself sound?",
    ),
    "summary": (
        "What is heard in the recording?",
        "Describe the sounds of the scene.",
        "Summarise what can be heard.",
    ),
    "events": (
        "Which sounds are heard?",
        "Name the sounds in the recording.",
        "What sound events are there?",
    ),
    "event_type": (
        "Is this sound transient or persistent: {subject}?",
        "Does the sound of the following pass at once (transient) or last (persistent): {subject}?",
        "Of what type is this sound, transient or persistent: {subject}?",
    ),
    "event_attributes": (
        "What is this sound like: {subject}?",
        "Describe this sound more closely: {subject}.",
        "Say more about this sound: {subject}.",
    ),
}

# Where a question must be another one as soon as there are choices.
QUESTIONS_WITH_CHOICES: dict[str, tuple[str, ...]] = {
    "events": (
        "Which of these sounds is heard?",
        "Which sound is in the recording?",
        "One of these can be heard. Which?",
    ),
}

CLAIMS: dict[str, tuple[str, ...]] = {
    "sound_type": ("The kind of recording is: {value}.", "By its kind, the recording is {value}."),
    "linguistic_content": ("The speaker says: “{value}”", "These words are spoken: “{value}”"),
    "age": ("The age group of the speaker is: {value}.", "By age, the voice is: {value}."),
    "gender": ("The voice is {value}.", "The speaker is {value}."),
    "emotion": ("The emotion of the speaker is {value}.", "In the voice one hears: {value}."),
    "accent": ("The speaker's accent is {value}.", "The voice has this accent: {value}."),
    "summary": ("This is heard: {value}", "The scene is described well by: {value}"),
    "events": ("This sound is heard: {value}.", "Among the sounds there is: {value}."),
    "event_type": ("This sound is {value}: {subject}.", "The sound of the following is {value}: {subject}."),
    "event_attributes": ("This sound: {subject}, is {value}.", "The following sound is {value}: {subject}."),
}

# What is added to a question with choices; the choices follow on lines of their own.
CHOICES: tuple[str, ...] = (
    "Select one of these choices.",
    "Choose one:",
    "Answer with one of the following.",
    "Options:",
)

# How a claim is put up for judgement, with the answers if it holds and if not.
JUDGEMENTS: tuple[tuple[str, str, str], ...] = (
    ("True or false? {claim}", "True", "False"),
    ("{claim} True or false?", "True", "False"),
    ("Is this right? {claim}", "Yes", "No"),
    ("{claim} Is that so?", "Yes", "No"),
)

NOTHING_SAID = "No words are spoken."
"""The answer to what is said in a clip without speech."""
