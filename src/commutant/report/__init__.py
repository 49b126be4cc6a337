"""The report: runs on disk become a static site that needs no network and no JavaScript."""

from ._build import build as build
