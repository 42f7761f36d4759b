"""The motion space of a rig: codes and a decoder of poses, learnt from the rig's own clips."""
