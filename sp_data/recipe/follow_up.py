"""What follows on a Prefect server when a scheduled run finds that the dataset changed."""

from __future__ import annotations

from pydantic import Field, field_validator

from sp_data.recipe.part import EXECUTION_ONLY, RecipePart


class FollowUp(RecipePart):
    """Fine-tuning by itself, and the pictures after it. Nothing here names a result.

    Pictures that came and pictures that went since the last fine-tuning count alike.
    """

    finetune: bool = Field(
        True,
        description="Fine-tune when the dataset changed; false: only when someone starts it",
        json_schema_extra=EXECUTION_ONLY,
    )
    after_changes: int = Field(
        1, ge=1, description="Wait until so many pictures came or went", json_schema_extra=EXECUTION_ONLY
    )
    after_days: int = Field(
        0,
        ge=0,
        description="Do not wait for `after_changes` once the last fine-tuning is so many days old; 0: wait",
        json_schema_extra=EXECUTION_ONLY,
    )
    ask_first: bool = Field(
        False,
        description="Wait for someone to approve what is new and gone, in the Prefect UI",
        json_schema_extra=EXECUTION_ONLY,
    )
    ask_days: float = Field(
        7, gt=0, le=365, description="How long to wait for the approval", json_schema_extra=EXECUTION_ONLY
    )
    prompts: tuple[str, ...] = Field(
        (),
        description="What is drawn before and after each fine-tuning; empty: captions of the test split",
        json_schema_extra=EXECUTION_ONLY,
    )
    num_pictures: int = Field(2, ge=1, le=16, description="Pictures of each prompt", json_schema_extra=EXECUTION_ONLY)
    seed: int = Field(0, ge=0, description="Seed of the first picture of each prompt", json_schema_extra=EXECUTION_ONLY)

    @field_validator("prompts")
    @classmethod
    def _are_words(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        if any(not prompt.strip() for prompt in prompts):
            raise ValueError("a prompt is empty")
        return tuple(dict.fromkeys(prompts))
