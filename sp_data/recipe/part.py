"""A part of the recipe: the fields that one stage reads, and which of them name its result."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

EXECUTION_ONLY: dict[str, JsonValue] = {"sp_data": "how"}
"""Marks a field that changes how the work is done, not the result: it is left out of every identity."""


class RecipePart(BaseModel):
    # Inputs are hidden in errors: an address may hold a password.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def identity_fields(self) -> dict[str, Any]:
        """The fields that name a result, as plain JSON values."""
        fields = type(self).model_fields
        kept = {
            name: getattr(self, name) for name, field in fields.items() if field.json_schema_extra is not EXECUTION_ONLY
        }
        inner = {name: value.identity_fields() for name, value in kept.items() if isinstance(value, RecipePart)}
        return self.model_dump(mode="json", include=kept.keys() - inner.keys()) | inner
