"""What tasks and flows return: small enough for a Prefect result, and enough to find everything else in the lake."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class StageReference(BaseModel):
    """One stage of one run; the manifest of `identity` in the lake has the rest."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    name: str
    state: Literal["done", "unchanged"]
    in_: int = Field(alias="in")
    out: int
    dropped: int
    seconds: float
    identity: str
    digest: str


class PipelineReference(BaseModel):
    """The stages of a flow run, in the order in which they ran."""

    model_config = ConfigDict(frozen=True)

    stages: tuple[StageReference, ...]
    report: str
    """Path of the report in the lake."""


class BeforeAfterReference(BaseModel):
    """What was drawn after a fine-tuning."""

    model_config = ConfigDict(frozen=True)

    page: str
    """Path of the page in the lake."""
    pictures: tuple[str, ...]
    """Paths of the PNGs."""
    has_before: bool
    """Whether the checkpoints of an earlier fine-tuning were there to compare with."""
