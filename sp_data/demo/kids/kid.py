"""Who the paper-cutout kids are: names, attributes, and where each kid stands in the picture.

    Kid(number=0, name='Ada Birch', coat='red', hat='blue', hat_kind='bobble hat', hair='blond', skin='light',
        place='bus stop', x=0.52, scale=0.84, gaze=-0.3, mouth='smile')

Attributes are drawn independently and uniformly, except for eight pairs of coat and hat that no picture ever shows:
with these the demo measures whether a model combines colours that it never saw together, beyond plain memory.
"""

import random
from dataclasses import dataclass

RGB = tuple[int, int, int]

# At least 90 apart in RGB, and 75 from every other colour that the artist uses, so that coat and hat can be measured
# from pixels. No name starts with a vowel: captions say 'a {coat} coat'.
COLOURS: dict[str, RGB] = {
    "red": (206, 32, 44),
    "yellow": (250, 208, 24),
    "lime": (160, 222, 52),
    "green": (24, 118, 56),
    "teal": (22, 166, 172),
    "blue": (36, 74, 196),
    "purple": (126, 46, 158),
    "pink": (246, 112, 182),
}
HAT_KINDS = ("beanie", "bobble hat", "cap", "top hat")
HAIR: dict[str, RGB] = {
    "blond": (224, 190, 96),
    "brown": (98, 62, 38),
    "black": (40, 36, 40),
    "ginger": (186, 106, 38),
}
SKIN: dict[str, RGB] = {
    "light": (248, 220, 192),
    "tan": (208, 156, 118),
    "brown": (156, 106, 74),
    "dark": (108, 74, 56),
}
PLACES = ("bus stop", "lake", "school", "hill")
MOUTHS = ("smile", "grin", "flat", "gasp")

# (coat, hat) pairs that are never drawn. Each colour is once a coat and once a hat, so no colour is rarer than another.
HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    {
        ("red", "teal"),
        ("yellow", "purple"),
        ("lime", "pink"),
        ("green", "yellow"),
        ("teal", "red"),
        ("blue", "lime"),
        ("purple", "green"),
        ("pink", "blue"),
    }
)
PAIRS = tuple((coat, hat) for coat in COLOURS for hat in COLOURS if (coat, hat) not in HELD_OUT)

# No name contains a word that captions use for a colour, a hat, a hair colour or a place. A few are not ASCII, and one
# has an apostrophe, as real titles do.
FIRST_NAMES = """
Ada Alma Anton Arlo Asa Bea Benno Bertil Bruno Carla Casper Celia Clara Conrad Cora Dag Della Dora Edith Egon
Eli Ella Elsa Emil Enid Erik Esme Ezra Fay Felix Finn Flora Frida Fritz Gilda Greta Gus Hanna Hedda Henk Hugo Ida
Igor Ilse Ines Ingrid Iris Ivo Jens Jonas Jory Juno Kaja Karl Kit Lars Leif Lena Lev Liv Lotte Ludo Mabel Magnus
Maja Malte Mika Milo Mona Nell Nico Nils Noor Noël Odd Oona Otis Otto Pia Pim Quinn Rasmus Rhea Rolf Runa Sif Stig
Sunniva Sven Tess Thea Tilda Timo Tove Ulf Una Vera Viggo Wanda Wim Ylva Zoë
"""
LAST_NAMES = """
Alder Arbor Ash Barley Beck Birch Borg Bramble Brandt Briar Burdock Calder Cedar Clover Comfrey Crane Crisp
Dahl Dale Dove Drummer Elm Ember Fennel Fern Fiddler Finch Flint Frost Gable Garland Gorse Grebe Grove Hale Harrow
Hart Hawk Heath Hedge Heron Holm Ives Jarvis Juniper Kettle Kite Lark Larch Linden Lund Martin Mason Meadow
Moss Nettle Nilsen Nord O'Dell Oakley Osier Otter Pebble Pike Pine Plover Quill Quist Rask Reed Rook Rowan Rush
Rye Sedge Shingle Sloe Snipe Sorrel Stone Strand Swift Tarn Teasel Thistle Thorne Tuck Vale Vetch Wade Weaver
Willow Winter Wren Yarrow York Ødegård Østby
"""


@dataclass(frozen=True, slots=True)
class Kid:
    """One kid in one picture. `x` (of the feet's middle) and `scale` (height with the tallest hat) are fractions."""

    number: int
    name: str
    coat: str
    hat: str
    hat_kind: str
    hair: str
    skin: str
    place: str
    x: float
    scale: float
    gaze: float  # -1 looks left, 1 looks right
    mouth: str

    def __post_init__(self) -> None:
        """Raises ValueError for a held-out pair: any picture that shows one must come from the model."""
        if (self.coat, self.hat) in HELD_OUT:
            raise ValueError(f"a {self.coat} coat with a {self.hat} hat is held out and never drawn")


def kids(n: int, seed: int) -> list[Kid]:
    """The first `n` kids of `seed`; kid i depends on `seed` and i only. Names are unique for any `n`."""
    return [_kid(number, seed) for number in range(n)]


def caption(kid: Kid) -> str:
    """What the picture shows, in the words that the demo's CLIP learnt; without the name, which tells no looks."""
    return f"a kid in a {kid.coat} coat and a {kid.hat} {kid.hat_kind} at the {kid.place}"


def _kid(number: int, seed: int) -> Kid:
    # A string is hashed by SHA-512 into the seed: equal on every machine, and unrelated for neighbouring numbers.
    dice = random.Random(f"kid {seed} {number}")
    coat, hat = dice.choice(PAIRS)
    return Kid(
        number=number,
        name=_name(number, seed),
        coat=coat,
        hat=hat,
        hat_kind=dice.choice(HAT_KINDS),
        hair=dice.choice(tuple(HAIR)),
        skin=dice.choice(tuple(SKIN)),
        place=dice.choice(PLACES),
        x=round(dice.uniform(0.42, 0.58), 3),
        scale=round(dice.uniform(0.78, 0.88), 3),
        gaze=round(dice.uniform(-1, 1), 2),
        mouth=dice.choice(MOUTHS),
    )


def _name(number: int, seed: int) -> str:
    """Uses all pairs of a first and a last name, in a scattered order, before it adds a numeral."""
    first_names, last_names = FIRST_NAMES.split(), LAST_NAMES.split()
    num_names = len(first_names) * len(last_names)
    generation, position = divmod(number, num_names)
    # 3,607 is prime and divides no list's length, so every position is visited once a generation.
    first, last = divmod((position * 3607 + seed * 1009) % num_names, len(last_names))
    name = f"{first_names[first]} {last_names[last]}"
    return name if generation == 0 else f"{name} {generation + 1}"
