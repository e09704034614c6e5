"""What the words of a prompt ask for: a scene, a style, colours for the subject."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Colour = tuple[float, float, float]
"""sRGB, each 0..1."""


def _hex(text: str) -> Colour:
    value = int(text, 16)
    return ((value >> 16 & 255) / 255, (value >> 8 & 255) / 255, (value & 255) / 255)


def _row(text: str) -> tuple[Colour, ...]:
    return tuple(_hex(word) for word in text.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A background: sky from top to horizon, land from far to near, and what else is there."""

    name: str
    words: frozenset[str]
    sky: tuple[Colour, ...]
    land: tuple[Colour, ...]
    accents: tuple[Colour, ...]
    ink: Colour
    features: frozenset[str] = frozenset()
    rough: float = 0.45
    dark: bool = False


def _scene(
    name: str,
    words: str,
    sky: str,
    land: str,
    accents: str,
    ink: str,
    features: str = "",
    rough: float = 0.45,
    dark: bool = False,
) -> Scene:
    return Scene(
        name=name,
        words=frozenset(words.split()),
        sky=_row(sky),
        land=_row(land),
        accents=_row(accents),
        ink=_hex(ink),
        features=frozenset(features.split()),
        rough=rough,
        dark=dark,
    )


SCENES: tuple[Scene, ...] = (
    _scene(
        "meadow",
        "meadow field grass farm garden spring summer house cottage tree flower flowers dog",
        "6fa8d6 a9cfe6 e9efe2 fbeec9",
        "a9c3b4 8fb48a 7aa35c 6d9440",
        "c8553d e9a23b 3f7d8c d98f9a 6b8f4e",
        "2b2a3d",
        "sun clouds specks",
    ),
    _scene(
        "sunset",
        "sunset sunrise dusk dawn evening golden glow",
        "5b5a97 a7739f e58a79 f7b267 fbdc92",
        "9a7397 7d5680 5c4169 453556",
        "d8574a f2a65a 8e4162 5b6cae f4d58d",
        "2d1f3d",
        "sun clouds",
    ),
    _scene(
        "forest",
        "forest wood woods jungle pine trees moss fox bear deer",
        "a9c8c0 c9dccb e8ecd2 f4efd0",
        "a7c2b3 7da58f 4f7f68 2f5c4a",
        "c9743a d9a441 88a05a a44a3f 55788c",
        "1f2d2a",
        "pines mist",
    ),
    _scene(
        "ocean",
        "ocean sea beach wave waves water boat ship sail fish whale island lake river",
        "79b8d9 a8d5e2 dcedea fbefd3",
        "7fb9c4 4f9db0 2f7f9b 23617f",
        "e4674f f3b95f fff1d6 3a6ea5 8ac6b0",
        "17324a",
        "sun clouds waves gulls",
    ),
    _scene(
        "night",
        "night moon moonlight midnight stars starry owl dream",
        "1c2350 2b3a75 47589a 7d86b5",
        "47507f 343d6b 262d54 191e3d",
        "f0c987 d98c7a 7fa0d6 b58cc4 8fc1b5",
        "0e1128",
        "moon stars",
        dark=True,
    ),
    _scene(
        "desert",
        "desert dune dunes sand cactus camel canyon mesa",
        "6fb3c0 b5d6cb f3dcb3 f6c493",
        "dfb088 d3935f bd7446 96553a",
        "b5472f e8a94b 2f7f7b 7c4a6b 93a15c",
        "3a211c",
        "sun mesas",
        rough=0.3,
    ),
    _scene(
        "mountain",
        "mountain mountains alps andes snow snowy winter ice peak hill hills llama alpaca",
        "7ba3cf abc8df dde6e6 f6ead3",
        "b3c2d6 8fa6c1 7d9a8e 6f8f55",
        "c4513f e3a53f 2f7a88 a34b78 4d6fa8",
        "232a44",
        "sun clouds peaks",
        rough=0.62,
    ),
    _scene(
        "space",
        "space rocket galaxy planet astronaut cosmos cosmic nebula ufo alien spaceship universe",
        "161433 2a1f58 57307c 9a4c8f",
        "3b2d66 2c2352 20193f 161230",
        "e4572e f3c04b 4fb0c6 d95d8a 7f8ce0",
        "0b0a1e",
        "stars planet nebula",
        dark=True,
    ),
    _scene(
        "city",
        "city town street skyline urban building buildings car tokyo paris",
        "8fa9c9 c3c6d3 ecd6c8 f6d9b0",
        "b2b0c4 9290ad 736f90 585575",
        "d2603f efb04d 3e7c93 9c4f6f 6f8f6a",
        "25233a",
        "sun skyline clouds",
    ),
    _scene(
        "autumn",
        "autumn fall harvest pumpkin leaves october",
        "9db4c0 d3d5c5 f3e0bb f7cf96",
        "d7ab6c c98343 a95e34 7c4530",
        "b3412c e2952f 7d8a3c 7a3b4a f0c75e",
        "32201c",
        "sun specks clouds",
    ),
    _scene(
        "blossom",
        "blossom cherry sakura pink rose love unicorn fairy magic candy cute cat kitten bunny rabbit",
        "9fb8dc cfc9e4 f3d6de fbe9da",
        "dcb9cc c79db8 9fb28f 84a072",
        "d9647c f0a58f 6a86c4 f5d38a 8f6aa8",
        "33243f",
        "sun specks clouds",
    ),
)


_SUBJECTS: Mapping[str, str] = {
    "llama alpaca sheep lamb goat": "efdfc2 c98a5a c4473a 2f8a8a e2a43c a3467a",
    "cat kitten tiger fox lion": "e69a4c f5ddba d96f5a 6b8f6a f0c25f 7f6aa0",
    "dog puppy bear horse deer monkey": "b8834f ead2ab c4513f 5f86a8 e0b357 7d5a44",
    "house cottage home castle church barn": "f0dfbd c4563a 6f9fb8 8a5f45 e8b04a 7a9a5a",
    "rocket spaceship robot": "f0ece4 d9482f 4f9fc6 f2b63f 8f95ad e7744a",
    "mountain mountains peak hill volcano": "8ea6c6 6f8fb5 a9b8cf 7d9a80 c79a80 5f7a9c",
    "tree forest plant leaf cactus": "7fa650 8a5f3f 5c8a55 c9a83f b0603f 9fbf6f",
    "fish whale bird owl dragon": "3f8fb0 f0a04b e4674f f5dca0 6fb59a 7a5fa0",
    "flower rose tulip heart": "e0607f f3b0a5 6f9f55 f0c75f a05fa5 e8875a",
    "boat ship sail": "f6ecd6 c8503c 8a5a3c 3f7fa5 f0b95a 6f8fa0",
    "car truck bus train": "d8523f f3e6cc 4f7fa5 f0b64a 55586f 8fae9a",
    "person girl boy woman man face portrait": "f0c3a0 8a4f3f 5f86b0 d9685a f0d08a 6f9a85",
    "star sun moon": "f5c84a f09a4f e8705f fbe6a0 8f86c4 6fa8c4",
}

_COLOURS: Mapping[str, str] = dict(
    entry.split("=")
    for entry in (
        "red=d2433a crimson=b5273c coral=f07f66 peach=f6b896 orange=ec8a35 golden=e3ac3c gold=e3ac3c yellow=f3c93f "
        "green=6fa352 emerald=2f9a72 mint=a3d9bd teal=2f8f92 turquoise=3fb5b0 "
        "blue=4a80c4 navy=2f4880 purple=8559b0 violet=8a63c4 lavender=b3a0d8 magenta=c83f8f pink=ea8aa8 "
        "brown=8f5f3d cream=f0e2c4 white=f3eee4 silver=b9bec9 grey=9a9aa5 gray=9a9aa5 black=45424f "
    ).split()
)

_STYLE_WORDS: Mapping[str, str] = {
    "neon": "neon cyberpunk synthwave vaporwave glowing",
    "ink": "ink sumi calligraphy monochrome charcoal",
    "pastel": "pastel chalk crayon soft",
}
_STYLES = {word: style for style, words in _STYLE_WORDS.items() for word in words.split()}


@dataclass(frozen=True, slots=True)
class Intent:
    """What to paint and how."""

    scene: Scene
    style: str
    subject: tuple[Colour, ...]
    strength: float
    kind: frozenset[str] = frozenset()
    """The words for the subject that was recognised, all synonyms."""

    @property
    def creature(self) -> bool:
        """Whether it has a coat: its large parts share a colour."""
        return bool(self.kind & {"llama", "cat", "dog", "fish"})


def read_prompt(prompt: str, seed: int) -> Intent:
    """Understand a prompt; words it does not know change nothing."""
    text, strength = _split_strength(prompt.lower())
    words = re.findall(r"[a-z]+", text)
    scene = _scene_for(words)
    style = next((_STYLES[word] for word in words if word in _STYLES), "watercolor")
    kind: frozenset[str] = frozenset()
    colours = list(scene.accents[seed % 3 :] + scene.accents[: seed % 3])
    for names, row in _SUBJECTS.items():
        if any(word.rstrip("s") in names.split() or word in names.split() for word in words):
            colours, kind = list(_row(row)), frozenset(names.split())
            break
    named = [_hex(_COLOURS[word]) for word in words if word in _COLOURS and word != "golden"]
    return Intent(scene, style, (*named, *colours), strength, kind)


def _scene_for(words: Sequence[str]) -> Scene:
    """The scene with the most telling words: a place beats a thing that is at home there."""
    best, best_score = SCENES[0], 0
    for scene in SCENES:
        places = scene.words & _PLACES
        # The hour of the day changes every place, so it outweighs one.
        weight = 5 if scene.name in {"night", "sunset"} else 3
        score = sum(weight if word in places else 1 for word in set(words) if word in scene.words)
        if score > best_score:
            best, best_score = scene, score
    return best


_PLACES = frozenset(
    "meadow field garden spring summer sunset sunrise dusk dawn evening forest woods jungle ocean sea beach lake "
    "river night midnight starry moonlight desert dunes canyon mountain mountains alps andes snow snowy winter "
    "space galaxy cosmic nebula city street skyline town tokyo paris autumn harvest blossom cherry sakura".split()
)


def _split_strength(prompt: str) -> tuple[str, float]:
    """The graph ends a prompt with how closely to follow the sketch; 0.7 where it does not."""
    for phrase, strength in STRENGTH_PHRASES:
        if phrase in prompt:
            return prompt.replace(phrase, " "), strength
    return prompt, 0.7


STRENGTH_PHRASES = (
    ("use the sketch only as loose inspiration", 0.1),
    ("follow the sketch loosely", 0.3),
    ("follow the composition of the sketch", 0.5),
    ("follow the lines of the sketch closely", 0.75),
    ("keep every line of the sketch exactly", 1.0),
)
