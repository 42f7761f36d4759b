"""How key points move what is near them: weights (Eq. 1), blending (Eq. 7), and binding of given surfaces."""
