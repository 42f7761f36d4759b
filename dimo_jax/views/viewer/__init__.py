"""The parts of `--app=view`: what is shown (session), when (loop), its drawing and its controls (viser), exports."""
