"""Batches of reads as people land them: what they must hold, checking them, and putting them there."""

from tasks.landing.manifest import LandedFile, LandedSample, LandingManifest, read_manifest
from tasks.landing.upload import put
from tasks.landing.validation import validate_batch

__all__ = ["LandedFile", "LandedSample", "LandingManifest", "put", "read_manifest", "validate_batch"]
