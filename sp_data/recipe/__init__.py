"""The recipe: all settings of a run, in one typed model.

Each stage reads one part of it (`recipe.curate`, ...). The fields of that part name the stage's result, except for
those marked EXECUTION_ONLY, which change how the work is done but not the result.

part.py        the base of every part: frozen, strict, with identity fields
source.py      where pictures come from
dataset.py     curate, shard, embed, reorder, verify, machines
training.py    prior, decoder and its unets, judge
follow_up.py   what follows on a Prefect server when the dataset changed
recipe.py      the whole recipe
named.py       the stock recipes `southpark` and `demo`
load.py        a name or a YAML file -> a recipe, with `a.b=c` overrides
"""

from sp_data.recipe.dataset import Curate, Embed, Machines, Reorder, Shard, Verify
from sp_data.recipe.follow_up import FollowUp
from sp_data.recipe.load import build, load_recipe
from sp_data.recipe.named import NAMED, demo, southpark, southpark_scratch
from sp_data.recipe.part import EXECUTION_ONLY, RecipePart
from sp_data.recipe.recipe import Recipe
from sp_data.recipe.source import DemoWiki, Imported, Source
from sp_data.recipe.training import Decoder, Judge, Prior, Training, Unet

__all__ = [
    "EXECUTION_ONLY",
    "NAMED",
    "Curate",
    "Decoder",
    "DemoWiki",
    "Embed",
    "FollowUp",
    "Imported",
    "Judge",
    "Machines",
    "Prior",
    "Recipe",
    "RecipePart",
    "Reorder",
    "Shard",
    "Source",
    "Training",
    "Unet",
    "Verify",
    "build",
    "demo",
    "load_recipe",
    "southpark",
    "southpark_scratch",
]
