"""Under which keys the Prefect UI shows what belongs to a dataset."""

from __future__ import annotations

import pytest
from prefect.client.schemas.actions import ArtifactCreate

from tasks.stage import artifact_key


@pytest.mark.parametrize("dataset", ["southpark", "littlewiki", "demo", "my-wiki-2"])
def test_a_plain_name_is_its_own_key(dataset: str) -> None:
    assert artifact_key(dataset, "embed") == f"{dataset}-embed"


def test_datasets_whose_names_differ_in_signs_alone_have_different_keys() -> None:
    names = ("my-wiki", "my.wiki", "My_wiki", "my wiki", "my--wiki", "-my-wiki", "my-wiki-", "Вики", "викИ", "_")
    keys = [artifact_key(name, "before-after") for name in names]
    assert len(set(keys)) == len(names)
    for key in keys:
        assert ArtifactCreate(key=key).key == key, "Prefect refuses it"
        assert key.endswith("-before-after")
    assert keys[2].startswith("my-wiki-")
