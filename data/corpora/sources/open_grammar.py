"""Templates and long word lists for sentences of open vocabulary: what dictionaries show little of.

Numbers, names, dates, prices, addresses, spelt letters, questions, commands, replies. Written for this project; it
quotes nothing. `sentences` has the other grammar, of few words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def _words(text: str) -> tuple[str, ...]:
    """Words, or pairs of words, between commas; each once."""
    return tuple(dict.fromkeys(text.split(", ")))


_UNITS = _words(
    "zero, one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen, fourteen, fifteen, "
    "sixteen, seventeen, eighteen, nineteen"
)
_TENS = _words("twenty, thirty, forty, fifty, sixty, seventy, eighty, ninety")
_ORDINALS = _words(
    "first, second, third, fourth, fifth, sixth, seventh, eighth, ninth, tenth, eleventh, twelfth, thirteenth, "
    "fourteenth, fifteenth, sixteenth, seventeenth, eighteenth, nineteenth, twentieth"
)


def number_words(number: int) -> str:
    """A whole number from 0 to 999,999 in words, without hyphens."""
    if number < 20:
        return _UNITS[number]
    if number < 100:
        tens, unit = divmod(number, 10)
        return _TENS[tens - 2] + (f" {_UNITS[unit]}" if unit else "")
    size, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    count, rest = divmod(number, size)
    joint = " and " if 0 < rest < 100 else " "
    return f"{number_words(count)} {name}" + (joint + number_words(rest) if rest else "")


def _year_words(year: int) -> str:
    century, rest = divmod(year, 100)
    if 2000 <= year < 2010:
        return number_words(year)
    return f"{number_words(century)} " + (
        "hundred" if not rest else f"oh {number_words(rest)}" if rest < 10 else number_words(rest)
    )


# A name in braces stands for one of the alternatives of that name; names may nest. Every family is equally likely.
SENTENCES: Mapping[str, Sequence[str]] = {
    "short": (
        "{reply}.", "{reply}, {first}.", "{first} {did}.", "{adverb}, {first}!", "{command_short}.",
        "{command_short}, {first}.", "{number} {things}.", "a {adjective} {noun}.", "the {noun} {did}.",
        "{adjective} {things}.", "not {weekday}, {weekday}.", "{number} or {number}?", "why {first}?",
        "was it {adjective}?", "who {did}?", "call {first} {last}.",
    ),
    "number": (
        "the {noun} weighs {number} {weight}.", "we counted {hundreds} {things} in {city}.",
        "multiply {number} by {number} and subtract {number}.", "it is {decimal} {length} from here to {city}.",
        "the {noun} scored {number} points and the {noun} only {number}.",
        "about {number} percent of the {things} are {adjective}.",
        "{thousands} people live in {city} now.", "the result lies between {hundreds} and {thousands}.",
        "add {fraction} of a {measure} of {stuff} to the {noun}.", "bus {hundreds} stops near the {noun}.",
        "the password has {number} letters and {number} digits.", "minus {number} is less than {number}.",
        "it is {number} degrees colder in {city} than in {city}.", "his temperature was {decimal} this {part_of_day}.",
    ),
    "name": (
        "{first} {last} works with {first} in {city}.", "have you met my {relation}, {first} {last}?",
        "{title} {last} will {verb} the {noun} on {weekday}.", "this is {first} {last} from {country}.",
        "{first} and {first} {past} their {noun} to {title} {last}.", "please ask {title} {last} about the {noun}.",
        "it was {first} who {past} the {adjective} {noun}.", "nobody but {first} {last} ever {past} it.",
        "{first}'s {relation} comes from {city}, {first}'s from {country}.", "the {job} was called {first} {last}.",
    ),
    "date": (
        "we met on the {ordinal} of {month}, {year}.", "{month} {ordinal} is a {weekday} this year.",
        "the {noun} was built in {year} and {past_plain} in {year}.", "since {year} {first} has lived in {city}.",
        "the {job} arrives on {weekday}, {month} the {ordinal}.", "{first} was born in {city} in {month} {year}.",
        "from {month} to {month} the {place} is {adjective}.",
        "by the {ordinal} of {month} all {things} must be ready.",
    ),
    "price": (
        "the {adjective} {noun} costs {number} {money} {cents}.", "that makes {number} {money} and {cents}, please.",
        "{first} paid {hundreds} {money} for the {noun}.", "is {number} {money} too much for a {adjective} {noun}?",
        "we saved {thousands} {money} on {things}.", "a {measure} of {stuff} is {number} {money} in {city}.",
        "the price of {stuff} rose by {number} percent in {month}.",
        "can you lend me {number} {money} until {weekday}?",
    ),
    "address": (
        "{first} lives at {hundreds} {street} {road}.", "send it to {number} {street} {road}, {city}.",
        "the {place} is on the corner of {street} and {street} {road}.",
        "turn left into {street} {road}, then look for the {place}.",
        "our new address is {hundreds} {street} {road} in {city}.",
        "drive past the {place} and park behind the {noun}.",
        "is there a {place} near {street} {road}?", "my room is on the {ordinal} floor, number {hundreds}.",
    ),
    "spelling": (
        "my name is {spelt}.", "it is spelt {letter}, {letter}, {letter}, {letter}.", "{spelt}, like the {job}.",
        "the number plate reads {letter} {letter} {digit} {digit} {letter}.",
        "does it begin with {letter} or with {letter}?",
        "row {letter}, seat {number}.", "write a capital {letter} before the {noun}.",
        "gate {letter} {number} is closed.",
    ),
    "telephone": (
        "dial {digit} {digit} {digit}, then {digit} {digit} {digit} {digit}.",
        "my number ends in {digit} {digit} {digit}.",
        "the code for the {place} is {digit} {digit} {digit} {digit} {digit}.",
        "extension {digit} {digit} {digit}, ask for {first}.",
        "press {digit} for {stuff}, or {digit} for {things}.",
        "flight {digit} {digit} {digit} to {city} leaves from gate {number}.",
    ),
    "question": (
        "why did {first} {verb} the {adjective} {noun}?", "could you {verb} my {noun} before {weekday}?",
        "which {noun} do you want, the {adjective} one or the {adjective} one?", "how many {things} fit into a {noun}?",
        "did anyone {verb} the {things} at the {place}?", "have the {things} been {past_plain} yet?",
        "where can I buy {adjective} {stuff}?", "who {past} the {noun} last {weekday}?", "whose {noun} is this?",
        "would {first} rather {verb} a {noun} or {verb} a {noun}?", "what does a {job} need {stuff} for?",
        "isn't the {noun} more {adjective} than the {noun}?", "shall we {verb} it {adverb}?",
        "when will the {job} {verb} us?",
    ),
    "command": (
        "{verb} the {noun} and {verb} the {things}.", "please {verb} your {adjective} {things} {adverb}.",
        "don't {verb} the {noun} without {stuff}.", "{verb} {number} {things}, but {verb} no {stuff}.",
        "never {verb} a {noun} in the {place}.", "let's {verb} {first}'s {noun} on {weekday}.",
        "remind me to {verb} the {things} {time_from_now}.", "{adverb} {verb} the {noun} next to the {noun}.",
        "tell {first} to {verb} the {adjective} {noun}.", "wait {time_span}, then {verb} the {noun}.",
    ),
    "statement": (
        "the {adjective} {job} {past} the {noun} {adverb}.", "{first} {past} {number} {things} at the {place}.",
        "I {past} a {adjective} {noun} and a {adjective} {noun}.", "{things} are rarely {adjective} in {country}.",
        "{adverb} the {noun} was {past_plain} by a {job}.", "if the {noun} is {adjective}, {verb} it.",
        "the {job} says that {stuff} makes {things} {adjective}.", "our {relation} never {past} the {things}.",
        "there is {stuff} under the {noun} in the {place}.", "she {past} the {noun} because it looked {adjective}.",
        "neither the {job} nor the {job} {past} anything.",
        "although {first} is {adjective}, the {things} were {past_plain}.",
        "every {job} in {city} has a {adjective} {noun}.",
        "they {past} us some {stuff}, {number} {things} and a {noun}.",
        "my {relation} wants to be a {job} in {country}.", "without {stuff} the {noun} soon became {adjective}.",
    ),
    "time": (
        "see you {time_from_now}.", "it took {first} {time_span} to {verb} the {noun}.",
        "the {place} closes at {clock}.",
        "{first} {past} it {time_span} ago.", "at {clock} the {job} {did}.", "the {job} will be back in {time_span}.",
        "breakfast is served from {clock} until {clock}.", "is the {clock} train from {city} late?",
        "between {clock} and {clock} you may {verb} the {things}.", "every {weekday} at {clock} they {verb} {stuff}.",
    ),
}  # fmt: skip

_FIRST = _words(
    "Aaron, Abigail, Adam, Adele, Agnes, Albert, Alex, Amelia, Amir, Andrew, Angela, Arthur, Audrey, Barbara, "
    "Beatrice, Ben, Bridget, Bruno, Caleb, Carmen, Carol, Catherine, Cedric, Charles, Chloe, Claire, Colin, Connor, "
    "Daisy, Daniel, Daphne, Deborah, Diana, Dominic, Doris, Douglas, Dylan, Edith, Edward, Eleanor, Eli, Elizabeth, "
    "Eric, Esther, Ethan, Eva, Faith, Felix, Fiona, Florence, Freya, Gavin, Georgia, Gloria, Grace, Graham, Gwen, "
    "Hannah, Harold, Harvey, Hazel, Heather, Hugh, Ian, Ingrid, Irene, Isaac, Ivy, Jack, Jacob, James, Jane, Jasmine, "
    "Jeremy, Joan, Jonah, Joyce, Judith, Justin, Karen, Keith, Kevin, Kim, Kyle, Lena, Leo, Lewis, Lily, Linda, "
    "Lloyd, Lucy, Luke, Mabel, Malcolm, Margaret, Marion, Matthew, Maya, Megan, Michael, Miles, Mina, Miriam, Molly, "
    "Nadia, Naomi, Nathan, Neil, Nicholas, Nina, Nora, Olga, Oscar, Owen, Pamela, Patrick, Paula, Philip, Phoebe, "
    "Priya, Quentin, Rachel, Ralph, Ravi, Rebecca, Richard, Rita, Roy, Ruth, Samuel, Sandra, Sarah, Scott, Sean, "
    "Sharon, Simon, Sophie, Stella, Stephen, Sylvia, Thea, Theodore, Thomas, Tina, Toby, Tracy, Vera, Victor, "
    "Vincent, Violet, Walter, Wendy, William, Yolanda, Yusuf, Yvonne, Zachary, Zoe"
)
_LAST = _words(
    "Adams, Allen, Armstrong, Atkins, Bailey, Baker, Barnes, Bennett, Bishop, Brooks, Brown, Burton, Butler, "
    "Campbell, Carter, Chambers, Chapman, Clarke, Coleman, Collins, Cooper, Cox, Cruz, Davies, Dawson, Dixon, Doyle, "
    "Edwards, Elliott, Evans, Ferguson, Fisher, Fletcher, Foster, Fox, Gibson, Gomez, Gordon, Grant, Griffin, Hall, "
    "Hamilton, Harris, Hayes, Henderson, Hill, Holmes, Howard, Hudson, Hughes, Hunt, Jackson, Jenkins, Johnson, "
    "Jones, Kelly, Kennedy, Khan, King, Knight, Lambert, Lawrence, Lee, Lopez, Marsh, Mason, Matthews, Mitchell, "
    "Moore, Morgan, Murphy, Murray, Nelson, Newman, Nguyen, Novak, Olsen, Owens, Palmer, Parker, Patel, Pearson, "
    "Perry, Phillips, Porter, Powell, Price, Quinn, Reed, Reynolds, Richards, Rivera, Roberts, Robinson, Rogers, "
    "Rossi, Russell, Sanders, Schmidt, Shaw, Silva, Singh, Smith, Spencer, Stewart, Stone, Sullivan, Taylor, "
    "Thompson, Tucker, Turner, Vaughan, Wallace, Walsh, Warren, Watson, Webb, Wells, White, Williams, Wilson, Wong, "
    "Wood, Wright, Young, Zimmerman"
)
_NOUNS = _words(
    "anchor, apron, arrow, axe, backpack, badge, balloon, bandage, barrel, battery, bell, belt, blanket, boot, bowl, "
    "bracelet, branch, brick, broom, brush, bucket, button, cabinet, cable, cage, calendar, candle, canoe, cap, cart, "
    "ceiling, cellar, chain, chimney, coin, collar, column, comb, compass, contract, cottage, cradle, crane, crown, "
    "cushion, dagger, dial, diary, dictionary, dish, document, drawer, drill, drum, easel, elbow, elevator, envelope, "
    "eraser, fabric, faucet, feather, fence, filter, flag, flask, fork, fountain, frame, fuse, garment, gauge, giant, "
    "glove, goblet, guitar, hammer, handle, harbour, harness, hatch, helmet, hinge, hook, hose, jacket, jar, jewel, "
    "jigsaw, joint, journal, jug, kite, knife, knob, ladder, lamp, lantern, lawn, leaf, lens, lever, lid, locket, "
    "machine, magnet, mailbox, manual, mask, match, mattress, measure, medal, menu, microphone, mitten, monument, "
    "motor, mug, nail, napkin, necklace, needle, net, notebook, nozzle, oar, package, paddle, page, painting, pan, "
    "parcel, passport, pebble, pedal, pencil, photograph, piano, pillow, pipe, pocket, poem, pole, poster, project, "
    "puzzle, quilt, rack, radiator, rail, razor, receipt, recipe, report, ribbon, ring, roof, rope, ruler, saddle, "
    "safe, sail, satchel, sausage, saw, scale, scarf, schedule, screw, sculpture, seat, shawl, shed, shelf, shield, "
    "shovel, sketch, sled, sleeve, sponge, spring, stamp, statue, stone, stool, stove, strap, stream, switch, sword, "
    "syringe, table, tank, telescope, tent, thermometer, thread, thumb, tile, tool, toothbrush, torch, towel, toy, "
    "trailer, treasure, treaty, tray, trumpet, trunk, tunnel, tyre, umbrella, vase, vehicle, vessel, village, violin, "
    "vision, voyage, wagon, wallet, wardrobe, watch, wheel, whistle, window, wire, wrench, yacht, zipper"
)
_THINGS = _words(
    "acorns, almonds, ants, badges, bananas, beads, berries, biscuits, bolts, bricks, bulbs, butterflies, cables, "
    "cards, cherries, chestnuts, clouds, coats, coins, cucumbers, curtains, dentists, dolphins, drawings, earrings, "
    "engines, envelopes, errors, feathers, files, fingers, flags, footprints, fossils, geese, genes, giraffes, "
    "gloves, grapes, guests, hedges, islands, jewels, judges, kettles, kittens, knots, labels, leaves, leopards, "
    "lessons, letters, lizards, machines, maps, measures, mushrooms, nurses, oars, onions, owls, oysters, parcels, "
    "peaches, pearls, photos, pigeons, pirates, planets, plums, poets, prizes, pyramids, questions, quilts, rabbits, "
    "ribbons, robots, rumours, sandwiches, shadows, shells, shovels, snails, songs, spiders, squirrels, statues, "
    "strangers, teeth, thistles, tickets, toads, tourists, toys, trousers, turnips, twins, vegetables, visitors, "
    "volumes, wasps, whales, wheels, witnesses, wolves, yachts, zebras"
)
_ADJECTIVES = _words(
    "absent, ancient, anxious, awkward, bare, bitter, blank, blunt, bold, brief, bright, broad, broken, bulky, busy, "
    "careful, casual, cautious, cheap, civil, clumsy, common, complete, costly, crooked, cruel, curious, curly, damp, "
    "deaf, deep, delicate, dense, dim, dizzy, double, dull, dusty, eager, early, elegant, empty, enormous, exact, "
    "faint, fair, famous, fancy, fierce, flat, fluffy, foreign, fragile, frequent, frozen, genuine, ghostly, gloomy, "
    "graceful, greedy, handsome, harsh, heavy, hollow, honest, huge, humble, hungry, idle, innocent, jealous, joyful, "
    "juicy, keen, lazy, legal, loose, loyal, lukewarm, massive, mature, mild, modern, modest, muddy, mysterious, "
    "narrow, neat, nervous, noble, noisy, obvious, odd, official, pale, peculiar, plain, pleasant, polite, precious, "
    "private, proud, public, pure, quick, rapid, rare, raw, regular, rough, round, royal, rude, rusty, savage, "
    "scarce, secret, sensible, severe, shallow, sharp, shiny, silent, silly, simple, sincere, slender, slim, "
    "slippery, smooth, soft, solid, spare, square, steep, stiff, stubborn, sturdy, subtle, sudden, swift, tame, "
    "tender, thick, thin, thorough, tight, tiny, tough, transparent, tricky, unusual, useful, usual, vague, valuable, "
    "vast, vivid, weary, weird, wide, wise, worthy, yellow"
)
_VERBS = _words(
    "accept accepted, admire admired, adjust adjusted, avoid avoided, bake baked, bless blessed, boil boiled, borrow "
    "borrowed, breathe breathed, bring brought, build built, bury buried, buy bought, carry carried, carve carved, "
    "catch caught, change changed, choose chose, clean cleaned, collect collected, compare compared, copy copied, "
    "cover covered, crush crushed, decorate decorated, deliver delivered, describe described, design designed, "
    "destroy destroyed, discover discovered, divide divided, draw drew, dry dried, empty emptied, examine examined, "
    "exchange exchanged, explain explained, feed fed, fetch fetched, find found, finish finished, fix fixed, fold "
    "folded, follow followed, forget forgot, gather gathered, guard guarded, hide hid, hold held, ignore ignored, "
    "improve improved, inspect inspected, invent invented, join joined, judge judged, keep kept, kick kicked, label "
    "labelled, lift lifted, lock locked, lose lost, measure measured, mend mended, mention mentioned, mix mixed, move "
    "moved, notice noticed, offer offered, open opened, order ordered, pack packed, paint painted, photograph "
    "photographed, polish polished, praise praised, prepare prepared, print printed, protect protected, pull pulled, "
    "push pushed, reach reached, recognize recognized, refuse refused, remember remembered, remove removed, repair "
    "repaired, replace replaced, rescue rescued, return returned, save saved, scratch scratched, search searched, "
    "sell sold, shake shook, share shared, show showed, sketch sketched, smell smelled, squeeze squeezed, steal "
    "stole, study studied, support supported, teach taught, test tested, throw threw, tie tied, touch touched, trade "
    "traded, translate translated, trust trusted, understand understood, visit visited, want wanted, wash washed, "
    "watch watched, weigh weighed, wrap wrapped"
)
_JOBS = _words(
    "actor, architect, artist, astronaut, author, banker, barber, biologist, butcher, carpenter, chemist, clerk, "
    "coach, composer, cook, dancer, dentist, detective, diver, editor, electrician, engineer, farmer, firefighter, "
    "fisherman, florist, gardener, geologist, guard, hunter, jeweller, journalist, judge, juggler, king, lawyer, "
    "librarian, mayor, mechanic, merchant, miner, minister, musician, nurse, officer, painter, pharmacist, "
    "photographer, physicist, pianist, pilot, plumber, poet, porter, postman, professor, queen, referee, reporter, "
    "sailor, scientist, sculptor, shepherd, shoemaker, singer, soldier, surgeon, tailor, thief, trainer, usher, "
    "vicar, waiter, weaver, witness, zoologist"
)


ALTERNATIVES: Mapping[str, Sequence[str]] = {
    "first": _FIRST,
    "last": _LAST,
    "noun": _NOUNS,
    "things": _THINGS,
    "adjective": _ADJECTIVES,
    "verb": tuple(pair.split()[0] for pair in _VERBS),
    "past": tuple(pair.split()[1] for pair in _VERBS),
    # Of regular verbs alone: a participle that is not the past form would need a list of its own.
    "past_plain": tuple(pair.split()[1] for pair in _VERBS if pair.endswith("ed")),
    "job": _JOBS,
    "spelt": tuple(f"{name}, {', '.join(name.upper())}" for name in dict.fromkeys((*_FIRST, *_LAST)) if len(name) <= 5),
    "letter": tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    "digit": tuple(_UNITS[:10]),
    "number": tuple(number_words(number) for number in range(2, 100)),
    "hundreds": tuple(number_words(number) for number in range(101, 1000)),
    "thousands": tuple(number_words(number) for number in range(1000, 100_000, 50)),
    "decimal": tuple(f"{number_words(whole)} point {_UNITS[tenth]}" for whole in range(60) for tenth in range(10)),
    "ordinal": (*_ORDINALS, *(f"twenty {ordinal}" for ordinal in _ORDINALS[:9]), "thirtieth"),
    "year": tuple(_year_words(year) for year in range(1700, 2031)),
    "cents": tuple(number_words(number) for number in range(5, 100, 5)),
    "fraction": ("half", "a third", "a quarter", "two thirds", "three quarters", "a fifth", "an eighth"),
    "clock": (
        "{hour} o'clock", "half past {hour}", "quarter past {hour}", "quarter to {hour}", "{hour} {minute}", "noon",
        "midnight",
        "{hour} in the morning", "{hour} in the evening",
    ),
    "hour": tuple(_UNITS[1:13]),
    "minute": tuple(number_words(number) for number in range(10, 60)),
    "weekday": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "month": (
        "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
        "December",
    ),
    "part_of_day": ("morning", "afternoon", "evening", "week"),
    "time_span": (
        "{number} minutes", "{number} hours", "{number} days", "{number} weeks", "a moment", "half an hour", "a month",
        "a whole year", "an hour and a half", "a couple of days",
    ),
    "time_from_now": (
        "in {time_span}", "tomorrow at {clock}", "on {weekday} at {clock}", "next {weekday}", "on the {ordinal}",
        "after lunch", "before sunrise", "this weekend", "in {month}",
    ),
    "weight": ("grams", "pounds", "ounces", "kilograms", "tons"),
    "length": ("miles", "yards", "inches", "feet", "metres", "kilometres"),
    "measure": ("cup", "spoon", "litre", "pound", "bag", "gallon", "pinch", "bottle", "box", "kilo"),
    "money": ("dollars", "pounds", "euros", "yen", "rupees"),
    "stuff": (
        "advice", "ash", "bacon", "beef", "cement", "charcoal", "cinnamon", "clay", "cloth", "copper", "cotton",
        "cream",
        "dust", "earth", "electricity", "flour", "garlic", "ginger", "glue", "gold", "grass", "gravel", "honey", "ice",
        "ink", "jelly", "juice", "ketchup", "knowledge", "leather", "luggage", "marble", "mustard", "oil", "oxygen",
        "paint", "paper", "pepper", "petrol", "plastic", "powder", "rice", "salt", "sand", "silk", "smoke", "soap",
        "steam", "steel", "sugar", "thunder", "tobacco", "vinegar", "wax", "wheat", "wool", "yeast", "yoghurt",
    ),
    "city": (
        "Amsterdam", "Athens", "Baltimore", "Bangkok", "Barcelona", "Belfast", "Berlin", "Birmingham", "Bristol",
        "Brussels", "Budapest", "Cairo", "Calcutta", "Cambridge", "Cardiff", "Chicago", "Cleveland", "Copenhagen",
        "Dallas", "Delhi", "Denver", "Detroit", "Dublin", "Edinburgh", "Florence", "Geneva", "Glasgow", "Hamburg",
        "Helsinki", "Houston", "Istanbul", "Jakarta", "Jerusalem", "Leeds", "Lisbon", "Liverpool", "Madrid",
        "Manchester", "Melbourne", "Miami", "Milan", "Montreal", "Moscow", "Mumbai", "Munich", "Nairobi", "Naples",
        "Oslo", "Oxford", "Philadelphia", "Phoenix", "Pittsburgh", "Portland", "Prague", "Rome", "Seattle", "Seoul",
        "Sheffield", "Singapore", "Stockholm", "Sydney", "Tokyo", "Toronto", "Venice", "Vienna", "Warsaw",
        "Washington", "Zurich",
    ),
    "country": (
        "Argentina", "Australia", "Austria", "Belgium", "Brazil", "Canada", "Chile", "China", "Denmark", "Egypt",
        "England", "Ethiopia", "Finland", "France", "Germany", "Ghana", "Greece", "Hungary", "Iceland", "India",
        "Ireland", "Italy", "Jamaica", "Japan", "Kenya", "Korea", "Malaysia", "Mexico", "Morocco", "Nepal", "Norway",
        "Peru", "Poland", "Portugal", "Russia", "Scotland", "Spain", "Sweden", "Thailand", "Turkey", "Vietnam", "Wales",
    ),
    "street": (
        "Acorn", "Ash", "Beach", "Bridge", "Castle", "Cedar", "Chapel", "Cherry", "Chestnut", "Church", "College",
        "Elm", "Garden", "Green", "High", "Hill", "Jubilee", "King", "Lake", "Liberty", "Lincoln", "Maple", "Market",
        "Meadow", "Mill", "North", "Oak", "Orchard", "Park", "Pine", "Prospect", "Queen", "River", "School", "South",
        "Spring", "Station", "Sycamore", "Union", "Valley", "Victoria", "Vine", "Walnut", "Water", "Willow",
    ),
    "road": ("Street", "Road", "Avenue", "Lane", "Drive", "Square", "Court", "Way"),
    "place": (
        "airport", "aquarium", "bakery", "barn", "beach", "cathedral", "cemetery", "cinema", "clinic", "court",
        "embassy", "gallery", "garage", "gymnasium", "hairdresser's", "hospital", "laboratory", "laundry", "library",
        "lighthouse", "monastery", "museum", "nursery", "observatory", "palace", "pharmacy", "playground", "prison",
        "quarry", "school", "stable", "stadium", "swimming pool", "theatre", "university", "warehouse", "workshop",
        "zoo",
    ),
    "relation": (
        "aunt", "brother", "colleague", "cousin", "daughter", "father", "grandson", "husband", "mother", "neighbour",
        "nephew", "niece", "sister", "son", "uncle", "wife",
    ),
    "title": ("Mister", "Miss", "Doctor", "Professor", "Captain", "Judge"),
    "adverb": (
        "again", "always", "badly", "bravely", "briefly", "carefully", "cheaply", "cheerfully", "directly", "exactly",
        "finally", "gently", "gladly", "gradually", "happily", "hardly", "honestly", "immediately", "kindly", "lately",
        "loudly", "luckily", "nearly", "obviously", "often", "perhaps", "probably", "properly", "quietly", "rarely",
        "roughly", "safely", "secretly", "seldom", "simply", "slowly", "softly", "suddenly", "twice", "usually",
        "wisely",
    ),
    "did": (
        "agreed", "answered", "apologized", "appeared", "arrived", "belched", "blushed", "collapsed", "coughed",
        "cried",
        "dreamed", "exploded", "failed", "fell", "fled", "froze", "giggled", "grew", "hesitated", "jumped", "knelt",
        "laughed", "left", "lied", "listened", "nodded", "objected", "paused", "quarrelled", "recovered", "rested",
        "resigned", "sang", "shivered", "sighed", "slept", "smiled", "sneezed", "spoke", "stumbled", "survived", "swam",
        "trembled", "vanished", "waited", "waved", "whispered", "woke", "won", "yawned",
    ),
    "reply": (
        "absolutely", "all right", "bless you", "certainly", "don't worry", "excuse me", "fair enough", "give up",
        "go ahead", "good luck", "guess what", "have fun", "how strange", "I agree", "I doubt it", "I see",
        "just a second",
        "never mind", "no problem", "no thanks", "not at all", "not really", "not yet", "of course", "oh dear",
        "quite right", "same here", "so do I", "some other time", "sounds great", "that's enough", "too bad",
        "very well",
        "watch out", "well done", "what a pity", "why not", "without doubt", "yes, please", "you choose",
        "you're welcome",
    ),
    "command_short": (
        "be quiet", "bend down", "breathe in", "calm down", "cheer up", "come closer", "follow him", "get dressed",
        "give it back", "go away", "grab this", "hang on", "hurry up", "join us", "jump over it", "keep going",
        "leave it there", "lie down", "look behind you", "open wide", "pass the {stuff}", "push harder", "put it down",
        "read it aloud", "show me", "shut the lid", "slow down", "speak up", "stand back", "stay here", "stop that",
        "take the {noun}", "think twice", "try again", "turn around", "wait for {first}", "write it down", "zip it up",
    ),
}  # fmt: skip
