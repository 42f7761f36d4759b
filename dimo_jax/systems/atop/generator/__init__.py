"""ATOP's generator (paper Sec. 4.2, 4.3.1): videos of a part's motion from several views, and clouds from its score."""
