"""Clusters of features: assignments, a client's centroids and the federation's."""
