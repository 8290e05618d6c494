"""Colours that colour-blind readers tell apart."""

# Okabe and Ito, Color Universal Design (2008); yellow is left out, it is too light for lines.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
