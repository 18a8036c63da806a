"""Which codes say which word, learned from texts and their codes alone.

Each letter of a text is a state that gives out codes, with pauses around the words; a path goes through the states in
order and may leave out a few (silent letters). From letters of equal length on, paths and the codes of each letter are
made from each other by turns (Viterbi training of a hidden Markov model; Juang and Rabiner 1990), at last with the
letter before as context. What a code is worth for a letter needs no labels: other sentences say the same letters.
"""
# Shapes: B sentences, K states of one (its letters and pauses), T codes, L letters and the pause, V codes in all.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import torch
from torch import Tensor

_PAUSE = 0
_BETWEEN_WORDS = -1
_MAX_STEP = 4  # so many states further at a time at most, three of them left out
_LEFT_OUT = -1.5  # log probability of leaving out a letter; a pause may be left out for nothing
_IMPOSSIBLE = -1e9
_BATCH_SIZE = 256
_ROUNDS_OF_LETTERS, _ROUNDS_OF_PAIRS = 4, 5
# Counts of codes are smoothed: of letters with those of all speech, of pairs with those of the letter.
_PRIOR_CODES, _CODES_OF_LETTER, _CODES_OF_PAIR = 0.1, 20.0, 30.0


@dataclass(frozen=True)
class SpokenCodes:
    """A sentence and the codes that say it.

    Attributes:
        text: its words.
        codes: int, one for each frame.
    """

    text: str
    codes: Sequence[int]


class WordAligner:
    """Finds the codes of each word of a sentence.

    Args:
        sentences: to learn from, thousands; only what is long enough to be aligned counts.
        codebook_size: V; no code may be larger.

    Raises:
        ValueError: if a code is.
    """

    def __init__(self, sentences: Sequence[SpokenCodes], codebook_size: int) -> None:
        letters = sorted({letter for one in sentences for word in one.text.split() for letter in _letters(word)})
        self._index = {letter: number for number, letter in enumerate(letters, start=_PAUSE + 1)}
        self._codebook_size = codebook_size
        largest = max((code for one in sentences for code in one.codes), default=0)
        if largest >= codebook_size:
            raise ValueError(f"code {largest} is none of {codebook_size}: were the codes made by another tokenizer?")
        states = [self._states(one.text) for one in sentences]
        fitting = [
            (one, state) for one, (state, _) in zip(sentences, states, strict=True) if _fits(len(state), one.codes)
        ]
        # Equally long letters are far from the truth, and yet enough to begin with.
        paths = [torch.linspace(0, len(state) - 1, len(one.codes)).round().long() for one, state in fitting]
        for number in range(_ROUNDS_OF_LETTERS + _ROUNDS_OF_PAIRS):
            self._log_emissions = self._emissions(fitting, paths, by_pairs=number >= _ROUNDS_OF_LETTERS)
            paths = self._paths(fitting)

    def words(self, sentences: Sequence[SpokenCodes]) -> list[list[int] | None]:
        """For each code the number of the word (from 0) that it says, -1 between words; None for a sentence that is too
        short for its text."""
        states = [self._states(one.text) for one in sentences]
        found: list[list[int] | None] = [None] * len(sentences)
        usable = [
            n for n, (one, (state, _)) in enumerate(zip(sentences, states, strict=True)) if _fits(len(state), one.codes)
        ]
        paths = self._paths([(sentences[n], states[n][0]) for n in usable])
        for n, path in zip(usable, paths, strict=True):
            found[n] = torch.tensor(states[n][1])[path].tolist()
        return found

    def _states(self, text: str) -> tuple[list[int], list[int]]:
        """The states of a text, and the word that each belongs to: a pause, the letters of a word, a pause, …"""
        states, words = [_PAUSE], [_BETWEEN_WORDS]
        for number, word in enumerate(text.split()):
            letters = [self._index[letter] for letter in _letters(word) if letter in self._index]
            states += [*letters, _PAUSE]
            words += [*[number] * len(letters), _BETWEEN_WORDS]
        return states, words

    @property
    def _num_letters(self) -> int:
        return len(self._index) + 1

    def _labels(self, states: Sequence[int]) -> list[int]:
        """The rows of the emissions that states have: their own, or those with the state before."""
        if len(self._log_emissions) == self._num_letters:
            return list(states)
        return [before * self._num_letters + state for before, state in pairwise([_PAUSE, *states])]

    def _emissions(
        self, sentences: Sequence[tuple[SpokenCodes, list[int]]], paths: Sequence[Tensor], *, by_pairs: bool
    ) -> Tensor:
        """Log probabilities of the codes of each letter, ``[L, V]``, or of each pair of letters, ``[L * L, V]``."""
        num_letters = self._num_letters
        pairs_LLV = torch.zeros(num_letters * num_letters, self._codebook_size)
        for (one, states), path in zip(sentences, paths, strict=True):
            before = torch.tensor([_PAUSE, *states[:-1]])[path]
            cells = (before * num_letters + torch.tensor(states)[path]) * self._codebook_size + torch.tensor(one.codes)
            pairs_LLV.view(-1).index_add_(0, cells, torch.ones(len(cells)))
        letters_LV = pairs_LLV.view(num_letters, num_letters, -1).sum(dim=0)
        all_V = letters_LV.sum(dim=0) + _PRIOR_CODES
        of_letters_LV = _smoothed(letters_LV, all_V / all_V.sum(), _CODES_OF_LETTER)
        if not by_pairs:
            return of_letters_LV.log()
        return _smoothed(pairs_LLV, of_letters_LV.repeat(num_letters, 1), _CODES_OF_PAIR).log()

    def _paths(self, sentences: Sequence[tuple[SpokenCodes, list[int]]]) -> list[Tensor]:
        """The most likely state of each code, int64 ``[T]`` for each sentence."""
        paths: list[Tensor] = [torch.empty(0)] * len(sentences)
        by_length = sorted(range(len(sentences)), key=lambda n: len(sentences[n][0].codes))
        for start in range(0, len(by_length), _BATCH_SIZE):
            group = by_length[start : start + _BATCH_SIZE]
            found = self._paths_of_batch([sentences[n] for n in group])
            for n, path in zip(group, found, strict=True):
                paths[n] = path
        return paths

    def _paths_of_batch(self, sentences: Sequence[tuple[SpokenCodes, list[int]]]) -> list[Tensor]:
        labels_BK, num_states_B = _padded([self._labels(states) for _, states in sentences])
        codes_BT, num_codes_B = _padded([one.codes for one, _ in sentences])
        is_state_BK = torch.arange(labels_BK.shape[1]) < num_states_B[:, None]
        # What it costs to leave out all states up to one; what is not there can't be passed.
        costs_BK = torch.where(labels_BK % self._num_letters == _PAUSE, 0.0, _LEFT_OUT)
        passed_BK = costs_BK.masked_fill(~is_state_BK, _IMPOSSIBLE).cumsum(dim=1)

        def emitted(frame: int) -> Tensor:
            return self._log_emissions[labels_BK, codes_BT[:, frame, None]]

        best_BK = torch.full(labels_BK.shape, _IMPOSSIBLE)
        best_BK[:, :2] = 0.0  # in the pause in front, or in the first letter
        best_BK = best_BK + emitted(0)
        steps_TBK = torch.zeros((codes_BT.shape[1], *labels_BK.shape), dtype=torch.int8)
        for frame in range(1, codes_BT.shape[1]):
            reached_BK, steps_TBK[frame] = _reached(best_BK, passed_BK)
            best_BK = torch.where((frame < num_codes_B)[:, None], reached_BK + emitted(frame), best_BK)
        return _traced_back(best_BK, steps_TBK, num_states_B, num_codes_B)


def turns(sentence: SpokenCodes, word_of_code: Sequence[int]) -> list[tuple[str, list[int]]]:
    """A sentence as words and the codes that say them, in turns; joined, they are its text and all of its codes.

    A pause goes with the word before it, that in front with the first word. A word that no code says is written with
    the next that has some, or at the end with the one before.

    Args:
        sentence: text and codes.
        word_of_code: of `WordAligner.words`; numbers never fall but for pauses.
    """
    words = sentence.text.split()
    owner = min((word for word in word_of_code if word >= 0), default=0)
    owners = []
    for word in word_of_code:
        owner = max(owner, word)
        owners.append(owner)
    found: list[tuple[str, list[int]]] = []
    written = 0
    for word, group in groupby(range(len(owners)), key=owners.__getitem__):
        text = " ".join(words[written : word + 1])
        found.append((f" {text}" if found else text, [sentence.codes[n] for n in group]))
        written = word + 1
    if found and written < len(words):
        found[-1] = (" ".join([found[-1][0], *words[written:]]), found[-1][1])
    return found


def _letters(word: str) -> list[str]:
    """What is said of a word: nothing if it has no letter or digit, as in `audiollm.generation.turns.turns_of`."""
    letters = [character for character in word.lower() if character.isalnum() or character == "'"]
    return letters if any(letter != "'" for letter in letters) else []


def _fits(num_states: int, codes: Sequence[int]) -> bool:
    # From the first letter on; without codes there is no path at all.
    return 2 <= num_states < _MAX_STEP * len(codes)


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows of numbers, int64 ``[B, N]`` with zeros behind, and their lengths ``[B]``."""
    lengths = torch.tensor([len(row) for row in rows])
    padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], batch_first=True)
    return padded, lengths


def _smoothed(counts: Tensor, prior: Tensor, weight: float) -> Tensor:
    """Probabilities from counts in the last axis, with a prior that counts as much as ``weight`` codes."""
    return (counts + weight * prior) / (counts.sum(dim=-1, keepdim=True) + weight)


def _reached(best_BK: Tensor, passed_BK: Tensor) -> tuple[Tensor, Tensor]:
    """The best way into each state from itself or one of those before, and how many states it goes on; both ``[B, K]``.

    Args:
        best_BK: log probability of the best path that ends in each state.
        passed_BK: what leaving out all states up to each costs.
    """
    reached_BK, steps_BK = best_BK.clone(), torch.zeros(best_BK.shape, dtype=torch.int8)
    for step in range(1, _MAX_STEP + 1):
        arrived_BK = torch.full_like(best_BK, _IMPOSSIBLE)
        left_out = passed_BK[:, step - 1 : -1] - passed_BK[:, :-step] if step > 1 else 0.0
        arrived_BK[:, step:] = best_BK[:, :-step] + left_out
        is_better_BK = arrived_BK > reached_BK
        reached_BK = torch.where(is_better_BK, arrived_BK, reached_BK)
        steps_BK[is_better_BK] = step
    return reached_BK, steps_BK


def _traced_back(best_BK: Tensor, steps_TBK: Tensor, num_states_B: Tensor, num_codes_B: Tensor) -> list[Tensor]:
    """The paths that end in the last letter or the pause behind it, whichever is likelier."""
    ends_B2 = torch.stack([num_states_B - 1, num_states_B - 2], dim=1)
    state_B = ends_B2.gather(1, best_BK.gather(1, ends_B2).argmax(dim=1, keepdim=True))[:, 0]
    path_BT = torch.zeros(len(state_B), len(steps_TBK), dtype=torch.long)
    for frame in range(len(steps_TBK) - 1, -1, -1):
        path_BT[:, frame] = state_B
        step_B = steps_TBK[frame].gather(1, state_B[:, None])[:, 0].long()
        state_B = torch.where(frame < num_codes_B, state_B - step_B, state_B)
    return [path[:length] for path, length in zip(path_BT, num_codes_B.tolist(), strict=True)]
