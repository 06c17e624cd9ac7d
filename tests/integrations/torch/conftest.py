"""Trainers ask the hub for this and that; offline they do not."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
