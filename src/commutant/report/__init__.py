"""Static site of runs and records, which needs no network and no JavaScript."""

from ._build import build as build
