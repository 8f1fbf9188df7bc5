"""The version of this project: in `invoke about`, in every record, manifest and image label, and in pyproject.toml."""

VERSION = "0.1.0"
