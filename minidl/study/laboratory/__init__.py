"""Pages on which a layer's small numbers can be edited, and other ways to compute what a layer does."""
