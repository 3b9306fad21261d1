"""dalle2-laion's configuration of a set of models (its `ModelLoadConfig`), field by field.

{"decoder": {"unet_sources": [
    {"unet_numbers": [1], "default_cond_scale": [1.7],
     "load_model_from": {"load_type": "url", "path": "https://huggingface.co/laion/DALLE2-PyTorch/resolve/main/…"}},
    {"unet_numbers": [2],
     "load_model_from": {"load_type": "local", "path": "runs/decoder-unet2-…/checkpoints/step-00008000"}}]},
 "prior": {"load_model_from": {"load_type": "local", "path": "prior.pth", "version": "1.0.2"},
           "load_config_from": {"load_type": "local", "path": "prior_config.json"}},
 "clip": {"make": "openai", "model": "ViT-L/14"}, "devices": "cuda:0", "strict_loading": false}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sp_data.canonical import parse_json
from sp_data.errors import UsageError


class _Part(BaseModel):
    # `model_…` are names of theirs.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


class File(_Part):
    load_type: Literal["local", "url"]
    path: str = Field(min_length=1)
    checksum_file_path: str | None = None
    cache_dir: str | None = None
    filename_override: str | None = None
    version: str | None = None
    """Of dalle2-pytorch, that saved it, for a file that does not say so: our own addition, which theirs ignores."""


class PriorSource(_Part):
    default_sample_timesteps: int | None = None
    default_cond_scale: float | None = None
    load_model_from: File
    load_config_from: File | None = None


class UnetSource(_Part):
    unet_numbers: list[int] = Field(min_length=1)
    default_sample_timesteps: list[int] | None = None
    default_cond_scale: list[float] | None = None
    load_model_from: File
    load_config_from: File | None = None

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        for name in ("default_sample_timesteps", "default_cond_scale"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.unet_numbers):
                raise ValueError(f"{name} {values}: expected one for each of unet_numbers {self.unet_numbers}")
        return self


class DecoderSources(_Part):
    unet_sources: list[UnetSource] = Field(min_length=1)

    @model_validator(mode="after")
    def _numbers(self) -> Self:
        numbers = [number for source in self.unet_sources for number in source.unet_numbers]
        if twice := sorted({number for number in numbers if numbers.count(number) > 1}):
            raise ValueError(f"unet {twice[0]} is in two unet_sources")
        return self


class ClipSource(_Part):
    make: str = "openai"
    model: str = "ViT-L/14"
    base_model_kwargs: dict[str, Any] | None = None


class Configuration(_Part):
    decoder: DecoderSources | None = None
    prior: PriorSource | None = None
    clip: ClipSource | None = None
    devices: list[str] | str | None = None
    load_on_cpu: bool | None = None
    strict_loading: bool = True

    @property
    def unet_sources(self) -> Iterator[tuple[str, UnetSource]]:
        """Each with its place in the file."""
        for index, source in enumerate(self.decoder.unet_sources if self.decoder else ()):
            yield f"decoder.unet_sources.{index}", source

    @property
    def unused(self) -> Iterator[str]:
        """What of the fields, files aside, is not followed."""
        if self.devices is not None:
            yield "devices (--device says where)"
        if self.load_on_cpu is not None:
            yield "load_on_cpu (the files are mapped into memory)"
        if not self.strict_loading:
            yield "strict_loading: false (weights must fit exactly, or they draw noise)"
        if self.prior is not None and self.prior.default_cond_scale not in (None, 1):
            yield "prior.default_cond_scale (--prior-cond-scale says it)"
        if self.clip is not None and self.clip.base_model_kwargs is not None:
            yield "clip.base_model_kwargs (only x-clip and coca have them)"


def read_configuration(path: Path) -> Configuration:
    """Raises UsageError that names the first field that is unknown, missing or impossible."""
    try:
        return Configuration.model_validate(parse_json(path.read_bytes()))
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}): expected a configuration of dalle2-laion"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        if first["type"] == "extra_forbidden":
            raise UsageError(f"{path}: {where} is no field of a configuration of dalle2-laion") from error
        raise UsageError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}") from error
    except ValueError as error:
        raise UsageError(f"{path} is no JSON ({error}): expected a configuration of dalle2-laion") from error
