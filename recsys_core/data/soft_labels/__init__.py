"""Soft labels on disk, in two layouts behind one reader: `store.SoftLabels`.

`factorized` holds a dot-product teacher's states and item vectors; `sparse` holds lists of items,
for a teacher of any kind. No module needs torch, so readers need no training library.
"""
