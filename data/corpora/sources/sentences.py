"""Plain English sentences from a small grammar: what one says to a speaker in the kitchen, and what it may answer.

The grammar was written for this project; it quotes nothing. A sentence follows from its number and a seed alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from audiollm.data.sampling import draw

# A name in braces stands for one of the alternatives of that name; names may nest. Every family is equally likely.
SENTENCES: Mapping[str, Sequence[str]] = {
    "time": (
        "it is {clock} {daypart}",
        "the time is now {clock}",
        "the {vehicle} {leaves} at {clock}",
        "please wake me up at {clock} on {weekday}",
        "set an alarm for {clock} {daypart}",
        "the {event} starts on {weekday} at {clock}",
        "the {shop} opens at {clock} and closes at {clock}",
        "we have to be {place} before {clock}",
        "set a timer for {number} {minutes}",
        "your {event} is in {number} {minutes}",
        "the {event} was moved from {weekday} to {weekday}",
        "today is {weekday}, the {ordinal} of {month}",
    ),
    "number": (
        "the answer is {big_number}",
        "{number} plus {number} makes {big_number}",
        "the code is {digit} {digit} {digit} {digit}",
        "please call {digit} {digit} {digit}, {digit} {digit} {digit} {digit}",
        "there are {number} {things} on the {furniture}",
        "I bought {number} {things} and {number} {things}",
        "the {thing} costs {number} dollars and {tens} cents",
        "platform {digit}, {vehicle} number {big_number}",
        "turn to page {big_number} and read the {ordinal} line",
        "the house has {number} {house_parts} and {number} {house_parts}",
        "count from {digit} to {tens}",
    ),
    "weather": (
        "tomorrow will be {weather} and {weather}",
        "it will be {weather} {in_region} {daypart}",
        "expect {falling} {in_region} on {weekday}",
        "the temperature is {number} degrees and it feels {feeling}",
        "there is a {chance} chance of {falling} {daypart}",
        "take {clothing} with you, it is {weather} outside",
        "{weekday} was {weather}, but now the sky is {colour}",
        "strong wind from the {direction} and some {falling}",
        "the sun rises at {clock} and sets at {clock}",
        "after the {falling} the road was {road_state}",
    ),
    "home": (
        "turn {on_off} the {device} in the {room}",
        "please turn {on_off} the {device}",
        "the {device} in the {room} is {on_off}",
        "make the {room} a little {warmer}",
        "open the {opening} in the {room}, please",
        "close the {opening} and turn {on_off} the {device}",
        "somebody left the {device} on in the {room}",
        "set the {device} to {number} percent",
        "the {opening} of the {room} is {open_closed}",
        "is the {device} in the {room} still {on_off}",
        "who is in the {room}",
        "the {device} will be {on_off} until {clock}",
    ),
    "animal": (
        "the {colour} {animal} {animal_does} {where_outside}",
        "I can hear {an_animal} {where_outside}",
        "{an_animal} and {an_animal} {animals_do} {where_outside}",
        "my {person} has {an_animal} that {animal_does} every {daytime}",
        "have you ever seen {an_animal} that {animal_does}",
        "the {animal} is {size} than the {animal}",
        "{number} {animals} live {where_outside}",
        "the {animals} like to eat {food} in the {greet}",
        "a {adjective} {animal} sat under the {furniture}",
    ),
    "colour": (
        "the {thing} is {colour} and the {thing} is {colour}",
        "paint the {opening} {colour}, not {colour}",
        "she wore a {colour} {clothing_item} and {colour} shoes",
        "mix {colour} and {colour} to get another colour",
        "I like {colour} better than {colour}",
        "the {colour} {thing} belongs to my {person}",
        "put the {colour} {thing} on the {furniture}",
        "his {clothing_item} is as {colour} as {as_colour}",
    ),
    "greeting": (
        "good {greet}, how are you today?",
        "hello {name}, it is nice to {see} you",
        "good {greet}, {name}, this is {name} speaking",
        "welcome {to_place}, please {come_in}",
        "thank you very much for the {gift}, {name}",
        "goodbye, {name}, see you on {weekday}",
        "happy birthday, {name}, you are {tens} years old today",
        "I am sorry that I am late, {name}",
        "my name is {name} and I come from the {direction}",
        "sleep well, and have a {adjective} {weekday}",
        "please give my best wishes to your {person}",
    ),
    "question": (
        "where is the {thing}? it is on the {furniture}",
        "what time is it? it is {clock}",
        "who called? it was {name}",
        "when does the {vehicle} leave? at {clock}",
        "what would you like to eat? {food} with {food}, please",
        "how much is the {thing}? it is {number} dollars",
        "is it {weather} outside? yes, and it feels {feeling}",
        "is it {weather} outside? no, it is {weather}",
        "which colour do you like? I like {colour}",
        "how far is it {to_place}? about {number} miles",
        "can you hear the {animal}? no, I hear the {device}",
        "where are my {things}? your {person} took them",
        "do you speak English? yes, a little",
    ),
    "town": (
        "the {vehicle} {to_place} {leaves} from platform {digit}",
        "turn {left_right} at the {building} and walk {number} {minutes}",
        "the {building} is on the {left_right}, next to the {building}",
        "go straight ahead until you see the {building}",
        "a {vehicle} is waiting in front of the {building}",
        "the way {to_place} is {road_state} today",
        "my {person} works at the {building} {to_place_near}",
        "we will meet at the {building} at {clock}",
        "the {vehicle} is {number} {minutes} late again",
    ),
    "food": (
        "for {meal} we had {food} and {food}",
        "would you like {food} or {food} with your {drink}",
        "please buy {number} {things} and some {food}",
        "the {drink} is {feeling}, but the {food} is {taste}",
        "my {person} cooks {food} every {weekday}",
        "put the {food} in the {device_kitchen} for {number} {minutes}",
        "we have no {food} left in the {device_kitchen}",
        "a cup of {drink} in the {greet} makes me {mood}",
    ),
    "sound": (
        "I hear {noise} in the {room}",
        "listen, that is {noise}",
        "the {instrument} is louder than the {instrument}",
        "my {person} plays the {instrument} every {daytime}",
        "play some {mood} music in the {room}",
        "the music is too {loud}, please turn it {up_down}",
        "what was that noise? it was {noise}",
        "first I heard {noise}, then nothing but {noise}",
        "the {instrument} sounds {mood} and {mood}",
    ),
    "story": (
        "once there was a {adjective} {person} who lived {where_outside}",
        "{name} and {name} walked {to_place} in the {falling}",
        "my {person} found a {colour} {thing} under the {furniture}",
        "the {adjective} {person} opened the {opening} and saw {an_animal}",
        "{name} was {mood}, because the {event} was over",
        "we were {mood} when the {vehicle} finally came",
        "nobody knew who had taken the {colour} {thing}",
        "{name} {told} {name} to wait {place}",
        "she read a {adjective} book about {animals} and {animals}",
    ),
}  # fmt: skip

ALTERNATIVES: Mapping[str, Sequence[str]] = {
    "clock": (
        "{hour} o'clock", "half past {hour}", "a quarter past {hour}", "a quarter to {hour}", "ten past {hour}",
        "twenty to {hour}", "five to {hour}", "{hour} thirty", "{hour} fifteen", "noon", "midnight",
    ),
    "hour": ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    "daypart": (
        "in the morning", "in the afternoon", "in the evening", "at night", "today", "tonight", "tomorrow",
        "tomorrow morning", "this evening", "later today", "this week",
    ),
    "greet": ("morning", "afternoon", "evening"),
    "daytime": ("morning", "afternoon", "evening", "night"),
    "weekday": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "month": (
        "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
        "December",
    ),
    "ordinal": ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "last"),
    "digit": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "number": (
        "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
        "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "{tens}", "{tens} {unit}",
    ),
    "tens": ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"),
    "unit": ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "big_number": (
        "{tens}", "{tens} {unit}", "{unit} hundred", "{unit} hundred and {tens}", "{unit} hundred and {tens} {unit}",
        "{unit} thousand", "{unit} thousand {unit} hundred", "a million",
    ),
    "minutes": ("minutes", "hours", "seconds"),
    "vehicle": ("train", "bus", "boat", "plane", "tram", "taxi", "ferry", "lorry"),
    "leaves": ("leaves", "arrives", "departs"),
    "event": ("meeting", "concert", "lesson", "game", "party", "wedding", "lecture", "film", "holiday", "appointment"),
    "shop": ("bakery", "library", "museum", "supermarket", "bank", "post office", "pharmacy", "restaurant"),
    "place": ("at home", "at the station", "at the airport", "at school", "at work", "in the office", "on the bridge"),
    "to_place": (
        "to the city", "to the village", "to the airport", "to the station", "to the harbour", "to the island",
        "to the mountains", "to the sea", "to London", "to Boston", "to Paris", "to New York",
    ),
    "to_place_near": ("near the river", "behind the market", "in the old town", "at the corner"),
    "building": (
        "church", "hospital", "school", "tower", "castle", "bridge", "theatre", "hotel", "factory", "market", "bank",
        "station",
    ),
    "left_right": ("left", "right"),
    "direction": ("north", "south", "east", "west"),
    "weather": (
        "sunny", "cloudy", "rainy", "windy", "stormy", "foggy", "snowy", "warm", "cold", "hot", "wet", "dry", "mild",
    ),
    "in_region": (
        "in the north", "in the south", "in the west", "in the east", "along the coast", "in the mountains",
        "in the city", "in the valley", "everywhere",
    ),
    "falling": ("rain", "snow", "hail", "fog", "light showers", "heavy rain", "a thunderstorm", "fresh snow"),
    "chance": ("small", "good", "high", "low", "fair"),
    "feeling": ("cold", "warm", "hot", "cool", "pleasant", "freezing"),
    "clothing": ("an umbrella", "a warm coat", "a hat", "your gloves", "a scarf", "your boots"),
    "clothing_item": ("coat", "hat", "dress", "shirt", "jacket", "scarf", "sweater"),
    "road_state": ("wet", "slippery", "closed", "empty", "blocked", "clear", "dangerous"),
    "on_off": ("on", "off"),
    "device": (
        "light", "lamp", "radio", "television", "heating", "fan", "oven", "kettle", "computer", "dishwasher",
        "washing machine", "music", "alarm", "printer",
    ),
    "device_kitchen": ("oven", "fridge", "freezer", "microwave", "pan", "pot"),
    "room": (
        "kitchen", "bedroom", "bathroom", "living room", "garden", "garage", "hall", "cellar", "office", "attic",
        "dining room", "nursery",
    ),
    "house_parts": ("rooms", "windows", "doors", "floors", "chimneys", "balconies"),
    "warmer": ("warmer", "cooler", "brighter", "darker", "quieter"),
    "opening": ("door", "window", "gate", "curtain", "roof window", "cupboard"),
    "open_closed": ("open", "closed", "locked", "broken", "half open"),
    "furniture": ("table", "chair", "shelf", "bed", "sofa", "desk", "bench", "carpet", "piano", "kitchen table"),
    "thing": (
        "book", "bottle", "key", "letter", "phone", "ball", "basket", "clock", "candle", "bicycle", "camera", "ticket",
        "pencil", "box", "mirror", "map", "plate", "spoon", "suitcase", "newspaper",
    ),
    "things": (
        "books", "bottles", "keys", "letters", "apples", "eggs", "flowers", "candles", "stamps", "tickets", "pencils",
        "boxes", "plates", "spoons", "oranges", "lemons", "glasses", "cups",
    ),
    "colour": (
        "red", "blue", "green", "yellow", "black", "white", "grey", "brown", "orange", "purple", "pink", "dark blue",
        "light green", "golden", "silver",
    ),
    "as_colour": ("snow", "the sky", "coal", "grass", "the sea", "a rose", "gold"),
    "animal": (
        "dog", "cat", "horse", "cow", "sheep", "goat", "bird", "owl", "duck", "frog", "mouse", "fox", "wolf", "bear",
        "lion", "monkey", "snake", "rabbit", "chicken", "donkey",
    ),
    "an_animal": (
        "a dog", "a cat", "a horse", "a cow", "a sheep", "a goat", "a bird", "an owl", "a duck", "a frog", "a mouse",
        "a fox", "a wolf", "a bear", "a lion", "a monkey", "a snake", "a rabbit", "an elephant", "a donkey",
    ),
    "animals": (
        "dogs", "cats", "horses", "cows", "goats", "birds", "owls", "ducks", "frogs", "mice", "foxes", "wolves",
        "bears", "rabbits", "chickens", "bees", "sheep", "butterflies",
    ),
    "animal_does": (
        "sleeps", "sings", "barks", "runs", "hides", "jumps", "is eating", "is waiting", "makes a noise", "cries",
        "looks for food", "is playing",
    ),
    "animals_do": ("are playing", "are sleeping", "run", "are eating", "live", "make a noise"),
    "where_outside": (
        "in the garden", "behind the house", "near the river", "in the forest", "on the roof", "by the lake",
        "under the old tree", "in the field", "across the road", "on the farm", "by the sea", "on the hill",
    ),
    "size": ("bigger", "smaller", "faster", "slower", "older", "younger", "louder", "stronger"),
    "person": (
        "mother", "father", "sister", "brother", "uncle", "aunt", "neighbour", "teacher", "doctor", "friend",
        "grandmother", "grandfather", "cousin", "daughter", "son",
    ),
    "name": (
        "Anna", "Peter", "Mary", "John", "Susan", "David", "Emma", "Tom", "Julia", "Robert", "Alice", "George", "Helen",
        "Frank", "Laura", "Henry", "Clara", "Martin", "Rose", "Oliver",
    ),
    "adjective": (
        "good", "small", "old", "young", "quiet", "beautiful", "strange", "happy", "tired", "lucky", "brave", "clever",
        "wonderful", "long",
    ),
    "see": ("see", "meet", "hear from", "talk to"),
    "come_in": ("come in", "sit down", "take a seat", "follow me", "wait here"),
    "gift": ("flowers", "letter", "present", "invitation", "help", "good advice", "lovely book"),
    "food": (
        "bread", "cheese", "soup", "rice", "fish", "potatoes", "tomatoes", "salad", "cake", "butter", "honey",
        "chocolate", "apples", "beans", "carrots", "chicken", "noodles", "pancakes", "strawberries", "ice cream",
    ),
    "drink": ("coffee", "tea", "milk", "water", "orange juice", "lemonade", "hot chocolate"),
    "meal": ("breakfast", "lunch", "dinner", "supper"),
    "taste": ("sweet", "salty", "sour", "delicious", "too hot", "burnt", "excellent", "fresh"),
    "mood": ("happy", "sad", "calm", "tired", "cheerful", "nervous", "angry", "surprised", "gentle", "wild"),
    "noise": (
        "a dog barking", "a door closing", "a bell ringing", "thunder", "the rain on the roof", "footsteps",
        "a car horn", "a siren", "glass breaking", "somebody laughing", "a baby crying", "the wind", "a drum",
        "an engine", "water running", "a whistle", "birds singing", "the telephone", "a train passing", "silence",
    ),
    "instrument": (
        "piano", "guitar", "violin", "drum", "flute", "trumpet", "cello", "organ", "harp", "saxophone", "bass",
        "clarinet",
    ),
    "loud": ("loud", "quiet", "fast", "slow"),
    "up_down": ("up", "down"),
    "told": ("told", "asked", "wanted", "helped"),
}  # fmt: skip

_SLOT = re.compile(r"\{(\w+)\}")
_SENTENCE_START = re.compile(r"(?:^|(?<=[?.!] ))[a-z]")
_QUESTION_WORDS = ("is ", "are ", "who ", "what ", "where ", "have you ", "would you ", "do you ", "how ")


def grammar_sentences(count: int, seed: int = 0) -> list[str]:
    """Draws sentences, no two of them alike.

    Args:
        count: how many; the first ones do not depend on it.
        seed: another seed, other sentences.

    Returns:
        Sentences with a capital and a full stop or question mark, numbers in words.

    Raises:
        ValueError: if the count is negative, or so high that the grammar runs dry.
    """
    if count < 0:
        raise ValueError(f"count={count}: use 0 or more sentences")
    found: dict[str, None] = {}
    families = tuple(SENTENCES)
    for number in range(20 * count + 100):
        if len(found) == count:
            break
        family = SENTENCES[families[number % len(families)]]
        key = f"{seed} {number}"
        found[finished(filled(family[draw("template", key, len(family))], key, ALTERNATIVES))] = None
    if len(found) < count:
        raise ValueError(f"count={count}: the grammar gave only {len(found)} different sentences; ask for fewer")
    return list(found)


def filled(template: str, key: str, alternatives: Mapping[str, Sequence[str]]) -> str:
    """Puts an alternative into every slot; one template never uses the same alternative of a name twice.

    Args:
        template: text with names in braces.
        key: decides which; another key, other alternatives.
        alternatives: by name; they may hold names themselves.
    """
    used: set[tuple[str, str]] = set()
    text = template
    step = 0
    while match := _SLOT.search(text):
        name = match[1]
        options = [option for option in alternatives[name] if (name, option) not in used or "{" in option]
        option = options[draw(f"{step} {name}", key, len(options))]
        if name != "digit":  # telephone numbers repeat digits
            used.add((name, option))
        text = text[: match.start()] + option + text[match.end() :]
        step += 1
    return text


def finished(text: str) -> str:
    """With a capital at the start of each sentence, and a mark at the end."""
    is_question = text.startswith(_QUESTION_WORDS) and "?" not in text
    whole = text if text[-1] in ".?!" else text + ("?" if is_question else ".")
    return _SENTENCE_START.sub(lambda match: match[0].upper(), whole)
