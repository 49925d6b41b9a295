"""Distillation losses: one file for each loss, and `divergences` between two distributions.

`hard_and_soft` is what the losses over items share: hard cross-entropy plus a weighted loss on the
logits of student and teacher, a few positions at a time.
"""
