"""Parts of experiments that several papers need."""
