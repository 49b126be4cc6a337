import os

os.environ.setdefault("TRITON_INTERPRET", "1")  # before triton is imported: no GPU here
