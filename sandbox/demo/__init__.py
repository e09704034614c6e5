"""The main job without a browser, told and proved."""
