"""Captions for the demo's CLIP to learn from: descriptions of a kid in several wordings, with random parts left out.

A phrase has the facts that it states, so that training can tell captions that are true of a picture from those that are
not:

    Phrase("Ada Birch, a kid in a red coat at the lake", facts={"coat red", "place lake"})
"""

import random
from dataclasses import dataclass

from sp_data.demo.kids.kid import COLOURS, HAIR, HAT_KINDS, PLACES, SKIN, Kid, caption

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "coat": tuple(COLOURS),
    "hat": tuple(COLOURS),
    "hat_kind": HAT_KINDS,
    "hair": tuple(HAIR),
    "skin": tuple(SKIN),
    "place": PLACES,
}
FACTS = tuple(f"{attribute} {value}" for attribute, values in ATTRIBUTES.items() for value in values)
KIDS = ("a kid", "the kid", "kid", "a paper kid", "a drawing of a kid", "a picture of a kid")
# Every word that has a meaning; the model reads all others as one unknown word.
WORDS = (
    "a an the and at in on of with is who wears wearing has coat hat hair skin beanie bobble cap top kid paper drawing"
    " picture portrait stop bus lake school hill by near , . " + " ".join([*COLOURS, *HAIR, *SKIN])
)


@dataclass(frozen=True, slots=True)
class Phrase:
    """A caption and the FACTS that it states."""

    text: str
    facts: frozenset[str]


def facts_of(kid: Kid) -> frozenset[str]:
    """All FACTS that are true of `kid`."""
    return frozenset(fact for fact in FACTS if getattr(kid, fact.split()[0]) == fact.split(maxsplit=1)[1])


def full_phrase(kid: Kid, name: bool) -> Phrase:
    """The caption that the demo trains on, with the kid's name in front if `name`."""
    facts = {f"coat {kid.coat}", f"hat {kid.hat}", f"hat_kind {kid.hat_kind}", f"place {kid.place}"}
    return Phrase(f"{kid.name}, {caption(kid)}" if name else caption(kid), frozenset(facts))


def random_phrase(kid: Kid, dice: random.Random) -> Phrase:
    """Some facts of `kid`, at least one, in one of many wordings."""
    facts: set[str] = set()
    worn: list[str] = []
    if dice.random() < 0.55:
        worn.append(f"a {kid.coat} coat")
        facts.add(f"coat {kid.coat}")
    if dice.random() < 0.55:
        style = dice.choice(("hat", kid.hat_kind, "kind alone"))
        if style != "hat":
            facts.add(f"hat_kind {kid.hat_kind}")
        if style != "kind alone":
            facts.add(f"hat {kid.hat}")
        # 'a top hat' states no colour, and 'a red hat' states no kind: "hat" alone means any kind.
        worn.append(f"a {kid.hat_kind}" if style == "kind alone" else f"a {kid.hat} {style}")
    looks: list[str] = []
    if dice.random() < 0.35:
        looks.append(f"{kid.hair} hair")
        facts.add(f"hair {kid.hair}")
    if dice.random() < 0.2:
        looks.append(f"{kid.skin} skin")
        facts.add(f"skin {kid.skin}")
    place = ""
    if dice.random() < 0.4 or not facts:
        place = f" {dice.choice(('at', 'at', 'by', 'near'))} the {kid.place}"
        facts.add(f"place {kid.place}")
    if dice.random() < 0.2:
        worn.reverse()
    if dice.random() < 0.1:  # as people type into a search box
        return Phrase(
            ", ".join([*(item.removeprefix("a ") for item in worn), *looks, *place.split("the ")[1:]]), frozenset(facts)
        )
    return Phrase(_subject(kid, dice) + _clothes(worn, looks, dice) + place, frozenset(facts))


def _subject(kid: Kid, dice: random.Random) -> str:
    subject = dice.choice((KIDS[0], KIDS[0], *KIDS))
    return dice.choice((subject, subject, subject, f"{kid.name}, {subject}", f"{kid.name} is {subject}", kid.name))


def _clothes(worn: list[str], looks: list[str], dice: random.Random) -> str:
    text = ""
    if looks:
        text += f" {dice.choice(('with', 'who has'))} {' and '.join(looks)}"
    if worn:
        text += f" {dice.choice(('in', 'in', 'with', 'wearing', 'who wears'))} {' and '.join(worn)}"
    return text
