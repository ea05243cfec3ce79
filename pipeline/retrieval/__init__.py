"""Which questions are alike: the k nearest neuron sets by Jaccard similarity (method, section 5; arXiv 2607.02460).

``sets`` holds neuron sets compactly; ``exact`` compares every pair; ``sketch`` compares short signatures and re-ranks
what they find; ``nearest`` chooses between the two by the number of candidates.
"""
