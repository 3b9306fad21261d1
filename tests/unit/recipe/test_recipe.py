"""The recipe: a wrong field is named, and a setting of the execution alone changes no identity."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sp_data import recipe as recipes
from sp_data.errors import RecipeError
from sp_data.recipe import Recipe, Unet, build, load_recipe


def test_the_named_recipes_are_valid() -> None:
    assert recipes.demo().source.is_loopback
    assert recipes.southpark().source.wiki == "https://southpark.fandom.com"
    assert recipes.southpark().embed.dim == 768


def test_fields_are_overridden_by_path() -> None:
    changed = load_recipe("demo", ["curate.min_side_px=32", "source.demo.num_kids=100", "embed.clip_model=ViT-B/32"])
    assert (changed.curate.min_side_px, changed.embed.clip_model) == (32, "ViT-B/32")
    assert changed.source.demo is not None
    assert changed.source.demo.num_kids == 100
    assert load_recipe("demo") == recipes.demo(), "an override must not reach the named recipe"


def test_a_yaml_file_is_a_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(recipes.demo().model_dump(mode="json")))
    assert load_recipe(str(file)) == recipes.demo()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("curate.min_side=3", r"no field 'curate\.min_side'; did you mean 'min_side_px'"),
        ("curate.min_side_px=-3", r"curate\.min_side_px: .*greater than or equal to 1 \(got -3\)"),
        ("curate.min_side_px=big", r"curate\.min_side_px: .*integer"),
        ("source.demo.kids=3", r"no field 'source\.demo\.kids'; did you mean 'num_kids'"),
        ("name=../up", r"name: "),
        ("source.wiki=fandom", r"source\.wiki: expected an address"),
        ("name.x=1", r"`name` is a single value"),
        ("curate", r"expected a\.b=value"),
        ("curate.min_side_px=[1", r"not YAML"),
        ("source.select=categories", r"`categories` must name at least one"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_expected(setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("demo", [setting])


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "\xff"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(RecipeError, match=r"mine\.yaml"):
        load_recipe(str(file))


def test_a_missing_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(str(tmp_path / "none.yaml"))
    with pytest.raises(RecipeError, match=r"expected southpark, southpark_scratch, demo or a \.yaml file"):
        load_recipe("simpsons")


def test_execution_settings_are_left_out_of_the_identity() -> None:
    demo = recipes.demo()
    slower = load_recipe("demo", ["source.requests_per_second=1", "curate.threads=1", "shard.processes=1"])
    assert slower != demo
    assert slower.source.identity_fields() == demo.source.identity_fields()
    assert slower.curate.identity_fields() == demo.curate.identity_fields()
    assert slower.shard.identity_fields() == demo.shard.identity_fields()
    assert load_recipe("demo", ["curate.min_side_px=1"]).curate.identity_fields() != demo.curate.identity_fields()


def test_every_field_is_part_of_the_identity_or_marked() -> None:
    """A new field is part of the identity unless it is marked as a setting of the execution."""
    for name, part in Recipe.model_fields.items():
        if name != "name" and part.annotation is not None:
            settings = getattr(recipes.demo(), name)
            if name == "source":
                # Left out where it is not set: datasets from before there was such a field keep their identities.
                assert "encoding" not in settings.identity_fields()
                settings = settings.model_copy(update={"encoding": "cp1252"})
            marked = {
                field
                for field, info in type(settings).model_fields.items()
                if info.json_schema_extra == recipes.EXECUTION_ONLY
            }
            fields = type(settings).model_fields.keys() - marked
            if name == "decoder":
                # Those of each unet: its own, the decoder's, and what follows from its place in the cascade.
                own = {field for field, info in Unet.model_fields.items() if info.json_schema_extra is None}
                fields = (fields | own | {"beta_schedule", "lowres_size_px"}) - {"unets"}
                assert all(unet.keys() == fields for unet in settings.identity_fields()["unets"])
            else:
                assert settings.identity_fields().keys() == fields


def test_a_wiki_elsewhere_wants_a_contact_and_an_acknowledgement() -> None:
    southpark = recipes.southpark().source
    with pytest.raises(RecipeError, match=r"source\.contact"):
        southpark.check_politeness()
    with pytest.raises(RecipeError, match="acknowledge_terms"):
        southpark.model_copy(update={"contact": "me@example.org"}).check_politeness()
    southpark.model_copy(update={"contact": "me@example.org", "acknowledge_terms": True}).check_politeness()
    recipes.demo().source.check_politeness()


@pytest.mark.parametrize(
    ("wiki", "loopback"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://localhost", True),
        ("http://paper-kids.localhost", True),
        ("http://[::1]:80", True),
        ("https://127.0.0.1.example.org", False),
        ("https://localhost.example.org", False),
    ],
)
def test_only_this_machine_is_loopback(wiki: str, loopback: bool) -> None:
    fields = {"name": "x", "source": {"wiki": wiki}}
    assert build(fields, "test").source.is_loopback is loopback


def test_a_wiki_elsewhere_cannot_be_scraped_without_a_pause() -> None:
    with pytest.raises(RecipeError, match="only for a wiki on this machine"):
        load_recipe("southpark", ["source.requests_per_second=0"])
