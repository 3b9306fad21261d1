"""A part of the recipe: the fields that one stage reads, and which of them name its result."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

HOW: dict[str, JsonValue] = {"sp_data": "how"}
"""Marks a field that says how to work, not what to make: it is left out of every identity."""


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def what(self) -> dict[str, Any]:
        """The fields that name a result, as plain JSON values."""
        fields = type(self).model_fields
        kept = {name: getattr(self, name) for name, field in fields.items() if field.json_schema_extra is not HOW}
        inner = {name: value.what() for name, value in kept.items() if isinstance(value, Part)}
        return self.model_dump(mode="json", include=kept.keys() - inner.keys()) | inner
