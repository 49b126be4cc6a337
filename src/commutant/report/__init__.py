"""Static site made from runs on disk; it needs no network and no JavaScript."""

from ._build import build as build
