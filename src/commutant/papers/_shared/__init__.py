"""Parts of experiments that several papers use."""
